"""The charts of a report, as SVG text."""

from __future__ import annotations

import io

from matplotlib.figure import Figure
from mlflow import MlflowClient

from microseg.report.leaderboard import StudyView

BLUE, GREY = "#0072B2", "#999999"  # Okabe and Ito: told apart by colour-blind readers
COST_AXES = {"parameters": "parameters of the network", "inference_seconds": "seconds to predict a megapixel"}


def fold_points(study: StudyView) -> str:
    """Draw every fold's score, the mean as a bar, for the best ranked trials; empty without any."""
    ranked = study.ranked[:20]
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


def pareto(study: StudyView) -> str:
    """Draw score against cost of the ranked trials, the front as a named line; empty without a cost."""
    if not study.priced:
        return ""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    costs, means, _ = zip(*study.priced, strict=True)
    axes.plot(costs, means, "o", color=GREY, alpha=0.8)
    members = sorted(point for point in study.priced if point[2] in study.front)
    costs, means, _ = zip(*members, strict=True)
    axes.step(costs, means, "o-", where="post", color=BLUE)
    for cost, mean, name in members:
        axes.annotate(name, (cost, mean), (5, -11), textcoords="offset points", fontsize=8)
    axes.set_xscale("log" if study.against == "parameters" else "linear")
    axes.set_xlabel(COST_AXES[study.against])
    axes.set_ylabel(study.metric)
    axes.margins(x=0.12, y=0.12)
    axes.grid(alpha=0.3)
    return _svg(figure)


def curves(client: MlflowClient, study: StudyView) -> str:
    """Draw the validation score by epoch, every fold of the best three trials; empty without any."""
    best = study.ranked[:3]
    if not best:
        return ""
    figure = Figure(figsize=(8, 2.8), layout="constrained")
    panels = figure.subplots(1, len(best), sharey=True, squeeze=False)[0]
    for axes, row in zip(panels, best, strict=True):
        for run_id in row.fold_runs:
            history = sorted(client.get_metric_history(run_id, study.metric), key=lambda point: point.step)
            steps, values = [point.step for point in history], [point.value for point in history]
            axes.plot(steps, values, color=BLUE, alpha=0.6)
        axes.set_title(row.name, fontsize=10)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(study.metric)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
