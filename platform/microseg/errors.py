"""The one exception that users meet, and how what is wrong is said in one line."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

PLAIN = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}


class MicrosegError(Exception):
    """Bad input or an impossible request, told in one line.

    The text says what was given, what is allowed and what to do about it; the command line prints
    it without a traceback and exits with code 2.
    """


def of_the_system(error: BaseException | None) -> bool:
    """Say whether an error comes from one of the operating system: a full disk, a network that is away."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:  # others of that kind carry no number
            return True
        error = error.__cause__
    return False


def one_line(error: object, longest: int | None = None) -> str:
    """Return an error's text without line breaks, or what kind of error it is where it has none.

    Parameters
    ----------
    error : object
        An exception, or the reason that one gives.
    longest : int, optional
        Characters; what is behind them is cut off.
    """
    return " ".join(str(error).split())[:longest] or type(error).__name__


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, behind which others print traces, in 300 characters."""
    return one_line(next(iter(str(error).strip().splitlines()), type(error).__name__), 300)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural where it is not 1."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Return a hint for a mistyped name: the nearest allowed one, and all that are allowed.

    Parameters
    ----------
    name : str
        What was given.
    allowed : iterable of str
        What would have been accepted.
    """
    names = sorted(allowed)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}allowed: {', '.join(names)}"


def expected(findings: Iterable[Any]) -> str:
    """Say in one line what would have been accepted: of the findings of a union all, each once."""
    start = "Input should be "
    said = [
        start + PLAIN[finding["type"]] if finding["type"] in PLAIN else finding["msg"] for finding in findings
    ]
    first, *others = dict.fromkeys(text.removeprefix("Value error, ") for text in said)
    return " or ".join([first, *(text.removeprefix(start) for text in others)])


def first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    """Say one finding of a pydantic error: a mistyped key, as it explains a missing one, else the first."""
    findings = error.errors()
    finding = next((one for one in findings if one["type"] == "extra_forbidden"), findings[0])
    path = _path(finding, model)
    if finding["type"] == "extra_forbidden":
        owner = functools.reduce(_nested, finding["loc"][:-1], model)
        return f"unknown key '{path}'; {did_you_mean(str(finding['loc'][-1]), owner.model_fields)}"
    said = expected(one for one in findings if _path(one, model) == path)
    if not path:  # a rule of the model as a whole, which names what it refuses
        return said
    given = "" if finding["type"] == "missing" else f" (given: {finding['input']!r})"
    return f"{path}: {said}{given}"


def _path(finding: Any, model: type[BaseModel]) -> str:
    """Return the keys that lead to a finding, without the types that pydantic adds to a union's."""
    keys, owner = [], model
    for key in finding["loc"]:
        if isinstance(key, str) and finding["type"] != "extra_forbidden" and key not in owner.model_fields:
            break
        keys.append(str(key))
        owner = _nested(owner, key)
    return ".".join(keys)


def _nested(owner: type[BaseModel], key: int | str) -> type[BaseModel]:
    """Return the model that a field holds, also where the field may be None; else the owner."""
    field = owner.model_fields.get(str(key))
    kinds = (field.annotation, *get_args(field.annotation)) if field else ()
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), owner)
