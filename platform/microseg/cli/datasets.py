"""Commands about data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from microseg.cli.options import DataArgument, data_options, source
from microseg.cli.root import app, say
from microseg.data.options import DataOptions

data_app = typer.Typer(help="Look at a data set, write its manifest, audit it.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@app.command(name="demo-data")
def demo_data(
    folder: Annotated[Path, typer.Argument(help="Folder to write; it must not exist.")],
    images: Annotated[int, typer.Option(help="Number of images.", min=8)] = 24,
    size: Annotated[int, typer.Option(help="Side of an image in pixels.", min=128)] = 128,
    seed: Annotated[int, typer.Option(help="The same seed writes the same bytes.")] = 0,
) -> None:
    """Write a synthetic data set: cells that touch, uneven light, blur and noise, in several sessions."""
    from microseg.data.synthetic import write_demo

    say(f"wrote {write_demo(folder, images=images, size=size, seed=seed)}")


def _open(data: str, options: DataOptions) -> Any:
    from microseg.data.open import open_dataset
    from microseg.storage import cache

    return open_dataset(source(data).resolve(), options, cache())


@data_app.command()
@data_options
def inspect(
    data: DataArgument,
    *,
    options: DataOptions,
) -> None:
    """Read a data set completely and say what it holds."""
    from microseg.data.manifest import describe

    for name, value in describe(_open(data, options)).items():
        say(f"{name:<14} {value}")


@data_app.command()
@data_options
def manifest(
    data: DataArgument,
    output: Annotated[Path, typer.Option(help="YAML file to write.")],
    *,
    options: DataOptions,
) -> None:
    """Write a data set's manifest: every pair, its group, stratum and split."""
    from microseg.data.manifest import write_manifest

    found = _open(data, options)
    write_manifest(found, output)
    say(f"wrote {output} ({len(found.items)} images)")


@data_app.command()
@data_options
def audit(
    data: DataArgument,
    *,
    options: DataOptions,
) -> None:
    """Look for what would make a score untrue: duplicates, mixed sessions, empty masks."""
    from microseg.data.audit import audit as run_audit
    from microseg.storage import cache

    findings = run_audit(_open(data, options), cache())
    for finding in findings:
        say(f"{finding.level:<7} {finding.text}")
    if not findings:
        say("nothing found")
    if any(finding.level == "refuse" for finding in findings):
        raise typer.Exit(2)
