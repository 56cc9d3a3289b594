"""`microseg predict --ray`: what one machine predicts, on two, though a worker dies; and what is refused."""

import errno
import os
import signal
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import ray
import tifffile
from PIL import UnidentifiedImageError

from microseg.cluster import joined
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

# Ray 2.60 sets those itself, each time it copies the settings of Ray Data.
pytestmark = pytest.mark.filterwarnings("ignore:`use_.+` is deprecated:DeprecationWarning")

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


@pytest.mark.parametrize("error", [HICCUP, wrapped(HICCUP), wrapped(wrapped(HICCUP))])
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
        return (own(row)["answer"] for row in rows)  # a generator, as it is closed

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


@pytest.fixture(scope="module")
def cluster():
    """Two machines of one core each, both on this host, whose processes are known by a mark.

    They ask for no token, though this process had a Ray of its own before, which did.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RAY_ADDRESS", "RAY_AUTH_MODE"):
            patch.delenv(name, raising=False)
        with joined():
            pass
        assert "RAY_AUTH_MODE" not in os.environ
    mark = {
        "MICROSEG_TEST_MARK": f"{os.getpid()}-{time.time_ns()}",
        "MICROSEG_BATCH_SIZE": "4",
        "RAY_AUTH_MODE": "disabled",  # a head asks for a token where a local Ray has left one
        "RAY_worker_niceness": "0",  # beside other tests a worker would wait for minutes
        "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "platform"),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in mark.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        from ray.cluster_utils import Cluster

        machine = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 100 * 2**20}
        both = Cluster(initialize_head=True, head_node_args=machine | {"include_dashboard": False})
        try:
            both.add_node(**machine)
            patch.setenv("RAY_ADDRESS", both.address)
            yield SimpleNamespace(mark=mark["MICROSEG_TEST_MARK"])
        finally:
            both.shutdown()


def workers_of(cluster) -> list[int]:
    """Return the processes of the workers that hold a model."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes().split(b"\0")[0].decode()
            if (
                title.startswith("ray::MapWorker")
                and cluster.mark.encode() in (folder / "environ").read_bytes()
            ):
                found.append(int(folder.name))
        except OSError:  # ended meanwhile
            continue
    return found


@pytest.fixture(scope="module")
def killed(cluster, registered, store_of_registered, image, tmp_path_factory):
    """Images predicted here and there, where a worker is killed once the first part is done."""
    folder = tmp_path_factory.mktemp("killed")
    source = folder_of_images(folder / "in", image, 6000, 300)
    before, notes = [], []

    def told(done: float, images: int) -> None:
        if 1 < done < 2 and not before:
            before.extend(workers_of(cluster))
            time.sleep(0.3)  # a part takes more than a second, so that both are amid one
            os.kill(min(before), signal.SIGKILL)

    with store_of_registered():
        call = [CHAMPION, str(source)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("microseg.serving.batch.image.SMALL", 2**20)
            patch.setattr(driver, "ROWS", 1024)
            options = PredictOptions(instances=True, tta=True)
            here = predict_folder(*call, str(folder / "here"), options)
            options = options.model_copy(update={"ray": True})
            there = predict_folder(*call, str(folder / "there"), options, told, notes.append)
    return SimpleNamespace(folder=folder, here=here, there=there, before=before, notes=notes)


@pytest.mark.slow
def test_both_machines_have_a_worker_and_one_dies_at_its_part(killed):
    assert len(killed.before) == 2
    assert killed.notes[-1] == "1 part had to be begun again, as workers or machines died"


@pytest.mark.slow
def test_the_result_is_complete_and_that_of_one_machine_bit_by_bit(killed):
    assert len(killed.there.masks) == 3 and not ray.is_initialized()
    assert contents(killed.folder / "there") == contents(killed.folder / "here")
    assert killed.there.failed == killed.here.failed
    assert list(killed.there.failed) == [str(killed.folder / "in" / "bad.png")]


@pytest.mark.slow
def test_what_is_done_is_kept_when_a_person_interrupts(cluster, registered, image, tmp_path, monkeypatch):
    source = folder_of_images(tmp_path / "in", image, 6000, 900)
    monkeypatch.setattr(driver, "ROWS", 1024)

    def told(done: float, images: int) -> None:
        if 1 < done < 2:
            raise KeyboardInterrupt

    arguments = CHAMPION, str(source), str(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        predict_folder(*arguments, PredictOptions(ray=True), told)
    assert not ray.is_initialized()
    deadline = time.monotonic() + 60
    while workers_of(cluster):
        assert time.monotonic() < deadline, "workers are left"
        time.sleep(0.1)
    assert not list((tmp_path / "out").glob(".microseg-probe-*"))
    summary = predict_folder(*arguments)
    assert 1 / 6 <= summary.resumed[str(source / "b.tif")] < 1
