"""Commands about data sets."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from microseg.cli.options import DataArgument, data_options, folds_of, source
from microseg.cli.root import app, out, say
from microseg.config import SearchConfig
from microseg.data.options import DataOptions
from microseg.errors import MicrosegError

data_app = typer.Typer(help="Look at a data set, write its manifest, audit it.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@app.command(name="demo-data")
def demo_data(
    folder: Annotated[Path, typer.Argument(help="Folder to write; it must not exist.")],
    images: Annotated[int, typer.Option(help="Number of images.", min=8)] = 36,
    sessions: Annotated[
        int,
        typer.Option(help="Number of sessions; 12 are the fewest that decide a promotion.", min=1, max=26),
    ] = 12,
    size: Annotated[int, typer.Option(help="Side of an image in pixels.", min=128)] = 128,
    seed: Annotated[int, typer.Option(help="The same seed writes the same bytes.")] = 0,
) -> None:
    """Write a synthetic data set: cells that touch, uneven light, blur and noise, in several sessions."""
    from microseg.data.synthetic import write_demo

    say(f"wrote {write_demo(folder, images=images, sessions=sessions, size=size, seed=seed)}")


def _open(data: str, options: DataOptions) -> Any:
    from microseg.data.open import open_dataset
    from microseg.storage import cache

    return open_dataset(source(data), options, cache())


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
    folds: Annotated[str, typer.Option(help="Audit these folds: a number, or 'given'.")] = "",
    holdout: Annotated[
        float, typer.Option(help="With --folds: the share of groups that a search sets aside.")
    ] = SearchConfig.model_fields["holdout"].default,
    seed: Annotated[int, typer.Option(help="With --folds: the seed of the search.", min=0)] = 0,
    tile: Annotated[int, typer.Option(help="Side of the training tile in pixels; 0: unknown.", min=0)] = 0,
    output: Annotated[
        Path | None, typer.Option(help="HTML file to write, with the images that are alike.")
    ] = None,
    *,
    options: DataOptions,
) -> None:
    """Look for what would make a score untrue: copies, near duplicates, mixed sessions, doubtful masks."""
    from microseg.data.audit import audit as run_audit
    from microseg.data.audit import page
    from microseg.data.files import replacing
    from microseg.storage import cache

    manifest = _open(data, options)
    divided = _folds(manifest, folds_of(folds), holdout, seed) if folds else ()
    findings = run_audit(manifest, cache(), divided, tile or None)
    _show(findings)
    if output:
        with replacing(output) as file:
            file.write(page(manifest, cache(), findings).encode())
        say(f"page    {output}")
    if any(finding.level == "refuse" for finding in findings):
        raise typer.Exit(2)


def _folds(manifest: Any, folds: int | str, holdout: float, seed: int) -> Any:
    """Divide a data set as a search would, without setting anything aside for good."""
    from microseg import folds as folding
    from microseg.storage import home

    if not (folds == "given" or (isinstance(folds, int) and folds > 0)) or not 0 <= holdout < 0.9:
        raise MicrosegError(
            f"--folds {folds} --holdout {holdout:g}: folds are a number from 1 on or 'given', and the"
            " hold-out is a share from 0 to below 0.9"
        )
    with tempfile.TemporaryDirectory() as scratch:
        kept = folding.splits_file(manifest, home())
        file = kept if kept.is_file() else Path(scratch) / kept.name
        development, _ = folding.split_holdout(manifest, holdout, seed, file)
    if isinstance(folds, int):
        return folding.make_folds(development, folds, seed)
    return folding.given_fold(development)


def _show(findings: Sequence[Any]) -> None:
    """Print findings as a table, what to do below each, and how many there are of each level."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 1, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    styles = {"refuse": "bold red", "warn": "yellow", "note": "dim"}
    for finding in findings:
        text = Text(finding.text)
        text.append(f"\n-> {finding.advice}" if finding.advice else "", "bold")
        table.add_row(Text(finding.level, styles[finding.level]), text)
    out.print(table)
    counts = Counter(finding.level for finding in findings)
    say(", ".join(f"{counts[level]} {level}" for level in styles if counts[level]) or "nothing found")
