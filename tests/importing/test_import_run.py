"""The whole way of a network from elsewhere: judged, registered, used; or refused with nothing left behind."""

import csv
import json
from types import SimpleNamespace

import keras
import mlflow
import numpy as np
import pytest
from keras import layers
from numpy.testing import assert_array_equal

from microseg import report
from microseg.data.images import read_labels
from microseg.data.options import DataOptions
from microseg.data.synthetic import write_demo
from microseg.errors import MicrosegError
from microseg.importing import IMPORTED, OPTIMISTIC, ImportRequest, import_model
from microseg.reproduction import reproduce
from microseg.serving.batch import PredictOptions, load_segmenter, predict_folder
from microseg.tracking import tree


def network(channels=1, maps=1, activation="sigmoid", size=None):
    """Bright is foreground: a smoothed image against a threshold; background's map comes first of two."""
    image = keras.Input((size, size, channels))
    smooth = layers.AveragePooling2D(5, strides=1, padding="same")(image)
    last = layers.Conv2D(maps, 1, activation=activation)
    model = keras.Model(image, last(smooth))
    signs = np.array([1.0] if maps == 1 else [-1.0, 1.0] + [0.0] * (maps - 2), np.float32)
    last.set_weights([np.ones((1, 1, channels, 1), np.float32) * 40 / channels * signs, -12 * signs])
    return model


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A folder with images, a store of runs, and one network that was judged on those images."""
    folder = tmp_path_factory.mktemp("lab")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    patch.setenv("MICROSEG_HOME", str(folder / "home"))
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    data = write_demo(folder / "cells", images=8, sessions=4, size=64)
    network(maps=2, activation="linear").save(folder / "old.h5")
    done = import_model(ask(folder, "old.h5", name="old", data=data))
    yield SimpleNamespace(folder=folder, data=data, done=done, client=mlflow.MlflowClient())
    mlflow.set_tracking_uri(None)  # as if it had never been set
    patch.undo()


def ask(folder, file, **changes):
    values = {
        "name": "cells",
        "study": f"import-{file}",
        "folds": 2,
        "tile": 64,
        "preprocess": {"name": "percentile"},
        "options": {"mask_kind": "instance"},
    }
    return ImportRequest.model_validate({"file": folder / file} | values | changes)


def traces(lab):
    """Return all that an import could leave behind."""
    experiments = [experiment.experiment_id for experiment in lab.client.search_experiments()]
    return len(lab.client.search_runs(experiments)), len(lab.client.search_model_versions())


def test_an_imported_network_stands_in_the_tree_as_a_trial_does(lab):
    view = report.view(lab.client, report.find_study(lab.client, "import-old.h5"))
    (row,) = view.rows
    assert (row.rank, row.name, row.state) == (1, "trial-000", "completed")
    assert row.mean == pytest.approx(np.mean(row.scores)) == lab.done.scores["cv/dice_mean"]
    assert row.mean > 0.7
    assert len(row.scores) == view.folds == 2
    trial = lab.client.get_run(row.run_id)
    assert OPTIMISTIC in trial.data.tags[tree.REASON]
    assert trial.data.params["model/name"] == IMPORTED
    assert trial.data.params["model/params/file"] == "old.h5"
    assert not {"optimizer/name", "loss/name", "epochs"} & set(trial.data.params)  # nobody knows them
    assert OPTIMISTIC in view.run.data.tags["mlflow.note.content"]
    assert {"cv/ap50_mean", "cv/mcc_std", "rank"} <= set(trial.data.metrics)
    assert trial.data.tags["mean CI95"].startswith(f"{row.mean:.4f} ± ")


def test_the_report_shows_its_images_and_does_not_call_them_unseen(lab):
    study = report.find_study(lab.client, "import-old.h5")
    page = mlflow.artifacts.load_text(f"runs:/{study.info.run_id}/report.html")
    assert (
        page.count("data:image/jpeg;base64,") >= 4
        and "whether the network was trained on them is not known" in page
    )
    assert "perhaps on these very images" in page and "out of fold" not in page
    listed = json.loads(mlflow.artifacts.load_text(f"runs:/{study.info.run_id}/examples/examples.json"))[
        "examples"
    ]
    assert {one["kind"] for one in listed} >= {"worst", "best"}


def test_the_folds_and_the_hold_out_are_those_of_a_study(lab):
    from microseg.study import Request, prepare, single

    config = single({"model": {"name": "unet"}, "tile": 64}, "test").model_copy(update={"folds": 2})
    prepared = prepare(
        Request(name="other", data=lab.data, options=DataOptions(mask_kind="instance"), config=config)
    )
    study = report.find_study(lab.client, "import-old.h5")
    (trial,) = tree.children(lab.client, study.info.experiment_id, study.info.run_id)
    for run, fold in zip(
        sorted(
            tree.children(lab.client, study.info.experiment_id, trial.info.run_id),
            key=lambda r: r.info.run_name,
        ),
        prepared.folds,
        strict=True,
    ):
        recipe = json.loads(mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/provenance.json"))
        assert recipe["fold"] == fold.model_dump(mode="json")


def test_what_was_added_to_it_is_said(lab):
    assert any("a softmax was added" in note for note in lab.done.notes)
    assert any("the second is used" in note for note in lab.done.notes)
    assert lab.done.notes[-1] == OPTIMISTIC


def test_the_candidate_predicts_objects_with_the_parameters_that_were_searched(lab, tmp_path):
    uri = "models:/old@candidate"
    card = load_segmenter(uri).card
    assert card.instances is not None
    assert (card.config.model.name, card.kind) == (IMPORTED, "imported")
    assert card.tiling.halo <= 4  # it averages 5 x 5 pixels
    assert card.appearance is None  # what it was trained on, nobody says
    assert (card.channels, card.classes, card.scores) == (
        1,
        ("foreground",),
        {"val/dice": lab.done.scores["cv/dice_mean"]},
    )
    study = report.find_study(lab.client, "import-old.h5")
    assert study.data.metrics["best/ap50"] >= study.data.metrics.get("cv/ap50_mean", 0)
    done = predict_folder(
        uri, str(lab.data / "images"), str(tmp_path / "out"), PredictOptions(instances=True)
    )
    assert not done.failed
    rows = list(csv.DictReader((tmp_path / "out" / "objects.csv").read_text().splitlines()))
    assert len(rows) == done.objects > 8
    image = rows[0]["image"]
    labels = read_labels(tmp_path / "out" / image.replace(".tif", ".png"))
    assert labels.max() == len([row for row in rows if row["image"] == image])


def test_reproduce_refuses_what_was_trained_elsewhere(lab):
    study = report.find_study(lab.client, "import-old.h5")
    (trial,) = tree.children(lab.client, study.info.experiment_id, study.info.run_id)
    fold = next(tree.children(lab.client, study.info.experiment_id, trial.info.run_id))
    with pytest.raises(MicrosegError, match="judged an imported network; it was trained elsewhere"):
        reproduce(fold.info.run_id)


def test_without_data_the_network_alone_tells_channels_and_classes(lab):
    network(channels=2, maps=3, activation="softmax", size=32).save(lab.folder / "classes.keras")
    done = import_model(ask(lab.folder, "classes.keras", name="classes", tile=None))
    assert (done.scores, done.notes) == ({}, ())
    segmenter = load_segmenter("models:/classes@candidate")
    card = segmenter.card
    assert (card.channels, card.classes, card.config.tile) == (2, ("background", "class 1", "class 2"), 32)
    assert (card.kind, card.data_digest, card.instances) == ("imported", "", None)
    image = np.zeros((40, 50, 2), np.uint8)
    image[10:20, 10:30] = 255
    assert set(np.unique(segmenter.segment(image))) == {0, 1}
    assert_array_equal(segmenter.label(segmenter.probability(image)) > 0, segmenter.segment(image) > 0)


def test_grey_images_are_repeated_for_a_network_in_colour(lab):
    network(channels=3).save(lab.folder / "colour.keras")
    done = import_model(ask(lab.folder, "colour.keras", name="colour", data=lab.data))
    assert "grey images are repeated in the network's three channels" in done.notes
    assert done.scores["cv/dice_mean"] == pytest.approx(lab.done.scores["cv/dice_mean"], abs=1e-3)
    assert load_segmenter("models:/colour@candidate").segment(np.zeros((64, 64, 1), np.uint8)).shape == (
        64,
        64,
    )


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ({"channels": 2}, {}, r"it takes 2 channel\(s\), the preprocessed images of cells have 1"),
        ({"maps": 3}, {}, r"it gives 3 map\(s\), the data has 1 class"),
        ({"size": 48}, {}, "tile is 64 pixels, but the network takes only 48"),
        ({}, {"preprocess": {"name": "scale", "params": {}}}, "it sees one class everywhere in fold 1"),
        ({}, {"preprocess": {"name": "scales"}}, "unknown preprocess 'scales'; did you mean 'scale'"),
        ({}, {"name": "a/b"}, "model name 'a/b': give one without"),
        ({}, {"study": "a/b"}, "study name 'a/b'"),
        ({}, {"folds": 9}, "9 folds of 3 groups"),
        ({}, {"folds": 0}, "^import-model: folds must be a whole number of at least 1, or 'given'$"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_left_behind(lab, kind, changes, words):
    before = traces(lab)
    network(**kind).save(lab.folder / "bad.keras")
    with pytest.raises(MicrosegError, match=words) as caught:
        import_model(ask(lab.folder, "bad.keras", **({"data": lab.data} | changes)))
    assert "\n" not in str(caught.value)
    assert traces(lab) == before


def test_the_command_says_what_came_of_it(lab, called):
    network().save(lab.folder / "command.keras")
    code, out, err = called(
        "import-model",
        str(lab.folder / "command.keras"), "--data", str(lab.data), "--mask-kind", "instance", "--folds", "2", "--tile", "64",
        "--preprocess", "{name: percentile, params: {low: 2}}", "--probability-threshold", "0.4",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "candidate  models:/command@candidate (version 1)" in out
    assert f"note: {OPTIMISTIC}" in out
    assert "over 2 folds" in out
    config = load_segmenter("models:/command@candidate").card.config
    assert (config.preprocess.params, config.threshold) == ({"low": 2}, 0.4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["absent.h5"], "absent.h5: no file that ends in"),
        (["command.keras", "--preprocess", "{name: [}"], "--preprocess '{name: [}': not valid YAML"),
        (["command.keras", "--preprocess", "7"], "--preprocess: expected a mapping"),
        (
            ["command.keras", "--probability-threshold", "2"],
            "import-model: threshold: Input should be less than 1",
        ),
        (["command.keras", "--tile", "8"], "import-model: tile"),
        (["command.keras", "--folds", "some"], "import-model: folds"),
        (["command.keras", "--data", "nowhere"], "nowhere: no such file or folder"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(lab, called, monkeypatch, arguments, said):
    monkeypatch.chdir(lab.folder)
    network().save(lab.folder / "command.keras")
    code, _, err = called("import-model", *arguments)
    assert code == 2
    assert said in err
    assert err.startswith("microseg: ") and err.count("\n") == 1
