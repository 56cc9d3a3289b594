"""What a worker reports: one objective on one axis of steps, what folds cost, and why a trial ends."""

from types import SimpleNamespace

import pytest

from microseg.config import TrialConfig
from microseg.folds import Fold
from microseg.search import incidents, worker
from microseg.search.job import Job
from microseg.search.worker import Reporter, listener
from microseg.tracking.tree import TrialRun
from microseg.training import Progress

TRIAL = TrialRun.model_construct(number=4, name="trial-004")


def reporter(sent, epochs=9, folds=3, mode="max", against=None) -> Reporter:
    parts = tuple(Fold(index=index, train=("a",), valid=("b",)) for index in range(folds))
    job = Job.model_construct(folds=parts, metric="val/dice", mode=mode, epochs=epochs, against=against)
    return Reporter(job, TRIAL, send=sent.append)


def finished(fold, score, epochs=3, **changes):
    known = {"seconds": 2.0, "peak_memory_mib": 900.0, "gpu_memory_mib": 0.0, "parameters": 1234}
    metrics = {"val/dice": score, "val/recall": 0.5, "val/inference_seconds": 0.25 * (fold + 1)}
    values = {"fold": fold, "epochs": epochs, "metrics": metrics, "state": "completed"} | known
    return SimpleNamespace(**(values | changes))


def test_the_objective_is_the_best_so_far_then_the_mean_over_folds():
    sent = []
    trial = reporter(sent, epochs=3, folds=2)
    for epoch, value in enumerate([0.2, 0.5, 0.4], 1):
        trial.epoch(0, epoch, value)
    trial.fold(finished(0, 0.5))
    trial.epoch(1, 1, 0.9)  # an epoch of the second fold is no step
    trial.fold(finished(1, 0.7))
    assert [(row["step"], row["objective"]) for row in sent] == [(1, 0.2), (2, 0.5), (3, 0.5), (4, 0.5), (4, 0.5), (5, 0.6)]  # fmt: skip
    assert [row.get("state") for row in sent] == [None] * 5 + ["completed"]
    assert {(row["number"], row["name"]) for row in sent} == {(4, "trial-004")}
    assert sent[-1]["seconds"] == [2.0, 2.0] and sent[-1]["epochs"] == [3, 3]


def test_a_curve_that_patience_ended_carries_its_best_to_the_later_rungs():
    sent = []
    trial = reporter(sent, epochs=9)
    for epoch, value in enumerate([0.3, 0.6, 0.5], 1):
        trial.epoch(0, epoch, value)
    trial.fold(finished(0, 0.6))
    assert [row["step"] for row in sent] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert {row["objective"] for row in sent[3:]} == {0.6}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("mode", "worst"), [("max", -1.0), ("min", 1e6)])
def test_an_objective_is_always_a_number(mode, worst, value):
    """ASHA never stops a trial that reports NaN; the quantile of a rung with infinite values is NaN."""
    sent = []
    reporter(sent, mode=mode).epoch(0, 1, value)
    assert sent[0]["objective"] == worst


def test_a_trial_that_diverges_at_a_rung_is_not_pruned_there():
    """The epoch is recorded, but the first that Ray hears of it is how the fold ended."""
    sent, heard = [], []
    job = Job.model_construct(
        folds=(None,), metric="val/dice", mode="max", epochs=9, rungs=(2,), against=None
    )
    hear = listener(heard.append, Reporter(job, TRIAL, send=sent.append), job)
    lost = {"val/dice": 0.1, "train/loss": float("nan"), "val/loss": 0.5}
    event = SimpleNamespace(fold=0, epoch=2, metrics=lost, result=None, replayed=False)
    hear(event)
    assert (heard, sent) == ([event], [])
    ended = finished(0, 0.1, epochs=2, state="diverged")
    hear(SimpleNamespace(fold=0, epoch=2, metrics=lost, result=ended, replayed=False))
    assert [row["state"] for row in sent] == ["diverged"]


@pytest.mark.parametrize(("keep", "drawn"), [("models", [1, 0]), ("best", [1, 0]), ("all", [1, 1])])
def test_pictures_of_the_first_fold_alone_reach_mlflow_unless_all_are_kept(keep, drawn):
    heard = []
    folds = {"folds": (None, None), "epochs": 9, "rungs": ()}
    job = Job.model_construct(metric="val/dice", mode="max", against=None, keep=keep, **folds)
    hear = listener(heard.append, Reporter(job, TRIAL, send=[].append), job)
    for fold in (0, 1):
        hear(Progress(fold, 1, {"val/dice": 0.5}, samples=("a picture",)))
    assert [len(event.samples) for event in heard] == drawn


