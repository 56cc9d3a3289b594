"""The registered model: what is stored with it, and what it needs to run."""

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pytest
import yaml
from mlflow.artifacts import download_artifacts
from numpy.testing import assert_array_equal
from PIL import Image

import microseg
from microseg.errors import MicrosegError
from microseg.serving import packaging
from microseg.serving.batch import load_segmenter
from microseg.serving.packaging import log_candidate, requirements
from microseg.serving.request import ImageRequest, decode, encode_npy, encode_png
from microseg.serving.segmenter import Segmenter


@pytest.fixture(scope="module")
def stored(registered, store_of_registered, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    with store_of_registered():
        return Path(download_artifacts("models:/cells@candidate", dst_path=str(folder)))


def test_the_candidate_is_registered_and_belongs_to_its_run(registered):
    version = registered.client.get_model_version_by_alias("cells", "candidate")
    assert registered.candidate.version == int(version.version) == 1
    assert registered.candidate.uri == "models:/cells/1"
    assert version.run_id == registered.run.info.run_id
    assert version.tags["microseg.trial"] == "trial-003"
    assert version.tags["microseg.candidate"] == "ensemble"
    assert version.description == (
        "Of study demo, trial-003: the networks of all folds, whose probabilities are averaged."
    )
    run = registered.client.get_run(registered.run.info.run_id)
    assert run.info.status == "RUNNING"  # logging a model neither ends nor restarts somebody's run
    assert len(run.outputs.model_outputs) == 1


def test_the_stored_model_is_complete_and_holds_no_pickle(stored):
    names = {str(path.relative_to(stored)) for path in stored.rglob("*") if path.is_file()}
    assert {
        "artifacts/model/card.json",
        "artifacts/model/fold-000.keras",
        "code/microseg/tiling/predict.py",
    } <= names
    assert not {name for name in names if name.endswith((".pkl", ".pickle", ".pyc"))}


def test_the_signature_follows_from_the_types(stored):
    signature = yaml.safe_load((stored / "MLmodel").read_text())["signature"]
    assert "probability" in signature["inputs"] and "mask" in signature["outputs"]


def test_the_example_that_is_stored_is_answered(stored):
    """MLflow asked the model before it was stored, and shows this request to users."""
    model = mlflow.pyfunc.load_model(str(stored))
    (answer,) = model.predict(model.input_example)
    assert decode(answer.mask).shape == (64, 64, 1)
    assert list(json.loads((stored / "serving_input_example.json").read_text())) == ["inputs"]


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_the_example_has_the_models_channels(channels):
    assert decode(packaging._example(channels)["image"]).shape == (64, 64, channels)


def test_the_requirements_are_exact_and_hold_nothing_of_the_search(stored):
    lines = (stored / "requirements.txt").read_text().split()
    assert sorted(lines) == sorted(requirements())
    assert all("==" in line for line in lines)
    assert not {"ray", "optuna", "albumentations"} & {line.split("==")[0] for line in lines}


def test_it_runs_in_a_new_process_from_its_own_copy_of_the_code_without_pickle_or_search(stored, image):
    """Loaded as a stranger would: no project on the path, pickle forbidden."""
    code = f"""
import sys, mlflow.pyfunc
model = mlflow.pyfunc.load_model({str(stored)!r})
answer = model.predict([{{"image": {encode_png(image[..., 0])!r}}}])[0]
import microseg
assert microseg.__file__.startswith({str(stored)!r}), microseg.__file__
extra = {{"ray", "optuna", "albumentations", "boto3", "typer"}} & set(sys.modules)
assert not extra, extra
print(answer.mask)
"""
    environment = os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=stored, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    expected = Segmenter(stored / "artifacts" / "model").segment(image)
    assert_array_equal(decode(done.stdout.split()[-1])[..., 0], expected)


def test_the_notebooks_way_answers_mask_probability_and_version(registered, image):
    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model("models:/cells@champion")
    plain, full = model.predict(
        [
            ImageRequest(image=encode_png(image[..., 0])),
            ImageRequest(image=encode_npy(image.astype(np.float32)), probability=True, instances=True),
        ]
    )
    segmenter = load_segmenter("models:/cells@champion")
    assert_array_equal(
        np.asarray(Image.open(io.BytesIO(base64.b64decode(plain.mask)))), segmenter.segment(image)
    )
    assert (plain.probability, plain.instances) == (None, None)
    labels = decode(full.instances)
    assert labels.dtype == np.uint16
    assert_array_equal(labels[..., 0], segmenter.label(segmenter.probability(image)))
    assert (plain.model, plain.version) == ("cells", "1")
    assert_array_equal(np.load(io.BytesIO(base64.b64decode(full.probability))), segmenter.probability(image))


def test_the_same_trial_of_the_same_run_is_registered_once(registered, build):
    """A study that is resumed after its end concludes again."""
    members = sorted(registered.directory.glob("*.keras"))
    assert log_candidate(build.card(), members, registered.run.info.run_id) == registered.candidate
    assert len(registered.client.search_model_versions("name = 'cells'")) == 1


def test_a_missing_member_is_refused_and_nothing_is_registered(registered, build, tmp_path):
    other = registered.client.create_run(registered.run.info.experiment_id).info.run_id
    before = len(registered.client.search_model_versions("name = 'cells'"))
    with pytest.raises(MicrosegError, match=r"gone\.keras: no such file; the network of fold 0"):
        log_candidate(build.card(), [tmp_path / "gone.keras"], other)
    with pytest.raises(MicrosegError, match="no networks given"):
        log_candidate(build.card(), [], other)
    assert len(registered.client.search_model_versions("name = 'cells'")) == before


def test_the_package_itself_is_not_changed_by_packaging(registered):
    assert Path(microseg.__file__).parent.name == "microseg"
    assert "site-packages" not in str(registered.directory)
