"""`microseg predict --ray`: what one machine predicts, on two, though a worker dies; and what is refused."""

import errno
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import ray
import tifffile
from PIL import UnidentifiedImageError

from microseg.data.images import write_image
from microseg.errors import MicrosegError
from microseg.serving.batch import PredictOptions, predict_folder
from microseg.serving.batch.cluster import attempts, driver, worker
from microseg.serving.batch.cluster.attempts import ATTEMPTS, Attempts
from microseg.serving.batch.cluster.pool import Pool, pool_of
from microseg.serving.batch.cluster.worker import (
    WHOLE,
    Answer,
    Unfit,
    Work,
    Worker,
    patient,
    prepared,
)
from microseg.serving.batch.options import Request

CHAMPION = "models:/cells@champion"


def folder_of_images(source: Path, image: np.ndarray, rows: int, columns: int) -> Path:
    """A large image, of squares of 30 pixels, among small ones, one of which cannot be read."""
    squares = np.random.default_rng(0).integers(0, 255, (rows // 30, columns // 30), dtype=np.uint8)
    source.mkdir()
    tifffile.imwrite(source / "b.tif", squares.repeat(30, axis=0).repeat(30, axis=1), tile=(256, 256))
    write_image(source / "a.png", image)
    write_image(source / "c.tif", image[::-1])
    (source / "bad.png").write_bytes(b"no image")
    return source


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("machines", "pool"),
    [
        ([(2, 0)], Pool(1, 2, 0)),
        ([(1, 0), (1, 0)], Pool(2, 1, 0)),
        ([(16, 0), (16, 0), (0, 0)], Pool(8, 4, 0)),
        ([(2, 0), (16, 0)], Pool(4, 4, 0)),  # the small head stays free for the driver
        ([(2, 0), (16, 2)], Pool(2, 4, 1)),
        ([(4, 4), (8, 2)], Pool(6, 1, 1)),
        ([(2, 4)], Pool(2, 1, 1)),  # more GPUs than cores
    ],
)
def test_workers_are_as_many_as_machines_have_room_for(machines, pool):
    assert pool_of(machines) == pool
    assert pool.workers * pool.cores <= sum(cores for cores, _ in machines)


@pytest.mark.parametrize("machines", [[], [(0, 0)], [(0.5, 1)]])
def test_a_cluster_without_a_core_is_refused(machines):
    with pytest.raises(MicrosegError, match="has a core to give; start one with --num-cpus"):
        pool_of(machines)


def failing(errors):
    """An attempt that raises one error after the other, then answers; and the pauses before each."""
    left, pauses = list(errors), []

    def attempt():
        if left:
            raise left.pop(0)
        return Answer()

    return attempt, pauses


def wrapped(cause):
    error = MicrosegError("a.tif: cannot be read")
    error.__cause__ = cause
    return error


HICCUP = OSError(errno.EIO, "Input/output error", "a.tif")


@pytest.mark.parametrize("error", [HICCUP, wrapped(HICCUP)])
def test_a_file_that_fails_is_tried_three_times(error):
    attempt, pauses = failing([error] * (ATTEMPTS - 1))
    assert patient(attempt, pauses.append) == Answer()
    assert pauses == [2.0, 4.0]
    attempt, pauses = failing([error] * ATTEMPTS)
    failure = patient(attempt, pauses.append).outcome
    assert isinstance(failure, MicrosegError) and str(failure).startswith("a.tif: ")
    assert "\n" not in str(failure) and len(pauses) == ATTEMPTS - 1


@pytest.mark.parametrize("error", [MicrosegError("wrong"), wrapped(UnidentifiedImageError("no image"))])
def test_what_cannot_be_used_is_not_tried_again(error):
    attempt, pauses = failing([error])
    assert patient(attempt, pauses.append).outcome is error and pauses == []


@pytest.fixture
def work(registered, tmp_path):
    """The work of one whole image, and the attempts at it without Ray."""
    request = Request(CHAMPION, (str(tmp_path / "a.png"),), str(tmp_path), PredictOptions())
    counted = Attempts()
    handle = SimpleNamespace(begin=SimpleNamespace(remote=counted.begin))
    return Work(request, {}, "0" * 64, registered.uri, (tmp_path,), 1, handle)


@pytest.fixture
def _no_threads(monkeypatch):
    """TensorFlow of this process keeps its threads."""
    monkeypatch.setattr(worker.runtime, "threads", lambda count: None)


@pytest.mark.usefixtures("_no_threads")
def test_a_machine_that_sees_other_files_or_another_model_is_told(work, tmp_path):
    with pytest.raises(MicrosegError, match="is another model there; give a version that does not change"):
        prepared(work)
    lacking = Worker(Work(**vars(work) | {"places": (tmp_path / "gone",)}))
    (answer,) = lacking({"image": 0, "part": WHOLE}).values()
    assert isinstance(answer.outcome, Unfit)
    assert answer.outcome.reason.startswith("machine ")
    assert f"{tmp_path / 'gone'} is not there" in answer.outcome.reason


def test_a_part_at_which_workers_die_is_given_up(work, monkeypatch):
    monkeypatch.setattr(worker, "prepared", lambda work: None)
    monkeypatch.setattr(worker, "whole", lambda segmenter, request, image: Answer())
    monkeypatch.setattr(ray, "get", lambda reference: reference)
    begun = Worker(work)
    row = {"image": 0, "part": WHOLE}
    answers = [begun(row)["answer"] for _ in range(ATTEMPTS + 1)]  # each time as if after a death
    assert answers[:-1] == [Answer()] * ATTEMPTS
    assert "3 workers died at the same part" in str(answers[-1].outcome)


@pytest.fixture
def without_ray(monkeypatch):
    """The rows go to one worker in this process; returns them."""
    seen = []
    counted = Attempts()
    local = SimpleNamespace(remote=counted.begin), SimpleNamespace(remote=counted.repeated)
    monkeypatch.setattr(driver, "joined", nullcontext)
    monkeypatch.setattr(driver, "machines", lambda: [(2.0, 0.0)])
    monkeypatch.setattr(driver, "ROWS", 1024)
    monkeypatch.setattr(attempts, "start", lambda: SimpleNamespace(begin=local[0], repeated=local[1]))
    monkeypatch.setattr(ray, "get", lambda reference: reference)

    def answers(work, rows, pool):
        seen.extend((row["image"], row["part"]) for row in rows)
        own = Worker(work)
        return (own(row)["answer"] for row in rows)

    monkeypatch.setattr(driver, "_answers", answers)
    return seen


@pytest.mark.usefixtures("_no_threads")
@pytest.mark.parametrize("instances", [False, True])
def test_rows_are_places_and_the_result_is_that_of_one_machine(
    registered, image, without_ray, tmp_path, monkeypatch, instances
):
    monkeypatch.setenv("MICROSEG_BATCH_SIZE", "4")
    monkeypatch.setattr("microseg.serving.batch.image.SMALL", 2**14)
    source = folder_of_images(tmp_path / "in", image, 3000, 90)
    told, done = [], {}
    for place in ("here", "there"):
        options = PredictOptions(instances=instances, ray=place == "there")
        target = tmp_path / place
        done[place] = predict_folder(CHAMPION, str(source), str(target), options, lambda *t: told.append(t))
    # Images by name: a.png, b.tif, bad.png, c.tif; b.tif is divided.
    assert without_ray == [(0, WHOLE), *((1, part) for part in range(3)), (2, WHOLE), (3, WHOLE)]
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert done["there"].failed == done["here"].failed and list(done["here"].failed) == [
        str(source / "bad.png")
    ]
    assert done["there"].objects == done["here"].objects and len(done["here"].masks) == 3
    shares = [share for share, images in told[len(told) // 2 :] if images == 4]
    assert shares == sorted(shares) and shares[-1] == 4
