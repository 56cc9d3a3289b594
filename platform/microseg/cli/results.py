"""Commands that take in what others have made: tables of results, and masks of outside tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from microseg.cli.root import app, out, say
from microseg.config import parse


@app.command()
def import_results(
    file: Annotated[Path, typer.Argument(help="Table (CSV, TSV): a row per configuration, or per fold.")],
    name: Annotated[str, typer.Option(help="Name of the study that it becomes.")],
    metric: Annotated[str, typer.Option(help="What the scores are, such as dice.")] = "dice",
    fold_columns: Annotated[
        str, typer.Option(help="Columns of the fold scores, with commas; by default fold1, fold2, ...")
    ] = "",
    id_column: Annotated[str, typer.Option(help="Column that names the configurations.")] = "",
    metric_columns: Annotated[
        str, typer.Option(help="Columns of further metrics, with commas; the rest are parameters.")
    ] = "",
    where: Annotated[
        list[str] | None, typer.Option(help="Take the rows with this value: input=height. May be repeated.")
    ] = None,
    lower_is_better: Annotated[
        bool, typer.Option("--lower-is-better", help="The metric improves downwards.")
    ] = False,
    test_to_train: Annotated[
        float, typer.Option(help="Validation items over training items of a fold; 0: folds are equal parts.")
    ] = 0.0,
) -> None:
    """Bring a table of results into MLflow as a study, to be reported and compared as any other."""
    from microseg.importing.results import ResultsRequest
    from microseg.importing.results import import_results as take

    columns = {
        "metric": metric.removeprefix("val/"),
        "fold_columns": _listed(fold_columns),
        "id_column": id_column,
        "metric_columns": _listed(metric_columns),
        "where": tuple(where or ()),
    }
    values: dict[str, Any] = {
        "file": file,
        "name": name,
        "columns": columns,
        "lower_is_better": lower_is_better,
    }
    done = take(parse(ResultsRequest, values | {"test_to_train": test_to_train or None}, "import-results"))
    from microseg import report

    out.print(report.terminal_table(done.view))
    for note in done.notes:
        say(f"note: {note}")
    many = f"{len(done.view.rows)} configurations, {len(done.view.ranked)} with all {done.view.folds} folds"
    say(f"{'was there already' if done.known else 'imported'}: study '{name}' with {many}")
    say(f"report   microseg report {name}")
    say(f"look     {done.link}")


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
