"""Options that several commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

import typer

from microseg.config import parse
from microseg.data.options import DataOptions

Data = Annotated[
    str, typer.Option(help="Folder or manifest (YAML, CSV), here or on s3://; by default synthetic cells.")
]
Study = Annotated[str, typer.Option(help="Name of the study; by default the data set's name and the time.")]
Folds = Annotated[str, typer.Option(help="Number of folds, or 'given' for the split in the data.")]
Model = Annotated[str, typer.Option(help="Name of the registered model; by default the data set's name.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the folds, the proposals and the training.")]
DataArgument = Annotated[str, typer.Argument(help="Folder, manifest, or 'demo' for synthetic cells.")]


def data_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option per field of `DataOptions`, handed to it as its argument ``options``."""
    fields = DataOptions.model_fields
    own = [
        part
        for part in inspect.signature(command, eval_str=True).parameters.values()
        if part.name != "options"
    ]
    added = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default="",
            annotation=Annotated[str, typer.Option(help=field.description, show_default=False)],
        )
        for name, field in fields.items()
    ]

    @functools.wraps(command)
    def wrapped(**values: Any) -> None:
        texts = {name: values.pop(name) for name in fields}
        given: dict[str, Any] = {name: text for name, text in texts.items() if text}
        for name in given:
            if fields[name].default == ():  # a list is given with commas
                given[name] = tuple(part.strip() for part in given[name].split(","))
        command(**values, options=parse(DataOptions, given, "data options"))

    wrapped.__signature__ = inspect.Signature(own + added)  # type: ignore[attr-defined]
    return wrapped


def folds_of(text: str) -> int | str:
    """Return the option ``--folds``: a number, or the word as it stands for the configuration to judge."""
    return int(text) if text.lstrip("-").isdigit() else text


def stamped(name: str) -> str:
    """Return a name with the time, for a study that was given none."""
    return f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def source(data: str) -> str:
    """Return the data set's absolute path, or its ``s3://`` URI.

    The word demo stands for synthetic cells, written when first asked for.
    """
    from microseg.storage import home, normalise

    if data not in ("", "demo"):
        return normalise(data)
    from microseg.data.synthetic import write_demo

    folder = home() / "demo"
    return str(folder if folder.is_dir() else write_demo(folder))