def test_what_is_replayed_after_a_restart_gives_the_same_steps():
    first, again = [], []
    for sent, replayed in ((first, False), (again, True)):
        trial = reporter(sent, epochs=3, folds=2)
        for epoch, value in enumerate([0.2, 0.5, 0.4], 1):
            trial.epoch(0, epoch, value, replayed)
        trial.fold(finished(0, 0.5), replayed)
        for epoch in (1, 2):
            trial.epoch(1, epoch, 0.6, replayed)
    assert [row.pop("replayed") for row in first + again] == [False] * len(first) + [True] * len(again)
    later = [row for row in first if row["fold"] == 1]
    assert again == [row for row in first if row not in later]  # a later fold's old epochs show nothing new


@pytest.mark.parametrize(
    ("against", "costs"), [("parameters", [1234.0] * 2), ("inference_seconds", [0.25, 0.375])]
)
def test_a_second_objective_is_reported_with_each_fold(against, costs):
    sent = []
    trial = reporter(sent, epochs=1, folds=2, against=against)
    for fold in range(2):
        trial.fold(finished(fold, 0.5, epochs=1))
    by_fold = {len(row["scores"]): row["cost"] for row in sent if row["scores"]}
    assert list(by_fold.values()) == pytest.approx(costs)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (finished(1, 0.0, state="diverged"), "fold 2: the loss was no number in epoch 3"),
        (finished(0, 0.0, state="collapsed", metrics={"val/recall": 0.0}), "fold 1: all background in the best epoch"),
        (finished(0, 0.0, state="collapsed", metrics={"val/recall": 1.0}), "fold 1: all foreground in the best epoch"),
    ],
)  # fmt: skip
def test_a_trial_that_cannot_go_on_says_why(result, reason):
    sent, heard = [], []
    job = Job.model_construct(
        folds=(None, None), metric="val/dice", mode="max", epochs=3, rungs=(), against=None
    )
    hear = listener(heard.append, Reporter(job, TRIAL, send=sent.append), job)
    progress = Progress(result.fold, 3, {}, result=result)
    hear(progress)
    assert (sent[-1]["state"], sent[-1]["reason"]) == (result.state, reason)
    assert heard == [progress]


class Recorder(list):
    """Keeps what it hears, and says where it was flushed."""

    def __call__(self, progress):
        self.append(progress.epoch)

    def flush(self):
        self.append("flush")


def test_metrics_are_written_before_a_report_that_may_stop_the_trial():
    """A stop is a SystemExit in the report, and leaves no time."""
    job = Job.model_construct(
        folds=(None,), metric="val/dice", mode="max", epochs=9, rungs=(2,), against=None
    )
    recorder = Recorder()
    sent = []

    def send(row):
        sent.append(list(recorder))

    hear = listener(recorder, Reporter(job, TRIAL, send=send), job)
    for epoch in (1, 2, 3):
        hear(SimpleNamespace(fold=0, epoch=epoch, metrics={"val/dice": 0.5}, result=None, replayed=False))
    assert sent[1] == [1, 2, "flush"] and recorder == [1, 2, "flush", 3]


def test_a_hopeless_trial_is_reported_and_not_trained(tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(worker, "Reporter", lambda *given: Reporter(*given, send=sent.append))
    monkeypatch.setattr(worker, "_train", lambda *given: pytest.fail("it was trained"))
    for _ in range(2):
        incidents.note(tmp_path / "trial-004", incidents.Incident("failed", "ValueError: no such thing"))
    trial = TrialRun(tracking_uri="", experiment_id="1", study="s", number=4, run_id="r", name="trial-004")
    config = TrialConfig.model_validate({"model": {"name": "unet"}})
    job = Job.model_construct(folds=(None,), metric="val/dice", mode="max", epochs=9, workdir=tmp_path)
    worker.run(
        {"config": config.model_dump(), "trial": trial.model_dump(), "threads": 1, "followed": False}, job
    )
    assert [(row["state"], row["reason"]) for row in sent] == [("failed", "ValueError: no such thing")]
