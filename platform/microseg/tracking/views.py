"""A prepared view of a study in MLflow's UI: trials, best first, with the columns and charts that compare."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mlflow import MlflowClient

from microseg.tracking.tree import LEVEL, REASON, STATE, STUDY, StudyRun

# MLflow's UI keeps a view that somebody shares under this tag of the experiment.
SHARED = "mlflow.sharedViewState."


RANK = "rank"  # a metric, so that the UI can sort by it: means over fewer folds would stand among the ranked


def share_view(
    client: MlflowClient,
    study: StudyRun,
    score: str,
    parameters: Sequence[str],
    drawn: Sequence[str] = (),
    costs: Sequence[str] = (),
) -> str:
    """Prepare the view of a study and return the link to it.

    MLflow's UI opens in another view and with no metric or parameter among its columns, whatever
    tags are set; a shared view names all of it. With ``&compareRunsMode=CHART`` the link opens
    parallel coordinates of the parameters that were searched.

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
    key = f"microseg-{study.run_id[:8]}"
    state = json.dumps(_state(study, score, parameters, costs) | _charts([f"{score}_mean", *costs], drawn))
    client.set_experiment_tag(study.experiment_id, SHARED + key, state)
    base = client.tracking_uri if client.tracking_uri.startswith("http") else "http://127.0.0.1:5000"
    page = f"/#/experiments/{study.experiment_id}/runs"
    return f"{base.rstrip('/')}{page}?workflowType=machine_learning&viewStateShareKey={key}"


def _state(study: StudyRun, score: str, parameters: Sequence[str], costs: Sequence[str]) -> dict[str, Any]:
    columns = [f"metrics.`{RANK}`", f"tags.`{STATE}`", f"metrics.`{score}_mean`", f"metrics.`{score}_std`"]
    columns += [f"metrics.`{cost}`" for cost in costs]
    columns += [f"params.`{path}`" for path in parameters]
    columns += ["metrics.`folds_done`", "metrics.`seconds`", f"tags.`{REASON}`"]
    return {
        "searchFilter": f"tags.`{LEVEL}` = 'trial' and tags.`{STUDY}` = '{study.name}'",
        "orderByKey": f"metrics.`{RANK}`",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": columns,
        "columnOrder": columns,
    }


def _charts(metrics: Sequence[str], parameters: Sequence[str]) -> dict[str, Any]:
    """Return the charts that come first: parallel coordinates of what was searched, and the scores."""
    section = {"uuid": "best", "name": "Best", "display": True, "isReordered": True, "columns": 2}
    shared = {"metricSectionId": "best", "deleted": False, "isGenerated": False, "runsCountToCompare": 20}
    parallel = {"type": "PARALLEL", "selectedMetrics": list(metrics), "selectedParams": list(parameters)}
    bars = {"type": "BAR", "metricKey": metrics[0]}
    return {
        "isAccordionReordered": True,  # otherwise the section of a chart's own metrics comes first
        "compareRunSections": [section],
        "compareRunCharts": [shared | parallel | {"uuid": "parallel"}, shared | bars | {"uuid": "bars"}],
    }
