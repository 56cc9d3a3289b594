"""Commands that take in what others have made: tables of results, and masks of outside tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from microseg.cli.options import data_options
from microseg.cli.root import app, out, say
from microseg.config import parse
from microseg.data.options import DataOptions


@app.command(name="import-results")
def import_results(
    file: Annotated[Path, typer.Argument(help="Table (CSV, TSV): a row per configuration, or per fold.")],
    name: Annotated[str, typer.Option(help="Name of the study that it becomes.")],
    metric: Annotated[str, typer.Option(help="What the scores are, such as dice.")] = "dice",
    fold_columns: Annotated[
        str, typer.Option(help="Columns of the fold scores, with commas; by default fold1, fold2, ...")
    ] = "",
    id_column: Annotated[
        str, typer.Option(help="Column that names the configurations; several, with commas, together do.")
    ] = "",
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
        "id_columns": _listed(id_column),
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


@app.command()
@data_options
def score(
    truth: Annotated[str, typer.Option(help="Data set, or folder of true masks: a path or s3:// URI.")],
    prediction: Annotated[
        str, typer.Option(help="Folder of masks to score (PNG, TIFF or NPY): a path or s3:// URI.")
    ],
    name: Annotated[str, typer.Option(help="Name under which the scores are kept, such as cellpose-3.")],
    part: Annotated[
        str, typer.Option(help="Which images count: all, or the holdout that searches have set aside.")
    ] = "all",
    suffix: Annotated[str, typer.Option(help="Score only files whose names end so, such as _cp_masks.")] = "",
    prediction_threshold: Annotated[
        float, typer.Option(help="Predicted values at or above it are foreground; 0: every non-zero value.")
    ] = 0.0,
    missing_as_empty: Annotated[
        bool, typer.Option("--missing-as-empty", help="Count missing masks as empty; else they are refused.")
    ] = False,
    against: Annotated[
        str, typer.Option(help="Compare with the scores of this name, or of models:/NAME@champion.")
    ] = "",
    metric: Annotated[str, typer.Option(help="What is compared.")] = "dice",
    *,
    options: DataOptions,
) -> None:
    """Score the masks of an outside tool against the truth, with the metrics of everything else."""
    from microseg.importing import scores
    from microseg.tracking import store

    values: dict[str, Any] = {"truth": truth, "prediction": prediction, "name": name, "part": part}
    values |= {"suffix": suffix, "threshold": prediction_threshold or None, "options": options}
    values |= {"missing_as_empty": missing_as_empty}
    request = parse(scores.ScoreRequest, values, "score")
    other = scores.rival(store.connect(), against) if against else None
    done = scores.score(request)
    _scored(done)
    if other:
        say(scores.sentence(done, other, metric))
        say("This is a comparison, not a promotion: no use of a hold-out is counted and no alias moves.")


def _scored(done: Any) -> None:
    """Print the means, the images that scored least, and what was noticed."""
    from rich import box
    from rich.table import Table

    from microseg.scoring import means, means_over_groups

    groups = len({one.group for one in done.table})
    columns = {f"over {len(done.table)} images": means(done.table)}
    columns |= {f"over {groups} groups": means_over_groups(done.table)} if done.grouped else {}
    table = Table(
        "mean", *columns, box=box.SIMPLE_HEAD, pad_edge=False, title=done.name, title_justify="left"
    )
    for metric in done.table[0].scores:
        table.add_row(metric, *(f"{column[metric]:.4f}" for column in columns.values()))
    out.print(table)
    worst = sorted(done.table, key=lambda one: one.scores["dice"])[:3]
    say("least dice  " + ", ".join(f"{one.image} {one.scores['dice']:.4f}" for one in worst))
    for note in done.notes:
        say(f"note: {note}")
    say(f"{'was recorded before' if done.known else 'recorded'} in MLflow as '{done.name}'")
