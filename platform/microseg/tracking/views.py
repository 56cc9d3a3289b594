"""Prepared views of MLflow's UI: the studies of an experiment, and the trials of each, best first."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mlflow import MlflowClient

from microseg.tracking import clock
from microseg.tracking.tree import LEVEL, REASON, STATE, STUDY, StudyRun

# MLflow's UI keeps a view that somebody shares under this tag of the experiment; with a name it is in a menu.
SHARED = "mlflow.sharedViewState."
OURS, STUDIES = "microseg-", "microseg-studies"
NAMED = 20  # of our views are in the menu: with 40 in it, MLflow lets nobody save one of their own
LINKED = 8  # of them are in the experiment's description: it stands above every table of its runs
NOTE, LEAD = "mlflow.note.content", "Searches for segmentation networks: "

RANK = "rank"  # a metric, so that the UI can sort by it: means over fewer folds would stand among the ranked
# Tags, for metrics are shown with all their digits; a tag's name takes neither "±" nor "%".
INTERVAL, COST, BEST, TRIALS = "mean CI95", "cost", "best trial", "trials"
WIDTHS = {
    INTERVAL: 130,
    COST: 190,
    TRIALS: 150,
    REASON: 260,
}  # pixels, where MLflow's 100 cut off what is said


def share_view(
    client: MlflowClient,
    study: StudyRun,
    score: str,
    parameters: Sequence[str],
    drawn: Sequence[str] = (),
    costs: Sequence[str] = (),
) -> str:
    """Prepare the view of a study, list it with the others of its experiment, and return the link to it.

    MLflow's UI opens in another view and with no metric or parameter among its columns, whatever
    tags are set; a shared view names all of it. With ``&compareRunsMode=CHART`` the link opens
    parallel coordinates of the parameters that were searched. The experiment's description, which the UI
    shows above its runs, and the menu "Views" lead there too, and to the list of all studies.

    Parameters
    ----------
    client : MlflowClient
        The tracking store.
    study : StudyRun
        The study.
    score : str
        What trials are ranked by, without its suffix: ``cv/dice``.
    parameters : sequence of str
        Paths of the parameters in which the trials differ: the columns.
    drawn : sequence of str
        Those that every trial has: parallel coordinates leave out a run that lacks one of theirs.
    costs : sequence of str
        Metrics that are searched to be low beside the score.

    Returns
    -------
    str
        The address, on the server of the store, or where ``mlflow ui`` listens by default.
    """
    key = f"{OURS}{study.run_id[:8]}"
    state = _trials(study, score, parameters, costs) | _charts([f"{score}_mean", *costs], drawn)
    _save(client, study.experiment_id, key, study.name, state)
    _save(client, study.experiment_id, STUDIES, "all studies", _studies())
    _list(client, study.experiment_id)
    base = client.tracking_uri if client.tracking_uri.startswith("http") else "http://127.0.0.1:5000"
    return f"{base.rstrip('/')}/{_page(study.experiment_id, key)}"


def _page(experiment_id: str, key: str) -> str:
    return f"#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={key}"


def _save(client: MlflowClient, experiment_id: str, key: str, name: str, state: Mapping[str, Any]) -> None:
    """Keep a view as MLflow's UI does; without its name it opens by its link alone."""
    now = clock.milliseconds()
    named = {"name": name, "createdAt": now, "updatedAt": now, "state": json.dumps(state)}
    client.set_experiment_tag(experiment_id, SHARED + key, json.dumps(named))


def _list(client: MlflowClient, experiment_id: str) -> None:
    """Keep the newest of our views in the menu, and write the description, unless somebody wrote another."""
    tags = client.get_experiment(experiment_id).tags
    views = {tag: json.loads(tags[tag]) for tag in tags if tag.startswith(SHARED + OURS)}
    named = {tag.removeprefix(SHARED): view for tag, view in views.items() if "state" in view}
    newest = sorted(named.keys() - {STUDIES}, key=lambda key: named[key]["createdAt"], reverse=True)
    for key in newest[NAMED:]:
        client.set_experiment_tag(experiment_id, SHARED + key, named[key]["state"])
    if _ours(tags.get(NOTE, "")):
        links = [_link(experiment_id, key, named[key]["name"]) for key in [STUDIES, *newest[:LINKED]]]
        client.set_experiment_tag(experiment_id, NOTE, LEAD + " · ".join(links))


def _ours(note: str) -> bool:
    """Say whether nobody wrote this description, or added anything to it: it is our links alone."""
    return not note or re.fullmatch(rf"{LEAD}(\[.*?\]\(#/experiments/[^)]*\)( · |$))+", note) is not None


def _link(experiment_id: str, key: str, name: str) -> str:
    shown = name.replace("[", "\\[").replace("]", "\\]")
    return f"[{shown}]({_page(experiment_id, key)})"


def _trials(study: StudyRun, score: str, parameters: Sequence[str], costs: Sequence[str]) -> dict[str, Any]:
    columns = [f"metrics.`{RANK}`", *_tags(INTERVAL, STATE, COST)]
    columns += [f"metrics.`{cost}`" for cost in costs]
    columns += [f"params.`{path}`" for path in parameters]
    columns += [f"metrics.`{score}_mean`", f"metrics.`{score}_std`", "metrics.`folds_done`", *_tags(REASON)]
    trials = f"tags.`{LEVEL}` = 'trial' and tags.`{STUDY}` = '{study.name}'"
    return _table(trials, f"metrics.`{RANK}`", True, columns)


def _studies() -> dict[str, Any]:
    columns = _tags(STATE, BEST, INTERVAL, TRIALS, COST, "microseg.metric", "microseg.data", REASON)
    return _table(f"tags.`{LEVEL}` = 'study'", "attributes.start_time", False, columns)


def _tags(*names: str) -> list[str]:
    return [f"tags.`{name}`" for name in names]


def _table(condition: str, order: str, ascending: bool, columns: Sequence[str]) -> dict[str, Any]:
    return {
        "searchFilter": condition,
        "orderByKey": order,
        "orderByAsc": ascending,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": {f"tags.`{name}`": pixels for name, pixels in WIDTHS.items()},
    }


def _charts(metrics: Sequence[str], parameters: Sequence[str]) -> dict[str, Any]:
    """Return the charts that come first: parallel coordinates of what was searched, and the scores."""
    # One column: in half of the width the names of eight parameters lie over each other.
    section = {"uuid": "best", "name": "Best", "display": True, "isReordered": True, "columns": 1}
    shared = {"metricSectionId": "best", "deleted": False, "isGenerated": False, "runsCountToCompare": 20}
    parallel = {"type": "PARALLEL", "selectedMetrics": list(metrics), "selectedParams": list(parameters)}
    bars = {"type": "BAR", "metricKey": metrics[0]}
    return {
        "isAccordionReordered": True,  # otherwise the section of a chart's own metrics comes first
        "compareRunSections": [section],
        "compareRunCharts": [shared | parallel | {"uuid": "parallel"}, shared | bars | {"uuid": "bars"}],
    }
