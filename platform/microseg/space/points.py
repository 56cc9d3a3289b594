"""Find a configuration in a space: the parameters that a sampler would have to draw to give it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from microseg.errors import MicrosegError, did_you_mean
from microseg.space.nodes import (
    Group,
    Node,
    Number,
    OneOf,
    Place,
    Scalar,
    Value,
    ambiguous_paths,
    same,
)


class _Found(NamedTuple):
    """Parameters by name, how much of the space they leave open, and what was given without need."""

    parameters: dict[str, Scalar]
    open: int = 0
    needless: int = 0


def find(root: Group, config: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return the parameters by name that give a (possibly partial) configuration, see `Space.parameters`.

    Raises
    ------
    MicrosegError
        If a value is not in the space; the message names its path and what is allowed.
    """
    return _find(root, config, Place(), ambiguous_paths(root)).parameters


def _find(node: Node, given: Any, place: Place, ambiguous: frozenset[str]) -> _Found:
    if isinstance(node, Group):
        return _in_group(node, given, place, ambiguous)
    if isinstance(node, OneOf):
        return _in_one_of(node, given, place, ambiguous)
    if isinstance(node, Number):
        return _Found({place.name(ambiguous): _in_range(node, given, place)})
    if not same(node.value, given):
        raise MicrosegError(f"{place} is {given!r}; the space fixes it at {node.value!r}")
    return _Found({})


def _in_range(node: Number, given: Any, place: Place) -> Scalar:
    value = node.value(given)
    if value is None:
        low, high = node.ends()
        kind = "whole numbers" if node.whole else "numbers"
        raise MicrosegError(f"{place} is {given!r}; allowed: {kind} from {low:g} to {high:g}")
    return value


def _in_group(node: Group, given: Any, place: Place, ambiguous: frozenset[str]) -> _Found:
    if not isinstance(given, Mapping):
        raise MicrosegError(f"{place} is {given!r}; give a mapping with the keys {', '.join(node.parts)}")
    for key in given.keys() - node.parts.keys():
        if given[key] != {}:  # empty parameters say nothing
            hint = did_you_mean(str(key), node.parts) if node.parts else "it has none there"
            raise MicrosegError(f"{place.down(str(key))} is {given[key]!r}; not in the space; {hint}")
    found = [
        _find(part, given[key], place.down(key), ambiguous)
        for key, part in node.parts.items()
        if key in given
    ]
    return _Found(
        {name: value for part in found for name, value in part.parameters.items()},
        sum(part.open for part in found) + len(node.parts.keys() - given.keys()),
        sum(part.needless for part in found) + len(given.keys() - node.parts.keys()),
    )


def _in_one_of(node: OneOf, given: Any, place: Place, ambiguous: frozenset[str]) -> _Found:
    fits: list[_Found] = []
    misfits: list[MicrosegError] = []
    for label, option in zip(node.labels, node.options, strict=True):
        try:
            found = _find(option, given, place.into(label), ambiguous)
        except MicrosegError as error:
            if _named_alike(option, given):
                misfits.append(error)
        else:
            fits.append(found._replace(parameters={place.name(ambiguous): label} | found.parameters))
    if not fits:
        allowed = ", ".join(str(label) for label in node.labels)
        raise next(iter(misfits), MicrosegError(f"{place} is {given!r}; allowed: {allowed}"))
    return min(fits, key=lambda found: (found.open, found.needless))


def _named_alike(option: Node, given: Any) -> bool:
    """Whether an option is the component that was meant, so that its own complaint says most."""
    name = option.parts.get("name") if isinstance(option, Group) else None
    return isinstance(name, Value) and isinstance(given, Mapping) and given.get("name") == name.value
