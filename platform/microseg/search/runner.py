"""Runs a study's trials with Ray Tune: ASHA on the first fold, then every surviving trial's folds."""

from __future__ import annotations

import functools
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Before `import ray`: under `uv run` Ray would build a new environment for its workers, and a worker
# would start in a folder of its own, where relative paths mean something else.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C is an interruption, not the end of a study
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the newer output engine prints even when told to be silent

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from rich.console import Console

from microseg.config import SearchConfig
from microseg.errors import MicrosegError
from microseg.search import job as worker
from microseg.search.job import Job
from microseg.search.progress import ErrorText, ProgressLine
from microseg.search.searcher import StudySearcher

OBJECT_STORE = 200 * 2**20  # results are small: bytes enough for a study, whatever the machine offers


@contextmanager
def ray_session() -> Iterator[dict[str, float]]:
    """Start Ray in this process, or join the cluster of ``RAY_ADDRESS``; yields its resources."""
    address = os.environ.get("RAY_ADDRESS", "local")
    local: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
    ray.init(
        address=address,
        log_to_driver=False,
        logging_level=logging.ERROR,
        **(local if address == "local" else {}),
    )
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()


def resources_per_trial(config: SearchConfig, available: dict[str, float]) -> dict[str, float]:
    """Return the cores and GPUs that each of the concurrent trials gets.

    A trial that asks for a GPU that is not there would wait for ever without a word.

    Raises
    ------
    MicrosegError
        If the machine has less than was asked for.
    """
    cpus, gpus = available.get("CPU", 1.0), available.get("GPU", 0.0)
    if config.concurrency > cpus:
        raise MicrosegError(
            f"concurrency is {config.concurrency}, but there are {cpus:.0f} cores; ask for no more"
        )
    wanted = config.gpus_per_trial
    if wanted is None:
        wanted = min(1.0, gpus / config.concurrency)
    if wanted * config.concurrency > gpus:
        raise MicrosegError(
            f"{config.concurrency} trials at once with {wanted} GPU each were asked for, but there are "
            f"{gpus:g}; lower gpus_per_trial or concurrency"
        )
    return {"cpu": float(cpus // config.concurrency), "gpu": wanted}


def scheduler(config: SearchConfig, epochs: int) -> TrialScheduler:
    """Return ASHA over the epochs of the first fold, or no early stopping.

    The highest rung lies below the first fold's last epoch, and reaching it stops nothing
    (`stop_last_trials` would mark the winners as stopped): a finished fold is no reason to stop.
    """
    if config.asha is None or config.asha.grace >= epochs:
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr="step",
        metric="objective",
        mode=config.mode,
        grace_period=config.asha.grace,
        reduction_factor=config.asha.reduction,
        max_t=epochs - 1,
        stop_last_trials=False,
    )


def run_trials(config: SearchConfig, searcher: StudySearcher, job: Job, console: Console) -> None:
    """Run a study until it has all its trials.

    Parameters
    ----------
    config : SearchConfig
        How many trials, and how many at once.
    searcher : StudySearcher
        Proposes the trials; those left in flight by an earlier run come first.
    job : Job
        What all trials have in common; its ``threads`` are set here from the cores there are.
    console : Console
        Where progress is shown.
    """
    todo = searcher.todo()
    if todo == 0:
        return
    folder = job.workdir / "ray"
    shutil.rmtree(folder, ignore_errors=True)  # an earlier run's notes; the truth is in Optuna's storage
    progress = ProgressLine(config.trials, config.trials - todo, len(job.folds), config.mode, console)
    with progress as line, ray_session() as available:
        resources = resources_per_trial(config, available)
        equipped = job.model_copy(update={"threads": max(1, int(resources["cpu"]))})
        tuner = tune.Tuner(
            tune.with_resources(functools.partial(worker.run, job=equipped), resources),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler(config, job.epochs),
                num_samples=todo,
                max_concurrent_trials=config.concurrency,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(folder.resolve()),
                callbacks=[line, ErrorText(searcher.explain)],
                failure_config=tune.FailureConfig(max_failures=1),
                verbose=0,
            ),
        )
        tuner.fit()
