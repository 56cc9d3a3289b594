"""What was decided between a challenger and a champion, as the version keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import numpy as np
from mlflow.tracking import MlflowClient

from microseg.config import Strict
from microseg.registry.history import Promotion, promote
from microseg.registry.rights import check_model
from microseg.statistics import gate
from microseg.tracking import clock
from microseg.tracking.environment import user

OUTCOME = "microseg.decision"

Outcome = Literal["promoted", "kept", "undecided"]
_OUTCOMES: dict[bool | None, Outcome] = {True: "promoted", False: "kept", None: "undecided"}


class ImageScore(Strict):
    """What both reached on one image."""

    image: str
    group: str
    champion: float
    challenger: float

    @property
    def difference(self) -> float:
        """Challenger less champion."""
        return self.challenger - self.champion


class GroupScore(Strict):
    """The means of a group's images."""

    group: str
    images: int
    champion: float
    challenger: float


class Meeting(Strict):
    """Who meets whom, where, and what is asked of the challenger.

    ``champion`` is None where the rival is Otsu's threshold; ``hold_out`` is the content hash of the images
    and masks; ``metric`` the score per image, larger is better; ``least`` the gain that is asked for.
    ``about`` says of each version what it is: the networks of all folds, one of them, ...
    """

    name: str
    version: int
    champion: int | None
    hold_out: str
    metric: str
    least: float
    notes: tuple[str, ...] = ()
    about: tuple[str, ...] = ()

    @property
    def rival(self) -> str:
        """What the challenger meets, in words."""
        return "Otsu's threshold" if self.champion is None else f"version {self.champion}"


class Decision(Meeting):
    """What a meeting said, see `microseg.statistics.Gate`; ``use`` counts the uses of the hold-out.

    ``low`` and ``resolvable`` are None where too few groups leave nothing to decide.
    """

    use: int
    level: float
    estimate: float
    low: float | None
    resolvable: float | None
    groups: int
    images: int
    outcome: Outcome
    user: str
    when: datetime


class _Document(Strict):
    """The file of a decision."""

    decision: Decision
    groups: tuple[GroupScore, ...]
    images: tuple[ImageScore, ...]


def decide(meeting: Meeting, scores: Sequence[ImageScore], use: int) -> Decision:
    """Apply the gate to the scores of a hold-out that is used for the given time, from 1."""
    differences, groups = [one.difference for one in scores], [one.group for one in scores]
    answer = gate(differences, groups, use, meeting.least)._asdict()
    outcome = _OUTCOMES[answer.pop("passed")]
    made = {"use": use, "outcome": outcome, "user": user(), "when": clock.moment()}
    return Decision(**meeting.model_dump() | answer | made)


def by_group(scores: Sequence[ImageScore]) -> list[GroupScore]:
    """Return the means of each group, the one with the largest loss first."""
    groups: dict[str, list[ImageScore]] = {}
    for one in scores:
        groups.setdefault(one.group, []).append(one)
    means = [
        GroupScore(
            group=group,
            images=len(members),
            champion=float(np.mean([one.champion for one in members])),
            challenger=float(np.mean([one.challenger for one in members])),
        )
        for group, members in groups.items()
    ]
    return sorted(means, key=lambda mean: mean.challenger - mean.champion)


def recorded(client: MlflowClient, meeting: Meeting) -> Decision | None:
    """Return the decision that was made before between the same two on the same hold-out, if any."""
    text = client.get_model_version(meeting.name, str(meeting.version)).tags.get(_key(meeting))
    return Decision.model_validate_json(text) if text else None


def record(
    client: MlflowClient, run_id: str, decision: Decision, scores: Sequence[ImageScore], html: str
) -> None:
    """Keep a decision: numbers and page among the artifacts of the version's run, tags on the version.

    The tag by which `recorded` finds it comes last: until then the decision was not made.
    """
    document = _Document(decision=decision, groups=tuple(by_group(scores)), images=tuple(scores))
    client.log_text(run_id, document.model_dump_json(indent=1), f"{artifact(decision)}.json")
    client.log_text(run_id, html, f"{artifact(decision)}.html")
    shown = {"level": decision.level, "estimate": decision.estimate, "low": decision.low}
    tags = {f"microseg.{name}": f"{value:.6g}" for name, value in shown.items() if value is not None}
    tags |= {OUTCOME: decision.outcome, _key(decision): decision.model_dump_json()}
    for name, value in tags.items():
        client.set_model_version_tag(decision.name, str(decision.version), name, value)


def force(client: MlflowClient, name: str, version: int, why: str) -> Promotion:
    """Make a version champion without asking whether it is better, and keep the reason with it."""
    check_model(client, name)
    for tag, value in {OUTCOME: "forced", "microseg.why": why}.items():
        client.set_model_version_tag(name, str(version), tag, value)
    return promote(name, version, why)


def artifact(decision: Decision) -> str:
    """Return the path, without its suffix, of a decision among the artifacts of its version's run."""
    return f"decisions/{decision.name}-{decision.version}/decision-{decision.use}"


def _key(meeting: Meeting) -> str:
    rival = "otsu" if meeting.champion is None else meeting.champion
    return f"{OUTCOME}.{meeting.hold_out[:16]}.{rival}.{meeting.least:g}"
