"""A recorded fold, trained again: from its provenance alone, equal on one thread, refused on other files."""

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import mlflow
import numpy as np
import pytest
import tensorflow as tf

from microseg import reproduction
from microseg import study as studies
from microseg.config import SearchConfig, TrialConfig
from microseg.data.images import read_labels, write_image
from microseg.data.options import DataOptions
from microseg.errors import MicrosegError
from microseg.reproduction import Reproduction, Spread, reproduce
from microseg.space import parse_space
from microseg.statistics import Interval, next_score
from microseg.study import provenance
from microseg.tracking import environment, store, tree
from microseg.tracking.recorder import Recorder, flatten
from microseg.training import FoldResult, Progress, TrainingData
from microseg.training.results import fingerprint

TRIAL = {
    "model": {"name": "unet", "params": {"depth": 2, "filters": 4}},
    "optimizer": {"name": "adam", "params": {"learning_rate": 0.01}},
    "augment": {"name": "flips"},
    "tile": 32,
    "epochs": 2,
    "steps_per_epoch": 4,
}


def write_pairs(folder, count=8):
    """Write bright discs on noise and their masks."""
    rng, grid = np.random.default_rng(0), np.hypot(*np.mgrid[-16:16, -16:16])
    for index in range(count):
        mask = grid < 5 + index % 4
        image = np.clip(rng.normal(60 + 100 * mask, 15), 0, 255).astype(np.uint8)
        write_image(folder / "images" / f"s{index}.png", image[..., None])
        write_image(folder / "masks" / f"s{index}.png", (255 * mask).astype(np.uint8))
    return folder


def write_study(folder, train):
    """Write what a search does: a study, a trial of two folds and its repeats; ``train`` runs each of them."""
    config = SearchConfig(space=TRIAL, trials=1, asha=None, folds=2, holdout=0.25)
    options = DataOptions(mask_kind="binary")
    request = studies.Request(name="first", data=folder / "cells", options=options, config=config)
    prepared = studies.divide(request, parse_space(config.space, "test"))
    client = store.connect()
    with tree.study_run(client, "first") as run:
        origin = studies.describe(client, run, prepared).model_dump(mode="json")
        for seed, one in enumerate(train):
            trial = TrialConfig.model_validate(TRIAL | {"seed": 1000 * seed})
            name = f"trial-000-seed-{seed + 1}" if seed else "trial-000"
            parameters = flatten(trial.model_dump(mode="json"))
            opened = tree.open_trial(client, run, name, parameters, 0, 0 if seed else None)
            one(trial, prepared, Recorder(opened, trial, prepared.folds, origin=origin))
            tree.end(client, opened.run_id, "completed")


def train_study(folder):
    """Train a study, as a worker does."""
    from microseg.training import run_trial

    def train(trial, prepared, recorder):
        data = TrainingData(prepared.development, Path(os.environ["MICROSEG_HOME"], "cache"))
        run_trial(trial, data, prepared.folds, folder / "work", recorder)

    write_study(folder, [train])


ONE_THREAD = """
import sys
from pathlib import Path
from microseg import runtime
runtime.load_tensorflow()
runtime.threads(1)
sys.path.insert(0, sys.argv[1])
from test_reproduction import train_study
train_study(Path(sys.argv[2]))
"""


