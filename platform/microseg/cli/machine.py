"""The command that measures the machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from microseg.cli.options import Data, Folds, data_options, source
from microseg.cli.root import app, out, say
from microseg.cli.studies import changed, space_file
from microseg.config import read_search
from microseg.data.options import DataOptions
from microseg.runtime import load_tensorflow, threads


@app.command(name="bench")
@data_options
def bench_command(
    quick: Annotated[
        bool, typer.Option("--quick", help="In less than 3 minutes on two cores; less exact.")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="File to write the figures to.")] = None,
    data: Data = "",
    space: Annotated[
        str, typer.Option(help="Search-space YAML whose time is told; by default search_spaces/smoke.yaml.")
    ] = "",
    trials: Annotated[int, typer.Option(help="Number of trials; 0: as the YAML says.")] = 0,
    folds: Folds = "",
    *,
    options: DataOptions,
) -> None:
    """Measure this machine: training, prediction, start-up, and the time that a study will take."""
    file = Path(space) if space else space_file("smoke.yaml")
    config = changed(read_search(file), str(file), {"trials": trials, "folds": folds})
    load_tensorflow()
    threads(os.cpu_count() or 1)  # what a trial gets that runs alone; before anything computes
    from microseg.bench.run import Study, bench
    from microseg.bench.tables import tables
    from microseg.checks import check_data, check_space
    from microseg.data.files import replacing
    from microseg.data.open import open_dataset
    from microseg.storage import cache

    checked = check_space(config, str(file))
    manifest = open_dataset(source(data), options, cache())
    check_data(checked, manifest.channels, len(manifest.classes), str(file))
    found = bench(Study(config, checked, manifest), quick, lambda text: say(f"measuring {text}"))
    for table in tables(found):
        out.print(table)
    if json:
        with replacing(json) as handle:
            handle.write(found.model_dump_json(indent=1).encode())
        say(f"figures  {json}")
