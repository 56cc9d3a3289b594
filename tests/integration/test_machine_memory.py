"""The machine runs out of memory for real: Ray ends the worker, the trial goes on with smaller steps."""

import sys
import time

import pytest
import simulation
from ray import cloudpickle
from ray._common.utils import get_system_memory
from ray._private.utils import get_used_memory
from rich.console import Console

from microseg.config import SearchConfig
from microseg.search import worker
from microseg.search.runner import run_trials
from microseg.search.spending import Spending
from microseg.search.trials import Trials
from microseg.space import parse_space
from microseg.tracking import store, tree

pytestmark = pytest.mark.alone  # what other tests take or give back moves the limit that is set here

VALUES = {"model": {"name": "unet"}, "batch_size": {"choice": [1, 4]}, "epochs": 1}
CONFIG = SearchConfig.model_validate(
    {
        "space": VALUES,
        "trials": 2,
        "folds": 1,
        "asha": None,
        "race": None,
        "concurrency": 1,
        "start_with": [{"batch_size": 4}, {"batch_size": 1}],
    }
)
ROOM, STEP = 2**31, 2**26  # bytes that the workers may take together, bytes at once


def train(settings, job):
    """What a worker does, where a whole batch needs more memory than there is."""

    def training(config, trial, job, attempt, threads):
        taken = []
        while config.accumulation == 1 and len(taken) * STEP < 2 * ROOM:
            taken.append(bytearray(b"x" * STEP))
            time.sleep(0.05)
        worker.Reporter(job, trial, config.accumulation).stop(0, 1, "collapsed", "all background")

    worker._train = training
    worker.run(settings, job)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """The trials of the study, after it."""
    folder = tmp_path_factory.mktemp("memory")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    full = (get_used_memory() + ROOM) / get_system_memory()  # as Ray sees them, also within a container
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_memory_usage_threshold", f"{full:.3f}")
        patch.setenv("RAY_memory_monitor_refresh_ms", "100")
        client = store.connect(f"sqlite:///{folder}/mlflow.db")
        trials = Trials(folder / "optuna.db", "memory", parse_space(VALUES), CONFIG)
        trials.enqueue([{"batch_size": 4}, {"batch_size": 1}])
        seen = Spending(trials, None), Console(quiet=True)
        job = simulation.job(CONFIG, 1, folder, folds=1)
        run_trials(CONFIG, trials, job, (client, tree.open_study(client, "memory")), seen, train)
    return {record.config.batch_size: record for record in trials.records()}


def test_the_trial_whose_worker_ray_ended_goes_on_with_half_a_batch_at_once(records):
    assert (records[4].state, records[4].config.accumulation) == ("collapsed", 2)


def test_a_trial_that_cannot_be_halved_is_out_of_memory(records):
    assert (records[1].state, records[1].reason) == (
        "out_of_memory", "the machine ran out of memory, Ray ended the worker",
    )  # fmt: skip
