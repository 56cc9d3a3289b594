"""What a study tries first, what it tries again with other seeds, and what it will cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from rich.console import Console

from microseg.checks import fitting_points, start_points
from microseg.config import SearchConfig
from microseg.errors import MicrosegError
from microseg.search.job import Job
from microseg.search.records import TrialRecord
from microseg.search.spending import ToGo, projection
from microseg.search.trials import Trials, read_records
from microseg.space import Scalar
from microseg.storage import home
from microseg.study.changes import digest
from microseg.study.request import Prepared, StudyState, folder, optuna_file, read_state
from microseg.training.retraining import FOLDER as RETRAINED

Point = dict[str, Scalar]
SEEDS_APART = 1000  # fold i trains with seed + i: repetitions must not meet each other's folds


def first_points(prepared: Prepared, console: Console) -> list[Point]:
    """Return the parameters to try first: what the search starts with, then the best of an earlier study.

    Raises
    ------
    MicrosegError
        If a stated configuration is no point of the space, or none of the earlier study's is.
    """
    config, source = prepared.request.config, f"study {prepared.request.name}"
    points = start_points(config, prepared.space, source)
    if config.warm_start is None:
        return points
    earlier = _best(config.warm_start.study)[: config.warm_start.best]
    values = [record.config.model_dump(mode="json") for record in earlier]
    fitting, misfits = fitting_points(values, config, prepared.space, f"study '{config.warm_start.study}'")
    if not fitting:
        why = misfits[0] if misfits else "it has no trial with all folds"
        raise MicrosegError(
            f"{source}: nothing of study '{config.warm_start.study}' can be tried here; {why}"
        )
    for reason in misfits:
        console.print(f"warm start, left out: {reason}", soft_wrap=True, highlight=False, markup=False)
    return [*points, *fitting]


def kept_points(state: StudyState, prepared: Prepared, console: Console) -> Sequence[Point]:
    """Return the parameters that a study tries first as it began, found anew if its space was changed.

    Raises
    ------
    MicrosegError
        As `first_points`.
    """
    same = digest(state.request.config) == digest(prepared.request.config)
    return state.points if same else first_points(prepared, console)


def _best(study: str) -> list[TrialRecord]:
    state = read_state(study)
    sign = -1.0 if state.request.config.mode == "max" else 1.0
    records = read_records(optuna_file(study), study)
    complete = [record for record in records if record.score is not None and record.state == "completed"]
    return sorted(complete, key=lambda record: sign * (record.score or 0.0))


def again_name(study: str) -> str:
    """Return the name under which Optuna's storage has the repeats of a study."""
    return f"{study} again"


def _finalists(trials: Trials, config: SearchConfig) -> list[TrialRecord]:
    return [record for record in trials.ranked() if record.state == "completed"][: config.finalists]


def add_replicates(trials: Trials, again: Trials, config: SearchConfig) -> None:
    """Queue the best trials with other seeds; a repetition that is there stays once."""
    for repetition in range(1, config.replicates + 1):
        for record in _finalists(trials, config):
            seed = record.config.seed + repetition * SEEDS_APART
            repeated = record.config.model_copy(update={"seed": seed})
            again.add(repeated, f"{record.name}-seed-{repetition}", record.number)


def cost(prepared: Prepared, job: Job, trials: Trials, gpus: float) -> str:
    """Say what the rest of the study costs at most, by the pace of earlier trials on the same images.

    A trial asks for so many GPUs; one in flight counts as a whole.
    """
    config, own = prepared.request.config, trials.records()
    left = max(0, config.trials - sum(map(_ended, own)))
    repeats = config.replicates * min(config.finalists, config.trials)
    if left == 0:  # else others may become the finalists
        finalists = [record.number for record in _finalists(trials, config)]
        done = read_records(optuna_file(prepared.request.name), again_name(prepared.request.name))
        repeats = config.replicates * len(finalists)
        repeats -= sum(_ended(record) and record.replicate_of in finalists for record in done)
    size = len(job.folds), job.epochs
    earlier = [*own, *_on_same_images(prepared)]
    to_go = ToGo(left, max(0, repeats), _retrainings(prepared, trials, left))
    return projection(config.concurrency, size, to_go, earlier, gpus)


def _retrainings(prepared: Prepared, trials: Trials, left: int) -> int:
    """Return 1 where the candidate is to be trained on all images; 0 where the best trial was already."""
    if prepared.request.config.candidate != "retrained":
        return 0
    best = trials.ranked()[0].name if left == 0 and trials.ranked() else ""
    done = best and any((folder(prepared.request.name) / best / RETRAINED).glob("*.keras"))
    return 0 if done else 1


def _ended(record: TrialRecord) -> bool:
    return record.state not in ("running", "interrupted", "refused")


def _on_same_images(prepared: Prepared) -> Iterator[TrialRecord]:
    """Yield the trials of other studies here; those in a database that is not at hand would only help."""
    for file in sorted((home() / "studies").glob("*/study.json")):
        name = file.parent.name
        state = StudyState.model_validate_json(file.read_text(encoding="utf-8"))
        if state.digest == prepared.manifest.digest and name != prepared.request.name:
            with suppress(MicrosegError):
                yield from read_records(optuna_file(name), name)
