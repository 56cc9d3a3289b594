"""Check and create a `Component` against a table; the builder's signature is the only schema.

A table is a literal dict from name to builder. A builder's positional arguments are given by the
platform (a channel count, a pair of tensors); its keyword-only arguments are the parameters that a
user may set, and their annotations are what is allowed.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from microseg.config import Component
from microseg.errors import MicrosegError, did_you_mean, expected

Builder = Callable[..., Any]
Table = Mapping[str, Builder]


@functools.cache
def parameters(builder: Builder) -> dict[str, TypeAdapter[Any]]:
    """Return the settable parameters of a builder: its keyword-only arguments and their types."""
    hints = get_type_hints(builder, include_extras=True)
    signature = inspect.signature(builder)
    return {
        name: TypeAdapter(hints.get(name, Any))
        for name, parameter in signature.parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


@functools.cache
def _required(builder: Builder) -> frozenset[str]:
    signature = inspect.signature(builder)
    return frozenset(
        name
        for name, parameter in signature.parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.default is parameter.empty
    )


def check(component: Component, table: Table, slot: str) -> dict[str, Any]:
    """Check a component against its table and return its validated parameters.

    Parameters
    ----------
    component : Component
        A name and keyword arguments.
    table : mapping of str to callable
        The table of the slot, such as ``ARCHITECTURES``.
    slot : str
        What the table holds, for the message: ``"model"``, ``"loss"``, ...

    Returns
    -------
    dict
        The given parameters, converted to the annotated types.

    Raises
    ------
    MicrosegError
        For an unknown name or parameter, a missing parameter, or a value that does not fit.
    """
    if component.name not in table:
        raise MicrosegError(f"unknown {slot} '{component.name}'; {did_you_mean(component.name, table)}")
    builder = table[component.name]
    schema = parameters(builder)
    where = f"{slot} '{component.name}'"
    missing = _required(builder) - component.params.keys()
    if missing:
        raise MicrosegError(f"{where}: parameter '{min(missing)}' is required; add it under params")
    return {name: _convert(where, name, value, schema) for name, value in component.params.items()}


def _convert(where: str, name: str, value: Any, schema: Mapping[str, TypeAdapter[Any]]) -> Any:
    if name not in schema:
        hint = did_you_mean(name, schema) if schema else "it takes no parameters"
        raise MicrosegError(f"{where}: unknown parameter '{name}'; {hint}")
    try:
        return schema[name].validate_python(value)
    except ValidationError as error:
        raise MicrosegError(
            f"{where}: parameter '{name}' is {value!r}; {expected(error.errors())}"
        ) from error


def create(component: Component, table: Table, slot: str, *args: Any) -> Any:
    """Call the component's builder with the platform's arguments and the checked parameters.

    Raises
    ------
    MicrosegError
        As `check`.
    """
    return bind(component, table, slot)(*args)


def bind(component: Component, table: Table, slot: str) -> Builder:
    """Return the component's function with its checked parameters bound, still to be called.

    Raises
    ------
    MicrosegError
        As `check`.
    """
    params = check(component, table, slot)
    return functools.partial(table[component.name], **params)
