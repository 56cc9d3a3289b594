"""What the hold-out said of a study's models, where the registry has decided about them."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean
from typing import Any, NamedTuple

from mlflow import MlflowClient

from microseg.report.formats import difference, number
from microseg.tracking.artifacts import find_json

DECISIONS = "decisions"  # folder among a study's artifacts, with one of files for each of its versions


class Said(NamedTuple):
    """A decision in words, and what casts doubt on its figure; without doubts it is unbiased."""

    text: str
    doubts: list[str]


def decisions(client: MlflowClient, run_id: str) -> list[Said]:
    """Say in words what each decision about a model of this study was, the first one first."""
    found = sorted(_documents(client, run_id), key=lambda document: document["decision"]["when"])
    return [
        Said(_in_words(document["decision"], document["groups"]), document["decision"].get("notes", []))
        for document in found
    ]


def _documents(client: MlflowClient, run_id: str) -> Iterator[dict[str, Any]]:
    for version in client.list_artifacts(run_id, DECISIONS):
        for file in client.list_artifacts(run_id, version.path):
            if file.path.endswith(".json"):
                yield find_json(client, run_id, file.path)


def _in_words(decision: dict[str, Any], groups: list[dict[str, Any]]) -> str:
    champion, many = decision["champion"], decision["groups"]
    rival = "Otsu's threshold" if champion is None else f"version {champion}"
    images, use = decision["images"], decision["use"]
    reached = number(fmean(group["challenger"] for group in groups))
    text = (
        f"version {decision['version']} of model {decision['name']} has {decision['metric']} {reached} on "
        f"{images} images that no search has seen (mean over {many} groups, use {use} of this hold-out), "
        f"{difference(decision['estimate'])} against {rival}"
    )
    if decision["low"] is None:
        return f"{text}: cannot be decided with {many} groups."
    low = f"lower bound {difference(decision['low'])}, one-sided at {decision['level']:.3g}"
    return f"{text} ({low}): {'' if decision['outcome'] == 'promoted' else 'not '}promoted."
