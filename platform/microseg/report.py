"""What a study found: the leaderboard for the terminal and for MLflow, and one HTML page."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Run
from rich.table import Table

from microseg.errors import MicrosegError
from microseg.tracking import tree

BLUE, GREY = "#0072B2", "#999999"  # Okabe and Ito: told apart by colour-blind readers


@dataclass(frozen=True)
class Row:
    """One trial on the leaderboard."""

    rank: int | None
    name: str
    state: str
    reason: str
    mean: float | None
    std: float | None
    scores: tuple[float, ...]
    seconds: float
    params: dict[str, str]
    run_id: str


@dataclass(frozen=True)
class StudyView:
    """A study as MLflow holds it."""

    run: Run
    metric: str
    folds: int
    rows: tuple[Row, ...]

    @property
    def varied(self) -> list[str]:
        """The parameters in which the trials differ, in order of their paths."""
        names = sorted({name for row in self.rows for name in row.params})
        return [name for name in names if len({row.params.get(name) for row in self.rows}) > 1]


def find_study(client: MlflowClient, name: str) -> Run:
    """Return the newest study of this name, in any experiment.

    Raises
    ------
    MicrosegError
        If there is none; the message lists those there are.
    """
    experiments = [str(experiment.experiment_id) for experiment in client.search_experiments()]
    condition = f"tags.`{tree.LEVEL}` = 'study'"
    runs = client.search_runs(experiments, condition, order_by=["attributes.start_time DESC"])
    for run in runs:
        if run.data.tags[tree.STUDY] == name and tree.RESUMES not in run.data.tags:
            return run
    known = ", ".join(sorted({run.data.tags[tree.STUDY] for run in runs})) or "none yet"
    raise MicrosegError(f"there is no study '{name}' in {client.tracking_uri}; studies: {known}")


def view(client: MlflowClient, study: Run) -> StudyView:
    """Read a study's trials and folds from MLflow, the best trial first.

    Only trials with all folds are ranked: the mean of fewer folds is another quantity.
    """
    metric = study.data.tags["microseg.metric"]
    mode = study.data.tags["microseg.mode"]
    trials = list(tree.children(client, study.info.experiment_id, study.info.run_id))
    rows = [_row(client, run, metric.removeprefix("val/")) for run in trials]
    sign = -1.0 if mode == "max" else 1.0
    complete = sorted(
        (row for row in rows if row.state == "completed" and row.mean is not None),
        key=lambda row: (sign * (row.mean or 0.0), row.name),
    )
    rest = [row for row in rows if row not in complete]
    ranked = [Row(**{**row.__dict__, "rank": rank}) for rank, row in enumerate(complete, 1)]
    return StudyView(study, metric, int(study.data.tags["microseg.folds"]), tuple(ranked + rest))


def _row(client: MlflowClient, run: Run, metric: str) -> Row:
    folds = list(tree.children(client, run.info.experiment_id, run.info.run_id))
    folds.sort(key=lambda fold: fold.info.run_name)
    metrics, tags = run.data.metrics, run.data.tags
    key = f"final/{metric}"
    return Row(
        rank=None,
        name=run.info.run_name,
        state=tags.get(tree.STATE, "running"),
        reason=tags.get(tree.REASON, ""),
        mean=metrics.get(f"cv/{metric}_mean"),
        std=metrics.get(f"cv/{metric}_std"),
        scores=tuple(fold.data.metrics[key] for fold in folds if key in fold.data.metrics),
        seconds=_duration(run),
        params=dict(run.data.params),
        run_id=run.info.run_id,
    )


def _duration(run: Run) -> float:
    """Return how long a trial took, whatever became of it, in seconds."""
    return (run.info.end_time - run.info.start_time) / 1000 if run.info.end_time else 0.0


def terminal_table(study: StudyView, limit: int = 20) -> Table:
    """Return the leaderboard as a table for the terminal."""
    table = Table(
        title=f"{study.run.info.run_name}: {study.metric}, mean over {study.folds} folds",
        title_justify="left",
    )
    for column in ("#", "trial", "mean ± sd", "state"):
        table.add_column(column, no_wrap=True)
    for name in study.varied:
        table.add_column(short(name), overflow="fold")
    for row in study.rows[:limit]:
        cells = [str(row.rank or ""), row.name, score(row), _state(row)]
        table.add_row(*cells, *[rounded(row.params.get(name, "")) for name in study.varied])
    return table


def frame(study: StudyView) -> pd.DataFrame:
    """Return the leaderboard as a data frame, one row per trial, for a CSV or MLflow's table viewer."""
    records = [
        {"rank": row.rank, "trial": row.name, "mean": row.mean, "std": row.std, "state": row.state}
        | {"reason": row.reason, "seconds": round(row.seconds, 1)}
        | {f"fold {index}": value for index, value in enumerate(row.scores, 1)}
        | {name: row.params.get(name, "") for name in study.varied}
        for row in study.rows
    ]
    return pd.DataFrame.from_records(records).astype({"rank": "Int64"})  # whole numbers, also beside none


