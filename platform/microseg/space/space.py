"""A parsed search space: what can be drawn from it, found in it and refused by it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from microseg.config import Constraint
from microseg.space.constraints import violated
from microseg.space.corners import corners
from microseg.space.nodes import Group, Number, OneOf, Scalar, Value, ambiguous_paths, walk
from microseg.space.points import find
from microseg.space.sampling import Suggest, sample


class Dimension(NamedTuple):
    """A parameter that a sampler draws; ``conditional`` if only some branches have it."""

    name: str
    node: Number | OneOf
    conditional: bool


@dataclass(frozen=True)
class Space:
    """A search space and the constraints on its points."""

    root: Group
    constraints: tuple[Constraint, ...] = ()

    def sample(self, suggest: Suggest) -> dict[str, Any]:
        """Draw one configuration, as plain values in the shape of a `TrialConfig`."""
        return sample(self.root, suggest)

    def parameters(self, config: Mapping[str, Any]) -> dict[str, Scalar]:
        """Return the parameters by name that `sample` would have to draw to give a configuration.

        Parameters
        ----------
        config : mapping
            In the shape of a `TrialConfig`; what it leaves out is left out of the parameters too. Of
            alternatives that all fit, the one that leaves the least open counts, then the first.

        Raises
        ------
        MicrosegError
            If a value is not in the space; the message names its path and what is allowed.
        """
        return find(self.root, config)

    def violated(self, config: Mapping[str, Any]) -> str | None:
        """Return why the constraints refuse a (possibly partial) configuration, None if they do not."""
        reasons = (violated(constraint, config) for constraint in self.constraints)
        return next((reason for reason in reasons if reason is not None), None)

    def corners(self) -> Iterator[dict[str, Any]]:
        """Yield configurations that together hold every alternative and both ends of every range.

        One part is varied at a time, so their number grows with the size of the YAML, not
        exponentially.
        """
        yield from corners(self.root)

    def part(self, name: str, *, between: bool = False) -> list[Any]:
        """Return the corner values of one top-level part, such as ``"tile"``; empty if not given.

        Parameters
        ----------
        name : str
            A key of the space.
        between : bool
            Also the whole numbers between the ends of (short) ranges of whole numbers.
        """
        return list(corners(self.root.parts[name], between)) if name in self.root.parts else []

    def fixed(self) -> dict[str, Any]:
        """Return the top-level parts that are the same in every configuration."""
        searched = {
            str(place).split("/")[0] for place, node in walk(self.root) if not isinstance(node, Value)
        }
        return {name: self.part(name)[0] for name in self.root.parts if name not in searched}

    def dimensions(self) -> list[Dimension]:
        """Return what a sampler draws, each parameter once."""
        ambiguous = ambiguous_paths(self.root)
        found = {
            place.name(ambiguous): Dimension(place.name(ambiguous), node, place.branch != place.path)
            for place, node in walk(self.root)
            if isinstance(node, Number | OneOf)
        }
        return list(found.values())