def run(folder, *command):
    env = os.environ | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "MICROSEG_HOME": str(folder / "home")
    }  # fmt: skip
    return subprocess.run([sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A study that was trained on one thread: its folder, and the run of its first fold; half a minute."""
    folder = tmp_path_factory.mktemp("reproduction")
    write_pairs(folder / "cells")
    done = run(folder, "-c", ONE_THREAD, str(Path(__file__).parent), str(folder))
    assert done.returncode == 0, done.stderr
    tf.config.list_logical_devices()  # from now on nothing changes this process's number of threads
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MICROSEG_HOME", str(folder / "home"))
        patch.chdir(folder)
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        client = store.connect()
        yield folder, client, fold_run(client, "trial-000/fold-1")
    mlflow.set_tracking_uri(None)


def fold_run(client, name):
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (found,) = client.search_runs(experiments, f"attributes.run_name = '{name}'")
    return found


@pytest.fixture
def images(first):
    """The folder of the images; what a test does to it is undone."""
    folder = first[0] / "cells"
    shutil.copytree(folder, first[0] / "kept")
    yield folder
    shutil.rmtree(folder)
    (first[0] / "kept").rename(folder)


@pytest.mark.slow
def test_on_one_thread_all_weights_are_equal_bit_for_bit(first):
    folder, client, fold = first
    done = run(folder, "-m", "microseg", "reproduce", fold.info.run_id)
    assert (done.returncode, done.stderr) == (0, "")
    score = f"{fold.data.metrics['final/dice']:.4f}"
    verdict = f"val/dice was {score}, is {score}: equal, and all weights are equal bit for bit"
    assert done.stdout == f"trial-000/fold-1: {verdict}\n"
    other = fold_run(client, "trial-000/fold-2")
    hashes = {provenance.read_fold(client, one.info.run_id).weights for one in (fold, other)}
    assert len(hashes) == 2


@pytest.mark.slow
def test_the_file_of_a_fold_has_everything_that_made_it(first):
    _, client, fold = first
    found = provenance.read_fold(client, fold.info.run_id)
    for item in found.manifest.items:
        files = [*item.images, item.mask]
        printed = subprocess.run(["sha256sum", *files], capture_output=True, text=True, check=True).stdout
        assert [line.split()[0] for line in printed.splitlines()] == list(item.hashes)
    assert found.config.loss.name == "bce_dice"  # a default: the configuration is complete
    assert (len(found.folds), len(found.holdout), found.fold) == (2, 2, found.folds[0])
    assert found.seeds == {"study": 0, "trial": 0, "training": 0}
    assert (found.study, found.trial, found.parent) == ("first", "trial-000", None)
    assert found.environment.threads == 1
    assert found.environment.packages == environment.packages()
    assert (found.source is None) == (environment.source() is None)
    assert found.started < found.finished <= datetime.now(UTC)
    assert found.finished - found.started < timedelta(minutes=10)
    study = client.get_run(found.study_run)
    assert study.data.tags["microseg.digest"] == found.digest == found.manifest.digest
    whole = provenance.read(client, found.study_run)
    own = {"trial", "config", "fold", "finished", "weights", "fingerprint"}
    same = {*type(whole).model_fields} - {"environment", "seeds", "started"}
    assert {name: getattr(whole, name) for name in same} == {name: getattr(found, name) for name in same}
    assert {*type(found).model_fields} == {*type(whole).model_fields} | own
    network = fold.info.run_id, "model/model.keras"
    assert Path(client.download_artifacts(*network)).is_file()


@pytest.mark.slow
def test_a_study_that_began_with_the_best_of_another_names_it(tmp_path, monkeypatch, first):
    folder, client, fold = first
    monkeypatch.setenv("MICROSEG_HOME", str(tmp_path))
    then = provenance.read_fold(client, fold.info.run_id)
    state = studies.StudyState(request=then.request, digest=then.digest, run_id=then.study_run)
    studies.state_file("first").parent.mkdir(parents=True)
    studies.state_file("first").write_text(state.model_dump_json())
    config = SearchConfig(space=TRIAL, folds=2, holdout=0.25, warm_start={"study": "first"})
    request = studies.Request(
        name="second", data=folder / "cells", options=then.request.options, config=config
    )
    prepared = studies.divide(request, parse_space(TRIAL, "test"))
    found = provenance.trace("a" * 32, datetime.now(UTC), prepared)
    assert found.parent == provenance.Parent(study="first", run=then.study_run)
    studies.state_file("first").unlink()
    again = provenance.trace("a" * 32, datetime.now(UTC), prepared)
    assert again.parent == provenance.Parent(study="first", run="")


@pytest.mark.slow
def test_other_threads_and_versions_are_named_and_the_folds_are_what_is_compared_with(first, monkeypatch):
    _, _, fold = first
    monkeypatch.setattr(environment, "packages", lambda: {"keras": "99.0"})
    found = reproduce(fold.info.run_id)
    assert any(line.startswith("threads 1, now ") for line in found.differences)
    assert any(line.startswith("keras ") and line.endswith(", now 99.0") for line in found.differences)
    assert "as no other seeds were recorded" in found.spread.source
    assert found.again == pytest.approx(found.recorded, abs=0.2)


@pytest.mark.slow
def test_one_changed_pixel_of_a_mask_is_refused_by_name(first, images):
    mask = images / "masks" / "s3.png"
    labels = np.array(read_labels(mask))
    labels[0, 0] = 255
    write_image(mask, labels)
    with pytest.raises(
        MicrosegError, match=r"have changed since study 'first' \(masks/s3.png\); restore the files"
    ):
        reproduce(first[2].info.run_id)


@pytest.mark.slow
def test_every_changed_file_counts_and_the_first_are_named(first, images):
    for index in range(5):
        with (images / "images" / f"s{index}.png").open("ab") as file:
            file.write(b"\0")
    with pytest.raises(MicrosegError, match=r"\(images/s0.png, images/s1.png, images/s2.png, 2 more\)"):
        reproduce(first[2].info.run_id)


@pytest.mark.slow
def test_a_pair_that_is_gone_is_refused(first, images):
    for part in ("images", "masks"):
        (images / part / "s2.png").unlink()
    with pytest.raises(MicrosegError, match=r"\(s2.png \(gone, or without its image\)\); restore"):
        reproduce(first[2].info.run_id)


@pytest.mark.slow
def test_images_that_moved_are_found_where_it_is_said_and_later_ones_do_not_count(first, images, monkeypatch):
    trained = []
    monkeypatch.setattr(reproduction, "train_fold", lambda _, data, *__: trained.append(data) or 1 / 0)
    moved = first[0] / "moved"
    images.rename(moved)
    write_pairs(moved, 10)  # the first eight are written as they were
    with pytest.raises(MicrosegError, match="cells: no such file or folder"):
        reproduce(first[2].info.run_id)
    with pytest.raises(ZeroDivisionError):
        reproduce(first[2].info.run_id, moved)
    then = provenance.read_fold(first[1], first[2].info.run_id)
    assert {item.name for item in trained[0].manifest.items} == {item.name for item in then.seen}
    moved.rename(images)


@pytest.mark.slow
def test_masks_that_are_read_otherwise_are_refused(first, monkeypatch):
    read = reproduction.open_dataset
    monkeypatch.setattr(
        reproduction, "open_dataset", lambda *given: read(*given).model_copy(update={"threshold": 7})
    )
    with pytest.raises(
        MicrosegError, match="no file has changed since study 'first', but how masks are read"
    ):
        reproduce(first[2].info.run_id)


@pytest.mark.slow
def test_a_fold_of_another_version_of_microseg_is_refused_in_one_line(first):
    _, client, fold = first
    copy = client.create_run(fold.info.experiment_id).info.run_id
    client.log_dict(copy, {"study": "first", "recipe": {}}, "provenance.json")
    try:
        with pytest.raises(
            MicrosegError, match=r"provenance.json: .*; use the version of microseg that wrote it"
        ):
            provenance.read_fold(client, copy)
    finally:
        client.delete_run(copy)


@pytest.mark.slow
def test_a_fold_that_says_nothing_of_its_origin_is_refused(first):
    _, client, fold = first
    experiment, parent = fold.info.experiment_id, fold.data.tags[tree.PARENT]
    tags = {tree.LEVEL: "fold", tree.STATE: "completed", tree.PARENT: parent}
    bare = client.create_run(experiment, tags=tags).info.run_id
    try:
        with pytest.raises(MicrosegError, match=r"has no provenance\.json among its artifacts"):
            reproduce(bare)
    finally:
        client.delete_run(bare)


def test_the_seeds_that_were_recorded_are_what_is_compared_with(tmp_path, monkeypatch):
    monkeypatch.setenv("MICROSEG_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path / "cells")
    table = [[0.70, 0.80], [0.72, 0.80], [0.74, 0.83]]
    scores = [partial(recorded, scores) for scores in table]
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr(reproduction, "train_fold", lambda *_: result(0, 0.75, "a"))
    try:
        write_study(tmp_path, scores)
        found = reproduce(fold_run(store.connect(), "trial-000-seed-2/fold-1").info.run_id)
    finally:
        mlflow.set_tracking_uri(None)
    assert (found.name, found.recorded, found.again) == ("trial-000-seed-2/fold-1", 0.72, 0.75)
    assert found.spread == Spread(
        next_score(table, 0), "where 95 % of trainings with other seeds lie (3 seeds over 2 folds)"
    )
    assert found.holds


def recorded(scores, trial, prepared, recorder):
    """Report results as a training does."""
    data = TrainingData(prepared.development, Path("cache"))
    for fold, score in zip(prepared.folds, scores, strict=True):
        found = result(fold.index, score, fingerprint(trial, data, fold))
        recorder(Progress(fold.index, 1, found.metrics, (), found))


def result(fold, dice, fingerprint):
    return FoldResult(
        fold=fold, state="completed", best_epoch=1, epochs=1, metrics={"val/dice": dice}, per_image={}, seconds=1.0,
        parameters=1, peak_memory_mib=1.0, model=Path("none.keras"), history=[], fingerprint=fingerprint,
    )  # fmt: skip


SEEDS = Spread(Interval(0.70, 0.80), "where 95 % of trainings lie")


@pytest.mark.parametrize(
    ("again", "same", "spread", "holds", "said"),
    [
        (0.75, True, SEEDS, True, "equal, and all weights are equal bit for bit"),
        (0.75, False, SEEDS, True, "equal, though not all weights are"),
        (0.79, False, SEEDS, True, "within 0.7000 to 0.8000, where 95 % of trainings lie"),
        (0.69, False, SEEDS, False, "OUTSIDE 0.7000 to 0.8000, where 95 % of trainings lie"),
        (0.81, False, SEEDS, False, "OUTSIDE 0.7000 to 0.8000"),
        (float("nan"), False, SEEDS, False, "OUTSIDE 0.7000 to 0.8000"),
        (0.79, False, None, True, "neither repeats nor other folds were recorded"),
    ],
)
def test_the_verdict_and_the_exit_code(again, same, spread, holds, said, called, monkeypatch):
    found = Reproduction("trial-000/fold-1", "val/dice", 0.75, again, same, spread, ("threads 1, now 2",))
    assert found.holds is holds
    assert f"trial-000/fold-1: val/dice was 0.7500, is {again:.4f}: {said}" in found.verdict
    monkeypatch.setattr(reproduction, "reproduce", lambda run_id, data: found)
    code, out, err = called("reproduce", "run")
    assert (code, err) == (0 if holds else 1, "")
    assert out.splitlines() == [found.verdict, "not as it was: threads 1, now 2"]