def page(client: MlflowClient, study: StudyView) -> str:
    """Render a study as one HTML page that opens without a network."""
    environment = Environment(
        loader=PackageLoader("microseg", "templates"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters |= {"short": short, "rounded": rounded}
    facts = {
        "Data set": study.run.data.tags.get("microseg.data", ""),
        "Content digest": study.run.data.tags.get("microseg.digest", "")[:16],
        "Code": study.run.data.tags.get("mlflow.source.git.commit", "not in a git checkout")[:12],
        "Hardware": study.run.data.tags.get("microseg.hardware", ""),
        "Seed": study.run.data.tags.get("microseg.seed", ""),
    }
    template = environment.get_template("report.html")
    return template.render(
        study=study,
        score=score,
        facts=facts,
        comparison=comparison(study),
        points=_fold_points(study),
        curves=_curves(client, study),
    )


def score(row: Row) -> str:
    """Return a trial's mean and standard deviation over folds, such as ``0.871 ± 0.012``."""
    if row.mean is None:
        return ""
    return f"{row.mean:.4f}" + (f" ± {row.std:.4f}" if row.std is not None else "")


def short(path: str) -> str:
    """Return a path as a heading: ``model/params/depth`` is ``depth``, ``loss/name`` is ``loss``."""
    parts = [part for part in path.split("/") if part not in ("params", "name")]
    return parts[-1].replace("_", " ")


def rounded(value: str) -> str:
    """Return a parameter's value with at most four significant digits."""
    try:
        number = float(value)
    except ValueError:
        return value
    return value if number.is_integer() else f"{number:.4g}"


def _state(row: Row) -> str:
    return row.state if row.state == "completed" else f"{row.state} ({row.reason})"


def _fold_points(study: StudyView) -> str:
    """Draw every fold's score, the mean as a bar, for the ranked trials."""
    ranked = [row for row in study.rows if row.rank is not None][:20]
    if not ranked:
        return ""
    figure = Figure(figsize=(8, 0.9 + 0.32 * len(ranked)), layout="constrained")
    axes = figure.subplots()
    for height, row in enumerate(reversed(ranked)):
        axes.plot(row.scores, [height] * len(row.scores), "o", color=GREY, markersize=5, alpha=0.8)
        axes.plot([row.mean or 0.0], [height], "|", color=BLUE, markersize=16, markeredgewidth=2.5)
    axes.set_yticks(range(len(ranked)), [row.name for row in reversed(ranked)])
    axes.set_ylim(-0.6, len(ranked) - 0.4)
    axes.set_xlabel(f"{study.metric} (points: folds, bar: mean)")
    axes.grid(axis="x", alpha=0.3)
    return _svg(figure)


def _curves(client: MlflowClient, study: StudyView) -> str:
    """Draw the validation score by epoch, every fold of the best three trials."""
    best = [row for row in study.rows if row.rank is not None][:3]
    if not best:
        return ""
    figure = Figure(figsize=(8, 2.8), layout="constrained")
    panels = figure.subplots(1, len(best), sharey=True, squeeze=False)[0]
    for axes, row in zip(panels, best, strict=True):
        for fold in tree.children(client, study.run.info.experiment_id, row.run_id):
            history = client.get_metric_history(fold.info.run_id, study.metric)
            axes.plot(
                [point.step for point in history], [point.value for point in history], color=BLUE, alpha=0.6
            )
        axes.set_title(row.name, fontsize=10)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(study.metric)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def comparison(study: StudyView) -> str:
    """Say in words how the two best trials compare, fold by fold, claiming no more than was measured."""
    ranked = [row for row in study.rows if row.rank is not None]
    if len(ranked) < 2:
        return ""
    first, second = ranked[0], ranked[1]
    pairs = list(zip(first.scores, second.scores, strict=False))
    higher = (
        sum(a > b for a, b in pairs)
        if study.run.data.tags["microseg.mode"] == "max"
        else sum(a < b for a, b in pairs)
    )
    return f"{first.name} is better than {second.name} in {higher} of {len(pairs)} folds."
