"""The charts of a report, as SVG text; each is empty where there is nothing to draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from mlflow import MlflowClient

from microseg.pages import BLUE, GREY, ORANGE, svg
from microseg.report.comparisons import interval
from microseg.report.formats import headings
from microseg.report.leaderboard import Row, StudyView

COST_AXES = {"parameters": "parameters of the network", "inference_seconds": "seconds to predict a megapixel"}
WIDE = 10  # times that the largest value is the smallest, from which on an axis is logarithmic
MOST_SLICES = 6


def fold_points(study: StudyView) -> str:
    """Draw every fold's score, mean and interval, and the means of repeats, of the best ranked trials."""
    ranked = study.ranked[:20]
    if not ranked:
        return ""
    figure = Figure(figsize=(8, 0.9 + 0.32 * len(ranked)), layout="constrained")
    axes = figure.subplots()
    for height, row in enumerate(reversed(ranked)):
        within = interval(row, study)
        if within:
            axes.plot([within.low, within.high], [height] * 2, "-", color=BLUE, linewidth=1.5)
        axes.plot(row.scores, [height] * len(row.scores), "o", color=GREY, markersize=5, alpha=0.8)
        axes.plot([row.mean or 0.0], [height], "|", color=BLUE, markersize=16, markeredgewidth=2.5)
        again = [other.mean for other in study.replicates if other.replicate_of == row.name and other.mean]
        axes.plot(again, [height] * len(again), "D", color=ORANGE, markersize=4)
    axes.set_yticks(range(len(ranked)), [row.name for row in reversed(ranked)])
    axes.set_ylim(-0.6, len(ranked) - 0.4)
    axes.set_xlabel(study.metric)
    axes.grid(axis="x", alpha=0.3)
    return svg(figure)


def pareto(study: StudyView) -> str:
    """Draw score against cost of the ranked trials, the front as a named line."""
    if len(study.priced) < 2:
        return ""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    costs, means, _ = zip(*study.priced, strict=True)
    axes.plot(costs, means, "o", color=GREY, alpha=0.8)
    members = sorted(point for point in study.priced if point[2] in study.front)
    axes.step(
        [cost for cost, _, _ in members], [mean for _, mean, _ in members], "o-", where="post", color=BLUE
    )
    for cost, mean, name in members:
        axes.annotate(name, (cost, mean), (5, -11), textcoords="offset points", fontsize=8)
    if _wide(costs):
        axes.set_xscale("log")
    axes.set_xlabel(COST_AXES[study.price])
    axes.set_ylabel(study.metric)
    axes.margins(x=0.12, y=0.12)
    axes.grid(alpha=0.3)
    return svg(figure)


def importances(importance: Mapping[str, float]) -> str:
    """Draw the shares of the most important parameters."""
    if not importance:
        return ""
    first = list(importance.items())[:12]
    names = headings([path for path, _ in first])
    figure = Figure(figsize=(8, 0.7 + 0.26 * len(first)), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(first)), [share for _, share in first], color=BLUE, height=0.65)
    axes.set_yticks(range(len(first)), names)
    axes.invert_yaxis()
    axes.set_xlabel("share of importance")
    axes.grid(axis="x", alpha=0.3)
    return svg(figure)


def slices(study: StudyView, importance: Mapping[str, float]) -> str:
    """Draw the ranked trials' means against each of the most important parameters."""
    paths = list(importance)[:MOST_SLICES]
    if not paths:
        return ""
    lines = -(-len(paths) // 3)
    figure = Figure(figsize=(8, 2.5 * lines), layout="constrained")
    panels = figure.subplots(lines, 3, sharey=True, squeeze=False).ravel()
    for axes, path, name in zip(panels, paths, headings(paths), strict=False):
        _slice(axes, path, [row for row in study.ranked if path in row.params])
        axes.set_xlabel(name)
        axes.grid(alpha=0.3)
    for axes in panels[len(paths) :]:
        axes.set_visible(False)
    figure.supylabel(study.metric, fontsize=10)
    return svg(figure)


def _slice(axes: Any, path: str, rows: Sequence[Row]) -> None:
    values, means = [row.params[path] for row in rows], [row.mean for row in rows]
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        names = sorted(set(values))
        axes.plot([names.index(value) for value in values], means, "o", color=BLUE, alpha=0.6)
        axes.set_xticks(
            range(len(names)), [_short(name) for name in names], rotation=30, ha="right", fontsize=8
        )
        axes.set_xlim(-0.5, len(names) - 0.5)
        return
    axes.plot(numbers, means, "o", color=BLUE, alpha=0.6)
    if _wide(numbers):
        axes.set_xscale("log")
    else:
        axes.locator_params(axis="x", nbins=4)


def _wide(numbers: Sequence[float]) -> bool:
    return min(numbers) > 0 and max(numbers) >= WIDE * min(numbers)


def _short(name: str) -> str:
    return name if len(name) <= 16 else f"{name[:15]}…"


def curves(client: MlflowClient, study: StudyView) -> str:
    """Draw the validation score by epoch, every fold of the best three trials."""
    best = [
        (row.name, [_history(client, run, study.metric) for run in row.fold_runs]) for row in study.ranked[:3]
    ]
    if not any(steps for _, histories in best for steps, _ in histories):
        return ""
    figure = Figure(figsize=(8, 2.8), layout="constrained")
    panels = figure.subplots(1, len(best), sharey=True, squeeze=False)[0]
    for axes, (name, histories) in zip(panels, best, strict=True):
        for steps, values in histories:
            axes.plot(steps, values, color=BLUE, alpha=0.6)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(study.metric)
    return svg(figure)


def _history(client: MlflowClient, run_id: str, metric: str) -> tuple[list[int], list[float]]:
    history = sorted(client.get_metric_history(run_id, metric), key=lambda point: point.step)
    return [point.step for point in history], [point.value for point in history]
