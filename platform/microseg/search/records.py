"""What is known of one trial, as Optuna's storage keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from optuna.trial import FrozenTrial
from pydantic import Field

from microseg.config import Strict, TrialConfig
from microseg.tracking.tree import trial_name

State = Literal[
    "running",
    "completed",
    "pruned",
    "raced_out",
    "out_of_memory",
    "diverged",
    "collapsed",
    "failed",
    "interrupted",
    "refused",
]
INFEASIBLE = ("out_of_memory", "diverged", "collapsed", "refused")


class TrialRecord(Strict):
    """What is known of one trial.

    ``scores`` are the fold scores in fold order, ``score`` is their mean once all folds are done, ``cost``
    what a study with two objectives wants low. ``steps`` are the objective by step (see `search.job`).
    ``seconds`` and ``memory_mib`` are those of its folds.
    """

    number: int
    name: str
    state: State
    reason: str = ""
    config: TrialConfig
    run_id: str = ""
    scores: tuple[float, ...] = ()
    score: float | None = None
    cost: float | None = None
    steps: dict[int, float] = Field(default_factory=dict)
    seconds: tuple[float, ...] = ()
    epochs: tuple[int, ...] = ()
    memory_mib: float = 0.0
    gpu_memory_mib: float = 0.0
    replicate_of: int | None = None


def outcome_of(trial: FrozenTrial) -> dict[str, Any]:
    """Return how a trial ended: state, reason, score and cost; nothing while it is in flight."""
    return trial.user_attrs.get("outcome") or {}


def recorded(trial: FrozenTrial, explained: Mapping[str, Any]) -> TrialRecord:
    """Return a trial's record; ``explained`` are the attributes of its study, see `Trials.explain`."""
    attrs, outcome = trial.user_attrs | trial.user_attrs.get("measured", {}), outcome_of(trial)
    known = {name: attrs[name] for name in TrialRecord.model_fields if name in attrs}
    ended = {"state": "running", "name": trial_name(trial.number), "steps": trial.intermediate_values}
    ended |= known | outcome | {"number": trial.number}
    if f"reason/{trial.number}" in explained:
        ended["reason"] = explained[f"reason/{trial.number}"]
    return TrialRecord.model_validate(ended)
