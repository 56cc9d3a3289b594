"""Runs a study's trials with Ray Tune: ASHA on the first fold, then every surviving trial's folds."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from typing import Any

import ray
from mlflow import MlflowClient
from ray import tune
from rich.console import Console

from microseg.config import SearchConfig
from microseg.search import deaths, standby, worker
from microseg.search.incidents import MOST
from microseg.search.job import Job
from microseg.search.progress import Failures, ProgressLine
from microseg.search.resources import Packing, asked
from microseg.search.scheduler import FoldRace
from microseg.search.searcher import StudySearcher, reconcile
from microseg.search.session import ray_session
from microseg.search.spending import Spending
from microseg.search.trials import Trials
from microseg.tracking.tree import StudyRun

# All that may go wrong with a trial before it is given up, the attempt that ends it, and a last one, in which
# the worker finds it hopeless and says so.
ATTEMPTS = sum(most - 1 for most in MOST.values()) + 2


def trainable(train: Callable[..., None], job: Job) -> Any:
    """Return what Ray Tune sends to each worker.

    It is unpickled there before the trial begins, and each module that it names is loaded for that: of this
    one's, which are the driver's, a worker needs none, and they load TensorFlow with all that Keras takes.
    """
    return tune.with_resources(functools.partial(train, job=job), asked)


def run_trials(
    config: SearchConfig,
    trials: Trials,
    job: Job,
    runs: tuple[MlflowClient, StudyRun],
    seen: tuple[Spending, Console],
    train: Callable[..., None] = worker.run,
) -> None:
    """Run a study until it has all its trials, or its budget is spent.

    Parameters
    ----------
    config : SearchConfig
        How many trials, how many at once, which may go on.
    trials : Trials
        The study; trials left in flight by an earlier run come first.
    job : Job
        What all trials have in common.
    runs : MlflowClient, StudyRun
        The study's run in MLflow.
    seen : Spending, Console
        What the study has cost, and where progress is shown.
    train : callable
        What a worker does, given the settings of a trial and the job.
    """
    spending, console = seen
    left = len(trials.unfinished())
    reconcile(*runs, trials.records())
    todo = max(0, config.trials - trials.count()) + left
    if todo == 0 or spending.exhausted():
        return
    folder = job.workdir / "ray"
    shutil.rmtree(folder, ignore_errors=True)  # an earlier run's notes; the truth is in Optuna's storage
    if job.store:
        folder.mkdir(parents=True, exist_ok=True)
        job.mark.touch()
    standby.set_environment()
    progress = ProgressLine(config, config.trials - todo, job, spending, console)
    with progress as line, ray_session() as nodes:
        race = FoldRace(config, job.epochs, len(job.folds), spending.exhausted)
        searcher = StudySearcher(trials, config.trials, runs, race, Packing(config, nodes), job)
        tuner = tune.Tuner(
            trainable(train, job),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=race,
                num_samples=todo,
                max_concurrent_trials=config.concurrency,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(folder.resolve()),
                callbacks=[spending, line, Failures(job, searcher.explain)],
                failure_config=tune.FailureConfig(max_failures=ATTEMPTS - 1),
                verbose=0,
            ),
        )
        try:
            with deaths.survived():
                tuner.fit()
        except BaseException:
            ray.shutdown()  # or its workers would open runs after all were ended
            raise
        finally:
            spending.write()
