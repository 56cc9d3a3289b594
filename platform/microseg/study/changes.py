"""What may differ between a study and its resumption, and what would mix figures that do not compare."""

from __future__ import annotations

import hashlib

from microseg.config import SearchConfig
from microseg.errors import MicrosegError
from microseg.study.request import Request, StudyState
from microseg.tracking import environment

FREE = (
    *("trials", "budget", "replicates", "finalists", "concurrency", "gpus_per_trial", "curves"),
    *("candidate", "keep"),
)
FIXED = ("metric", "mode", "against", "folds", "holdout", "seed")


def refuse_changes(state: StudyState, request: Request, force: bool) -> None:
    """Refuse to resume a study with another configuration or other code than it began with.

    Trials, budget, replicates and how many run at once may change. What a score means may not, and the rest
    only when forced.

    Raises
    ------
    MicrosegError
        For the first thing that differs.
    """
    name, before, now = request.name, state.request.config, request.config
    for key in FIXED:
        old, new = getattr(before, key), getattr(now, key)
        if old != new:
            raise MicrosegError(
                f"study '{name}' began with {key}: {old}, now {new} was given; scores would not compare: "
                "leave it out, or start a new --study with warm_start"
            )
    if force:
        return
    if digest(before) != digest(now):
        raise MicrosegError(
            f"study '{name}' began with another space (digest {digest(before)}, now {digest(now)}); leave "
            "--space out to go on as it began, start a new --study, or add --force"
        )
    code = environment.code()
    changed = [
        f"{key} {state.code[key]}, now {code.get(key)}"
        for key in state.code
        if state.code[key] != code.get(key)
    ]
    if changed:
        raise MicrosegError(
            f"study '{name}' began with other code ({'; '.join(changed)}); go back to it, start a new "
            "--study, or add --force"
        )


def refuse_data(state: StudyState, digest: str, force: bool) -> None:
    """Refuse to resume a study on images that have changed.

    Raises
    ------
    MicrosegError
        If the digest of the data set is another one.
    """
    if digest != state.digest and not force:
        raise MicrosegError(
            f"the data set of study '{state.request.name}' has changed since it began (digest "
            f"{state.digest[:12]}, now {digest[:12]}); restore the files, start a new --study, or add --force"
        )


def digest(config: SearchConfig) -> str:
    """Return a hash (12 digits) of what a search may not change while it runs."""
    return hashlib.sha256(config.model_dump_json(exclude={*FREE}).encode()).hexdigest()[:12]
