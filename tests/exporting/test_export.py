"""Models for other programs: the same answers, one network for the ensemble, whole folders or none."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from microseg import exporting
from microseg.config import Component, TrialConfig
from microseg.data.preprocess import PREPROCESSING
from microseg.errors import MicrosegError
from microseg.exporting import formats
from microseg.exporting.bioimage import preprocessing
from microseg.exporting.network import in_float32, one_network, sample
from microseg.models import build_model
from microseg.serving import batch
from microseg.serving.card import ModelCard

CONFIG = TrialConfig.model_validate(
    {
        "model": {"name": "unet", "params": {"depth": 2, "filters": 4}},
        "tile": 32,
        "preprocess": {"name": "zscore"},
    }
)


@pytest.fixture(scope="module")
def members():
    return [build_model(CONFIG.model, 1, 1) for _ in range(2)]


@pytest.fixture
def source(members):
    return exporting.Source(
        name="cells",
        version="3",
        about="Of study first, trial-000: the networks of all folds, whose probabilities are averaged.",
        author="Ada",
        config=CONFIG,
        classes=("cell",),
        scores={"val/dice": 0.9},
        members=members,
        halo=4,
        pixel_size_um=0.5,
        license="MIT",
    )


def mean(members, image):
    return np.mean([member.predict_on_batch(image) for member in members], axis=0)


def test_an_ensemble_is_one_network(members):
    image = np.random.default_rng(0).random((2, 48, 64, 1), np.float32)
    np.testing.assert_allclose(one_network(members).predict_on_batch(image), mean(members, image), atol=1e-6)


def test_a_network_in_reduced_precision_is_exported_in_float32():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        reduced = build_model(CONFIG.model, 1, 1)
    finally:
        keras.config.set_dtype_policy(before)
    plain = in_float32(reduced)
    assert {layer.dtype_policy.name for layer in plain.layers} == {"float32"}
    assert all(np.array_equal(a, b) for a, b in zip(plain.get_weights(), reduced.get_weights(), strict=True))
    image = np.random.default_rng(0).random((1, 32, 32, 1), np.float32)
    assert 0 < np.abs(plain.predict_on_batch(image) - reduced.predict_on_batch(image)).max() < 0.1


def test_a_saved_model_answers_as_the_members_do_at_any_size(source, tmp_path):
    done = exporting.export(source, "saved-model", tmp_path / "out")
    assert [file.name for file in done.files] == ["microseg.json", "saved_model"]
    assert done.difference <= 1e-6 and done.speed > 0
    loaded = tf.saved_model.load(str(tmp_path / "out" / "saved_model"))
    image = np.random.default_rng(0).random((3, 48, 80, 1), np.float32)
    np.testing.assert_allclose(loaded.serve(image), mean(source.members, image), atol=1e-6)
    facts = json.loads((tmp_path / "out" / "microseg.json").read_text())
    assert facts["input"]["shape"] == [None, None, None, 1]
    assert facts["input"]["multiple of (pixels)"] == 2
    assert facts["input"]["preprocessing of the whole image, before tiles"] == {
        "name": "zscore",
        "params": {},
    }
    assert facts["output"]["maps"] == ["cell"] and facts["output"]["threshold"] == 0.5
    assert (facts["tile (pixels)"], facts["halo (pixels)"], facts["pixel size (um)"]) == (32, 4, 0.5)


def test_answers_that_differ_leave_nothing(source, tmp_path, monkeypatch):
    def other(source, network, image, folder):
        Path(folder, "half").write_text("")
        return lambda batch: network.predict_on_batch(batch) + 2e-4

    monkeypatch.setitem(formats.FORMATS, "onnx", other)
    with pytest.raises(
        MicrosegError, match=r"format onnx: its answers differ by 0.0002 .* nothing was written"
    ):
        exporting.export(source, "onnx", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setitem(formats.FORMATS, "onnx", lambda *_: lambda batch: np.full((1, 32, 32, 1), np.nan))
    monkeypatch.setitem(formats.FORMATS, "openvino", lambda *_: lambda batch: np.zeros((1, 1, 32, 32, 1)))
    with pytest.raises(MicrosegError, match="its answers have the shape"):
        exporting.export(source, "openvino", tmp_path / "out")
    with pytest.raises(MicrosegError, match="its answers differ by nan"):
        exporting.export(source, "onnx", tmp_path / "out")


@pytest.mark.parametrize(
    ("format", "said"),
    [
        (
            "onxn",
            r"format 'onxn' is not known; did you mean 'onnx'\? allowed: bioimageio, onnx, openvino, saved-model",
        ),
        ("onnx", r"there: exists already; give a folder that does not"),
    ],
)
def test_what_cannot_be_written_is_one_line(source, tmp_path, format, said):
    (tmp_path / "there").mkdir()
    with pytest.raises(MicrosegError, match=said):
        exporting.export(source, format, tmp_path / "there")
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize(
    ("format", "package"),
    [("onnx", "onnxruntime"), ("openvino", "openvino"), ("bioimageio", "bioimageio.spec")],
)
def test_a_missing_package_names_what_to_install(source, tmp_path, monkeypatch, format, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, package.partition(".")[0], None)
    with pytest.raises(MicrosegError, match=r"it comes with: pip install 'microseg\[export\]'"):
        exporting.export(source, format, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("component", "steps"),
    [
        (Component(name="percentile"), ["scale_range", "clip"]),
        (Component(name="percentile", params={"low": 5, "clip": False}), ["scale_range"]),
        (Component(name="zscore"), ["zero_mean_unit_variance"]),
        (Component(name="scale", params={"maximum": 4095}), ["scale_linear"]),
        (
            Component(name="scale"),
            None,
        ),  # by the number type of the file, which the description does not know
        (Component(name="percentile", params={"clahe": 4}), None),
        (Component(name="zscore", params={"gamma": 2}), None),
        (Component(name="scale", params={"maximum": 255, "channels": [0]}), None),
    ],
)
def test_only_a_preprocessing_that_the_specification_knows_is_described(component, steps):
    found = preprocessing(component)
    assert (found and [step["id"] for step in found]) == steps
    assert component.name in PREPROCESSING


def test_the_sample_is_a_smooth_image_of_the_size_that_the_network_takes():
    free = keras.Model(image := keras.Input((None, None, 3)), keras.layers.Conv2D(1, 1)(image))
    fixed = keras.Model(image := keras.Input((48, 40, 1)), keras.layers.Conv2D(1, 1)(image))
    assert sample(free, 64).shape == (1, 64, 64, 3)
    assert sample(fixed, 64).shape == (1, 48, 40, 1)
    assert 0.0 <= sample(free, 64).min() < 0.2 < 0.8 < sample(free, 64).max() <= 1.0


def test_the_command_says_what_it_wrote_and_how_it_was_checked(called, members, tmp_path, monkeypatch):
    class Served:
        card = ModelCard(
            name="cells", study="first", trial="trial-000", config=CONFIG, channels=1, classes=("cell",), data_digest=""
        )  # fmt: skip
        networks = tuple(members)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr(batch, "load_segmenter", lambda uri: Served())
    code, out, err = called("export", "--model", "saved/model", "--format", "saved-model", "--output", "out")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "wrote out (microseg.json, saved_model)"
    assert out.splitlines()[1].startswith("checked on a tile: probabilities differ by at most ")
    code, _, err = called("export", "--model", "saved/model", "--format", "saved-model", "--output", "out")
    assert code == 2 and err == "microseg: out: exists already; give a folder that does not\n"


@pytest.mark.slow
@pytest.mark.parametrize(("format", "file"), [("onnx", "model.onnx"), ("openvino", "model.xml")])
def test_other_runtimes_answer_as_the_members_do_at_any_size(source, tmp_path, format, file):
    for package in ("onnxruntime", "tf2onnx", "openvino"):
        pytest.importorskip(package, reason="comes with pip install 'microseg[export]'")
    done = exporting.export(source, format, tmp_path / "out")
    assert done.difference <= 1e-5
    image = np.random.default_rng(0).random((3, 48, 80, 1), np.float32)
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(tmp_path / "out" / file)
        answer = session.run(["probability"], {"image": image})[0]
    else:
        import openvino

        exact = {"INFERENCE_PRECISION_HINT": "f32"}
        answer = openvino.Core().compile_model(tmp_path / "out" / file, "CPU", exact)(image)[0]
    np.testing.assert_allclose(answer, mean(source.members, image), atol=1e-5)


@pytest.mark.slow
def test_openvino_reports_to_nobody(source, tmp_path):
    """Trap of openvino 2026.4: converting sends events to its maker unless a package of it is missing."""
    pytest.importorskip("openvino", reason="comes with pip install 'microseg[export]'")
    code = (
        "import sys; from microseg.runtime import hidden\n"
        "with hidden('openvino_telemetry'): import openvino\n"
        "from openvino.tools.ovc import telemetry_utils\n"
        "print(telemetry_utils.tm.__name__, 'openvino_telemetry' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["openvino.tools.ovc.telemetry_stub", "False"], done.stderr


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # bioimageio.spec 0.5.14 leaves files open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("preprocess", [{"name": "zscore"}, {"name": "percentile"}, {"name": "scale"}])
def test_a_description_passes_the_check_of_the_specification(members, source, tmp_path, preprocess):
    spec = pytest.importorskip("bioimageio.spec", reason="comes with pip install 'microseg[export]'")
    config = CONFIG.model_copy(update={"preprocess": Component(**preprocess)})
    exporting.export(replace(source, config=config), "bioimageio", tmp_path / "out")
    described = spec.load_description(tmp_path / "out" / "rdf.yaml", perform_io_checks=True)
    assert described.validation_summary.status != "failed"
    assert (described.name, described.license) == ("cells 3", "MIT")
    (image,), (probability,) = described.inputs, described.outputs
    assert [axis.id for axis in image.axes] == ["batch", "y", "x", "channel"]
    named = [step.id for step in image.preprocessing if step.id != "ensure_dtype"]  # it adds that itself
    steps = preprocessing(config.preprocess) or []
    assert named == [step["id"] for step in steps]
    given = np.load(tmp_path / "out" / "input.npy")
    prepared = PREPROCESSING[preprocess["name"]](given[0])[None] if steps else given
    np.testing.assert_allclose(np.load(tmp_path / "out" / "output.npy"), mean(members, prepared), atol=1e-5)
    assert probability.test_tensor is not None
