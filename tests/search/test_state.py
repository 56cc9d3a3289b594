"""The state of trials on a store: a dictionary here, a real server in tests/integration."""

import functools
import json
import random
import threading
from pathlib import Path

import pytest

from microseg.config import TrialConfig
from microseg.errors import MicrosegError
from microseg.search import incidents, patience, state, worker
from microseg.search.job import Job
from microseg.search.state import SupersededError, fetch, forget, taken_over
from microseg.storage import s3
from microseg.tracking.tree import TrialRun

TRIAL = "s3://lab/studies/s-1/trial-000"
KEY = "studies/s-1/trial-000/"


class Store:
    """What boto3's client does with a bucket; ``on`` is called with each object that is put or got."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.put: list[str] = []
        self.on = lambda key: None
        self.away = 0
        self.lock = threading.Lock()

    def ask(self) -> None:
        with self.lock:
            if self.away:
                self.away -= 1
                raise MicrosegError("s3://lab: the storage server cannot be used")

    def get_paginator(self, _name):
        return self

    def paginate(self, Bucket, Prefix, Delimiter):  # noqa: N803 - boto3's names
        self.ask()
        yield {"Contents": [{"Key": key, "ETag": ""} for key in sorted(self.held) if key.startswith(Prefix)]}

    def download_file(self, _bucket, key, target):
        self.ask()
        self.on(key)
        if key not in self.held:
            raise MicrosegError(f"{key}: no such object")
        Path(target).write_bytes(self.held[key])

    def upload_fileobj(self, file, _bucket, key):
        self.ask()
        self.on(key)
        self.put.append(key)
        self.held[key] = file.read()

    def delete_objects(self, Bucket, Delete):  # noqa: N803 - boto3's names
        self.ask()
        for one in Delete["Objects"]:
            self.held.pop(one["Key"], None)
        return {}


@pytest.fixture
def store(monkeypatch):
    made = Store()
    monkeypatch.setattr(s3, "client", lambda: made)
    monkeypatch.setattr(patience, "WAITS", (0, 0))
    return made


def epoch(folder: Path, number: int, text: str = "") -> None:
    """Write what training keeps after an epoch, as `microseg.training.checkpoint.save` does."""
    kept = folder / "fold-0" / "checkpoint"
    kept.mkdir(parents=True, exist_ok=True)
    for part in ("weights", "state"):
        (kept / f"{part}-{number}.npz").write_text(f"{part} {number} {text}")
    (kept / "checkpoint.json").write_text(json.dumps([number, text]))
    for part in ("weights", "state"):
        (kept / f"{part}-{number - 1}.npz").unlink(missing_ok=True)


def finish(folder: Path) -> None:
    for file in (folder / "fold-0" / "checkpoint").iterdir():
        file.unlink()
    (folder / "fold-0" / "model.keras").write_text("network")
    (folder / "fold-0" / "result.json").write_text("{}")


def whole(folder: Path) -> list:
    """Return what a checkpoint says, after a look at all that it names."""
    number, text = json.loads((folder / "fold-0" / "checkpoint" / "checkpoint.json").read_text())
    for part in ("weights", "state"):
        kept = folder / "fold-0" / "checkpoint" / f"{part}-{number}.npz"
        assert kept.read_text() == f"{part} {number} {text}"
    return [number, text]


def begin(tmp_path: Path, session: str = "a", sleep=lambda seconds: None):
    return taken_over(TRIAL, session, tmp_path / "work", sleep)


def names(store: Store) -> list[str]:
    return [key.removeprefix(KEY) for key in store.held]


def test_the_next_attempt_finds_what_the_last_one_kept(store, tmp_path):
    with begin(tmp_path) as first:
        epoch(first.folder, 1)
        first.save()
        epoch(first.folder, 2)
        first.save()
    assert not first.folder.exists()  # the store alone has it now
    with begin(tmp_path) as second:
        assert whole(second.folder) == [2, ""]
        finish(second.folder)
        second.save()
    with begin(tmp_path) as third:
        found = {
            path.relative_to(third.folder).as_posix() for path in third.folder.rglob("*") if path.is_file()
        }
    assert found == {"fold-0/model.keras", "fold-0/result.json"}
    assert all(name.startswith("000003/") for name in names(store))


def test_only_what_changed_is_sent_and_what_names_others_last(store, tmp_path):
    with begin(tmp_path) as attempt:
        epoch(attempt.folder, 1)
        attempt.save()
        store.put.clear()
        epoch(attempt.folder, 2)
        attempt.save()
        sent = [Path(key).name for key in store.put]
        assert sent == ["state-2.npz", "weights-2.npz", "checkpoint.json"]
        assert not [name for name in names(store) if name.endswith("-1.npz")]
        store.put.clear()
        attempt.save()
        assert not store.put


@pytest.mark.parametrize("stopped_at", ["state-2.npz", "weights-2.npz", "checkpoint.json"])
def test_a_worker_that_dies_while_it_saves_leaves_the_epoch_before_whole(store, tmp_path, stopped_at):
    def die(key):
        if key.endswith(stopped_at):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), begin(tmp_path) as first:
        epoch(first.folder, 1)
        first.save()
        store.on = die
        epoch(first.folder, 2)
        first.save()
    store.on = lambda key: None
    with begin(tmp_path) as second:
        assert whole(second.folder) == [1, ""]


def test_an_orphan_notices_its_successor_and_changes_nothing_of_it(store, tmp_path):
    with begin(tmp_path, "dead") as orphan:
        epoch(orphan.folder, 1, "orphan")
        orphan.save()
        with begin(tmp_path / "other", "new") as successor:
            before = dict(store.held)
            epoch(orphan.folder, 2, "orphan")
            with pytest.raises(SupersededError, match="another attempt has taken the trial over"):
                orphan.save()
            assert orphan.superseded and not successor.superseded
            assert store.held == before
            epoch(successor.folder, 2, "successor")
            successor.save()
    fetch(TRIAL, tmp_path / "seen")
    assert whole(tmp_path / "seen") == [2, "successor"]


@pytest.mark.parametrize("seed", range(8))
def test_whatever_an_orphan_does_while_it_is_taken_over_the_state_is_of_one_attempt(store, tmp_path, seed):
    """It has looked for a successor already, and goes on to write at any moment of the take-over."""
    dice, writing = random.Random(seed), threading.local()
    with begin(tmp_path, "dead") as orphan:
        epoch(orphan.folder, 1, "orphan")
        orphan.save()
        steps = [2, 3]

        def interfere(key):
            if getattr(writing, "nested", False) or not steps or dice.random() < 0.5:
                return
            writing.nested = True
            epoch(orphan.folder, steps.pop(0), "orphan")
            orphan._number += 100  # it does not look
            orphan.save()
            orphan._number -= 100
            writing.nested = False

        store.on = interfere
        with begin(tmp_path / "other", "new") as successor:
            number, text = whole(successor.folder)
            assert text == "orphan"
            epoch(successor.folder, number + 1, "successor")
            successor.save()
            store.on = lambda key: None
    fetch(TRIAL, tmp_path / "seen")
    assert whole(tmp_path / "seen") == [number + 1, "successor"]


@pytest.mark.parametrize("dies_at", ["claim.json", "weights-1.npz", "checkpoint.json", "ready.json"])
def test_an_attempt_that_dies_while_it_takes_over_loses_nothing(store, tmp_path, dies_at):
    with begin(tmp_path) as first:
        epoch(first.folder, 1)
        first.save()

    def die(key):
        if key.endswith(dies_at):
            raise KeyboardInterrupt

    store.on = die
    with pytest.raises(KeyboardInterrupt), begin(tmp_path):
        pytest.fail("it lived")
    store.on = lambda key: None
    with begin(tmp_path) as third:
        assert whole(third.folder) == [1, ""]


def test_only_after_another_driver_is_time_given(store, tmp_path):
    waits = []
    for session in ("a", "a", "b", "b"):
        with begin(tmp_path, session, waits.append):
            pass
    assert waits == [state.SETTLE]


def test_a_store_that_is_away_for_a_while_is_waited_for(store, tmp_path):
    with begin(tmp_path) as attempt:
        for number in (1, 2, 3):
            epoch(attempt.folder, number)
            store.away = 2
            attempt.save()
        store.away = 3
        with pytest.raises(MicrosegError, match="cannot be used"):
            attempt.save()
        store.away = 0
    fetch(TRIAL, tmp_path / "seen")
    assert whole(tmp_path / "seen") == [3, ""]


def test_what_the_driver_noted_reaches_the_next_attempt(store, tmp_path):
    incidents.note(tmp_path / "trial-000", incidents.Incident("failed", "the worker process died"))
    state.note(TRIAL, tmp_path / "trial-000")
    with begin(tmp_path) as attempt:
        assert [found.text for found in incidents.read(attempt.folder)] == ["the worker process died"]


def test_a_study_is_forgotten_but_for_what_goes_on(store, tmp_path):
    for trial in ("trial-000", "trial-001"):
        with taken_over(f"s3://lab/studies/s-1/{trial}", "a", tmp_path) as attempt:
            epoch(attempt.folder, 1)
            attempt.save()
    forget("s3://lab/studies/s-1", {"trial-001"})
    assert store.held and all("/trial-001/" in key for key in store.held)
    store.away = 1
    forget("s3://lab/studies/s-1")  # an end that fails for that would be none
    forget("s3://lab/studies/s-1")
    assert not store.held


def test_folders_of_killed_processes_go_and_those_of_living_ones_stay(store, tmp_path):
    left = tmp_path / "work" / "left"
    (left / "trial").mkdir(parents=True)
    with begin(tmp_path) as living:
        assert not left.exists()
        with taken_over("s3://lab/studies/s-1/trial-001", "a", tmp_path / "work"):
            assert living.folder.exists()
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["lock"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [("", ""), ("s3://lab/all/", "s3://lab/all/studies/cells-01234567"), ("s3://lab", "s3://lab/studies/cells-01234567")],
)  # fmt: skip
def test_a_study_has_a_place_of_its_own(monkeypatch, given, expected):
    monkeypatch.setenv("MICROSEG_STORE", given)
    assert state.study_store("cells", "0123456789abcdef") == expected


@pytest.mark.parametrize("given", ["/shared", "s3://", "gs://lab"])
def test_a_store_is_an_s3_address(monkeypatch, given):
    monkeypatch.setenv("MICROSEG_STORE", given)
    with pytest.raises(MicrosegError, match="allowed is an address such as s3://BUCKET/PREFIX, or unset it"):
        state.study_store("cells", "0123")


def test_a_folder_is_held_by_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr(state, "ORPHAN", 0.05)
    refused = pytest.raises(MicrosegError, match=r"another process still trains in .*trial-000")
    with state.shared(tmp_path / "trial-000"), refused, state.shared(tmp_path / "trial-000"):
        pass
    with state.shared(tmp_path / "trial-000") as attempt:
        attempt.save()
        assert [path.name for path in tmp_path.rglob("*")] == ["trial-000", "lock"]


def test_a_worker_that_does_not_see_the_driver_reads_what_went_wrong_from_the_store(
    store, tmp_path, monkeypatch
):
    monkeypatch.setenv("MICROSEG_HOME", str(tmp_path / "own"))
    sent = []
    reporter = functools.partial(worker.Reporter, send=sent.append)
    monkeypatch.setattr(worker, "Reporter", reporter)
    driver = tmp_path / "driver" / "trial-000"
    for _ in range(2):
        incidents.note(driver, incidents.Incident("failed", "ValueError: no such thing"))
    state.note(TRIAL, driver)
    trial = TrialRun(tracking_uri="", experiment_id="1", study="s", number=0, run_id="r", name="trial-000")
    config = TrialConfig.model_validate({"model": {"name": "unet"}})
    job = Job.model_construct(
        folds=(None,), metric="val/dice", mode="max", epochs=9, workdir=tmp_path / "nowhere",
        store="s3://lab/studies/s-1", session="a",
    )  # fmt: skip
    worker.run(
        {"config": config.model_dump(), "trial": trial.model_dump(), "threads": 1, "followed": False}, job
    )
    assert [(row["state"], row["reason"]) for row in sent] == [("failed", "ValueError: no such thing")]
    assert not (tmp_path / "nowhere").exists() and (tmp_path / "own" / "work").is_dir()
