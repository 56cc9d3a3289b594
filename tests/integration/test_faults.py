"""Faults injected into a real study, real Ray and real training: it goes on, loses nothing, records nothing twice."""

import errno
import json
import os
import signal
from pathlib import Path

import pytest
from ray import cloudpickle
from rich.console import Console

from microseg import study as studies
from microseg.config import SearchConfig
from microseg.data.synthetic import write_demo
from microseg.search import worker
from microseg.search.runner import run_trials
from microseg.search.spending import Spending
from microseg.search.trials import Trials
from microseg.study import run as study_run
from microseg.study.queue import first_points
from microseg.tracking import store, tree

pytestmark = pytest.mark.slow  # some 20 worker processes with TensorFlow

VALUES = {
    "model": {"name": "unet", "params": {"depth": 2, "filters": 4}},
    "optimizer": {"name": "adam", "params": {"learning_rate": 0.01}},
    "patience": {"int_uniform": [10, 99]},  # which 3 epochs never reach: all trials are the same training
    "augment": {"name": "none"},
    "tile": 32,
    "batch_size": 4,
    "epochs": 3,
    "steps_per_epoch": 4,
    "precision": "float32",
}
KILLED, DIVERGED, BROKEN, FULL, TIGHT, TOO_LARGE, FINE = range(7)
CONFIG = SearchConfig.model_validate(
    {
        "space": VALUES,
        "trials": 7,
        "folds": 2,
        "asha": None,
        "race": None,
        "concurrency": 2,
    }
)


def once(folder: Path, name: str) -> bool:
    """Say whether this is the first time; kept in a file, for another process will ask."""
    try:
        (folder / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def train(settings, job):
    """What a worker does, with the fault of its trial."""
    number, folder = settings["trial"]["number"], job.workdir / settings["trial"]["name"]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "attempts").open("a") as file:
        file.write(f"{os.getpid()}\n")
    FAULTS.get(number, lambda folder: None)(folder)
    worker.run(settings, job)


def killed(folder):
    """Die in the second epoch of the second fold, as if the system had killed the process."""
    from microseg.training.callbacks import Reporter

    original = Reporter.on_epoch_end

    def on_epoch_end(self, epoch, logs):
        if self.fold == 1 and epoch == 1 and once(folder, "killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        original(self, epoch, logs)

    Reporter.on_epoch_end = on_epoch_end


def diverged(folder):
    """A training image holds an infinite value."""
    from microseg.training import fold

    original = fold.training_batches
    fold.training_batches = lambda *given: original(*given).map(
        lambda image, target: (image * 1e38 * 1e38, target)
    )


def broken(folder):
    from microseg.data import pipeline

    def crop(*given):
        raise ValueError("this patch cannot be cut")

    pipeline.crop = crop


def full(folder):
    """Once there is no space left for the first fold's result."""
    from microseg.training import fold

    original = fold.write_result

    def write_result(result, place):
        if once(folder, "full"):
            raise OSError(errno.ENOSPC, "No space left on device")
        original(result, place)

    fold.write_result = write_result


def memory_for(patches):
    """Stand for a GPU that holds so many patches: TensorFlow's own error, where a step would raise it."""

    def fault(folder):
        from microseg import runtime

        runtime.load_tensorflow()
        import tensorflow as tf

        from microseg.training import fold

        original = fold.training_batches

        def training_batches(pairs, sampling, *rest):
            if sampling.batch_size > patches:
                raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
            return original(pairs, sampling, *rest)

        fold.training_batches = training_batches

    return fault


FAULTS = {
    KILLED: killed,
    DIVERGED: diverged,
    BROKEN: broken,
    FULL: full,
    TIGHT: memory_for(2),
    TOO_LARGE: memory_for(1),
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The study after all its trials; its folder, its trials, its runs by name."""
    import sys

    folder = tmp_path_factory.mktemp("faults")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MICROSEG_HOME", str(folder / "home"))
        patch.setenv("RAY_worker_niceness", "0")
        client = store.connect(f"sqlite:///{folder}/mlflow.db")
        request = studies.Request(
            name="faults", data=write_demo(folder / "cells", images=8, sessions=4), config=CONFIG
        )
        prepared = studies.prepare(request)
        trials = Trials(folder / "optuna.db", "faults", prepared.space, CONFIG)
        quiet = Console(quiet=True)
        trials.enqueue(first_points(prepared, quiet))
        run = tree.open_study(client, "faults")
        seen = Spending(trials, None), quiet
        run_trials(CONFIG, trials, study_run.job_of(prepared), (client, run), seen, train)
    runs = {}
    for found in tree.search(client, run.experiment_id, "tags.`microseg.level` != 'study'"):
        assert found.info.run_name not in runs, "recorded twice"
        runs[found.info.run_name] = found
    return prepared, {record.number: record for record in trials.records()}, client, runs


def attempts(number) -> int:
    return len((studies.folder("faults") / f"trial-{number:03d}" / "attempts").read_text().split())


@pytest.fixture(autouse=True)
def home(study, monkeypatch):
    monkeypatch.setenv("MICROSEG_HOME", str(Path(study[0].request.data).parent / "home"))


@pytest.mark.parametrize(
    ("number", "state", "tries", "reason"),
    [
        (KILLED, "completed", 2, "all folds"),
        (DIVERGED, "diverged", 1, "fold 1: the loss was no number in epoch "),
        (BROKEN, "failed", 3, "this patch cannot be cut"),  # the third attempt only says so
        (FULL, "completed", 2, "all folds"),
        (TIGHT, "completed", 2, "all folds"),
        (TOO_LARGE, "out_of_memory", 3, "out of memory with 2 patches at once"),
        (FINE, "completed", 1, "all folds"),
    ],
)
def test_every_trial_ends_as_what_it_was(study, number, state, tries, reason):
    _, records, _, runs = study
    record = records[number]
    assert (record.state, attempts(number)) == (state, tries)
    assert reason in record.reason
    tags = runs[record.name].data.tags
    assert (tags[tree.STATE], tags[tree.REASON]) == (state, record.reason)
    assert runs[record.name].info.status == {"completed": "FINISHED"}.get(state, "FAILED")


def test_a_killed_worker_goes_on_from_its_last_epoch(study):
    """Its first fold is not trained again, and each epoch of its second is recorded once."""
    _, _, client, runs = study
    for fold in (1, 2):
        history = client.get_metric_history(runs[f"trial-000/fold-{fold}"].info.run_id, "val/dice")
        assert [point.step for point in history] == [1, 2, 3]
    folder = studies.folder("faults") / "trial-000"
    assert [json.loads((folder / f"fold-{n}" / "result.json").read_text())["epochs"] for n in (0, 1)] == [
        3,
        3,
    ]


def test_the_killed_trial_is_as_good_as_one_that_was_not(study):
    """What a thread pool rounds may differ in the last digits."""
    _, records, _, _ = study
    assert records[KILLED].scores == pytest.approx(records[FINE].scores, abs=0.05)


def test_half_a_batch_at_once_keeps_the_batch_and_is_recorded(study):
    _, records, _, runs = study
    assert (records[TIGHT].config.batch_size, records[TIGHT].config.accumulation) == (4, 2)
    assert runs["trial-004"].data.tags["microseg.accumulation"] == "2"


def test_no_run_is_left_running(study):
    _, _, _, runs = study
    assert not [name for name, run in runs.items() if run.info.status == "RUNNING"]
    folds = [name for name in runs if "/" in name and runs[name].info.status == "FINISHED"]
    assert len(folds) == 8
