"""A study as one HTML page that opens without a network."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined
from mlflow import MlflowClient

from microseg.report import figures, sentences, tables
from microseg.report.leaderboard import StudyView
from microseg.report.replicates import repeats

ROWS = 200  # a browser lays out a longer table slowly, and nobody reads it; the CSV has all


def page(client: MlflowClient, study: StudyView) -> str:
    """Render a study as one HTML page that opens without a network."""
    environment = Environment(
        loader=PackageLoader("microseg", "templates"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters |= {name: getattr(tables, name) for name in ("rounded", "number", "cost")}
    environment.filters |= {"measured": sentences.measured, "state": sentences.state}
    return environment.get_template("report.html").render(
        study=study,
        shown=study.first(ROWS),
        headings=tables.headings(study.varied),
        cost_unit=tables.COST_UNITS.get(study.against, ""),
        summary=sentences.summary(study).splitlines(),
        comparison=sentences.comparison(study),
        resolution=sentences.resolution(study),
        repeats=repeats(study),
        repetition=sentences.repetition(study),
        points=figures.fold_points(study),
        pareto=figures.pareto(study),
        curves=figures.curves(client, study),
        facts=_facts(study),
    )


def _facts(study: StudyView) -> dict[str, str]:
    tags = study.run.data.tags
    return {
        "Data set": tags.get("microseg.data", ""),
        "Content digest": tags.get("microseg.digest", "")[:16],
        "Code": tags.get("mlflow.source.git.commit", "")[:12] or "not in a git checkout",
        "Hardware": tags.get("microseg.hardware", ""),
        "Seed": tags.get("microseg.seed", ""),
    }
