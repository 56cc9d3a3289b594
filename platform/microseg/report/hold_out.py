"""What the hold-out said of a study's models, where the registry has decided about them."""

from __future__ import annotations

import json
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from microseg.report.formats import difference

DECISION = "microseg.decision."  # tags of a model version that hold a decision of the gate


def decisions(client: MlflowClient, study: Run) -> list[str]:
    """Say in words what each decision about a model of this study was, the first one first."""
    versions = client.search_model_versions(f"run_id = '{study.info.run_id}'")
    found = [
        json.loads(text)
        for version in versions
        for tag, text in version.tags.items()
        if tag.startswith(DECISION)
    ]
    return [_in_words(decision) for decision in sorted(found, key=lambda decision: decision["when"])]


def _in_words(decision: dict[str, Any]) -> str:
    champion = decision["champion"]
    rival = "Otsu's threshold" if champion is None else f"version {champion}"
    text = (
        f"Version {decision['version']} of model {decision['name']} against {rival} on {decision['images']} "
        f"images of {decision['groups']} groups that no search has seen: {difference(decision['estimate'])} "
        f"in {decision['metric']}, mean over groups"
    )
    if decision["low"] is None:
        return f"{text}; {decision['outcome']}, that cannot be decided with {decision['groups']} groups."
    low = f"lower bound {difference(decision['low'])} (one-sided, at {decision['level']:.3g})"
    return f"{text}, {low}; {decision['outcome']}."
