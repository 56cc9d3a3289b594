"""Files of networks that attack whoever loads them: one line, no code, no more memory than the file has."""

import base64
import json
import marshal
import os
import pickle
import resource
import zipfile

import h5py
import keras
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from microseg.errors import MicrosegError
from microseg.importing.files import load_network
from microseg.models import load_saved
from microseg.models.saved import LONGEST
from microseg.serving.segmenter import _load
from microseg.training import checkpoint
from microseg.training.checkpoint import Course
from microseg.training.validation import Evaluation

MEGABYTE = 2**20


@pytest.fixture
def marker(tmp_path):
    """A file that the planted code would make."""
    path = tmp_path / "owned"
    yield path
    assert not path.exists()


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A network as Keras saves it, and its members."""
    path = tmp_path_factory.mktemp("sound") / "network.keras"
    image = keras.Input((None, None, 1))
    x = keras.layers.Conv2D(2, 3, padding="same", name="first")(image)
    x = keras.layers.Dropout(0.1)(keras.layers.BatchNormalization()(x))
    keras.Model(image, keras.layers.Conv2D(1, 1, activation="sigmoid", name="last")(x)).save(path)
    with zipfile.ZipFile(path) as archive:
        return path, {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def forged(sound, tmp_path):
    """Return a function that writes the network with other members, and with a changed description."""

    def write(change=None, compression=zipfile.ZIP_STORED, **members):
        found = dict(sound[1])
        config = json.loads(found["config.json"])
        if change:
            change(config)
        found |= {"config.json": json.dumps(config).encode()}
        found |= {name.replace("__", "."): content for name, content in members.items()}
        path = tmp_path / "forged.keras"
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, content in found.items():
                archive.writestr(name, content)
        return path

    return write


def layer(config, name):
    return next(one for one in config["config"]["layers"] if one["name"] == name)


def instead(found):
    """Put an object in the place of the first convolution."""

    def change(config):
        old = layer(config, "first")
        old.pop("registered_name", None)
        old |= found

    return change


def refused(path, reason):
    for load in (_load, load_network):
        with pytest.raises(MicrosegError) as caught:
            load(path)
        text = str(caught.value)
        assert text.startswith(f"{path}: ") and "\n" not in text and len(text) < 500
        assert load is load_network or reason in text, text


def weights(path, fill):
    with h5py.File(path, "w") as file:
        fill(file)
    return path.read_bytes()


def test_a_sound_file_gives_what_was_saved(sound):
    plain = keras.saving.load_model(sound[0], compile=False)
    loaded = load_saved(sound[0])
    image = np.random.default_rng(0).random((1, 8, 8, 1), np.float32)
    for one, other in zip(plain.weights, loaded.weights, strict=True):
        assert one.path == other.path
    for one, other in zip(plain.get_weights(), loaded.get_weights(), strict=True):
        assert_array_equal(one, other)
    assert_array_equal(plain(image, training=False), loaded(image, training=False))


def test_code_of_a_lambda_layer_does_not_run(forged, marker):
    code = compile(f"__import__('pathlib').Path({str(marker)!r}).touch()", "planted", "exec")
    planted = {
        "class_name": "__lambda__",
        "config": {"value": base64.b64encode(marshal.dumps(code)).decode()},
    }
    layer_of_code = {
        "class_name": "Lambda", "module": "keras.layers", "config": {"name": "first", "function": planted},
    }  # fmt: skip
    refused(forged(instead(layer_of_code)), "code that would run")
    refused(
        forged(lambda config: layer(config, "last")["config"].update(activation=planted)),
        "code that would run",
    )


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("subprocess", "Popen"),
        ("builtins.__import__", "eval"),
        ("mlflow.pyfunc", "load_model"),
    ],
)
def test_an_object_that_is_none_of_keras_is_not_looked_for(forged, marker, module, name):
    planted = {"module": module, "class_name": name, "config": {"command": f"touch {marker}"}}
    refused(forged(instead(planted)), "which is no part of Keras" if module != "builtins.__import__" else "")
    refused(forged(instead(planted | {"registered_name": f"{module}>{name}"})), "")
    function = {"module": module, "class_name": "function", "config": name, "registered_name": name}
    refused(forged(lambda config: layer(config, "last")["config"].update(activation=function)), "")


@pytest.mark.parametrize("name", ["TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"])
def test_a_layer_that_loads_something_else_is_refused(forged, name):
    refused(forged(instead({"class_name": name, "module": "keras.layers", "config": {}})), f"'{name}', code")


def test_a_function_of_keras_that_writes_files_is_refused(forged, marker):
    planted = {
        "module": "keras.utils",
        "class_name": "function",
        "config": "get_file",
        "registered_name": None,
    }
    refused(forged(lambda config: layer(config, "last")["config"].update(activation=planted)), "")


def test_a_network_that_asks_for_more_weights_than_the_file_holds_takes_no_memory(forged):
    """16 GiB: Keras by itself would create them, and complain about their shapes afterwards."""

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def change(config):
        layer(config, "first")["config"].update(kernel_size=[2**16, 2**15])

    refused(forged(change), "65536, 32768,")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 * 1024  # KiB


def test_what_a_refused_file_asked_for_is_not_made_later_either(forged):
    with pytest.raises(ValueError, match="shape"):
        load_saved(forged(lambda config: layer(config, "first")["config"].update(filters=2**20)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with keras.StatelessScope():
        pass
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss == before


def test_weights_that_are_larger_than_what_the_file_stores_are_refused(forged, tmp_path):
    def unwritten(file):
        file.create_dataset("layers/conv2d/vars/0", (2**36,), "f4", chunks=(2**10,))

    def zipped(file):
        file.create_dataset("layers/conv2d/vars/0", data=np.zeros(2**22, "f4"), compression="gzip")

    for fill in (unwritten, zipped):
        content = weights(tmp_path / "weights.h5", fill)
        refused(forged(model__weights__h5=content), "it stores less than the")


def test_weights_that_lie_in_another_file_are_refused(forged, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"12345678")

    def outside(file):
        file.create_dataset("layers/conv2d/vars/0", (2,), "f4", external=[(str(secret), 0, 8)])

    refused(forged(model__weights__h5=weights(tmp_path / "w.h5", outside)), "lie in another file")


def test_a_pickle_in_the_place_of_the_weights_is_not_read(forged, marker):
    class Planted:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    refused(forged(model__weights__h5=pickle.dumps(Planted())), "")


def test_an_archive_with_a_bomb_or_a_way_out_is_refused_before_anything_is_unpacked(forged, sound, tmp_path):
    refused(forged(compression=zipfile.ZIP_DEFLATED), "compressed")
    huge = b'{"a": "' + b" " * LONGEST + b'"}'
    refused(forged(compression=zipfile.ZIP_DEFLATED, config__json=huge), "more than 64 MiB")
    for name in ("../../escaped", "/tmp/escaped", "assets/layer/vocabulary.txt"):
        refused(forged(**{name: b"x"}), name)
    assert not list(tmp_path.parent.glob("escaped"))
    path = forged()
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(
            "config.json", sound[1]["config.json"]
        )  # which of the two counts is a matter of the reader
    refused(path, "config.json")


def test_a_torn_or_endless_file_is_one_line(forged, sound, tmp_path):
    torn = tmp_path / "torn.keras"
    for part in (10, len(sound[0].read_bytes()) // 2):
        torn.write_bytes(sound[0].read_bytes()[:part])
        refused(torn, "")
    refused(forged(config__json=b"[" * 100_000 + b"]" * 100_000), "recursion")
    refused(forged(config__json=b"{}"), "")


def test_an_hdf5_file_of_keras_2_has_the_same_rules(tmp_path, marker):
    path = tmp_path / "old.h5"
    keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3, name="first")]).save(path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][1]["config"] |= {"filters": 2**16, "kernel_size": [256, 256]}
        file.attrs["model_config"] = json.dumps(config)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MicrosegError, match=r"old\.h5: not a network that Keras"):
        load_network(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 * 1024
    with h5py.File(path, "r+") as file:
        config["config"]["layers"][1] = {
            "class_name": "Activation", "module": "os",
            "config": {"name": "first", "activation": f"touch {marker}"},
        }  # fmt: skip
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(MicrosegError, match=r"old\.h5: .*'os\.Activation', which is no part of Keras"):
        load_network(path)


def test_a_pickle_in_a_checkpoint_is_not_read(tmp_path, marker):
    """A training that finds such a checkpoint begins anew."""

    class Planted:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    evaluation = Evaluation({"val/dice": 0.5}, {"a": 0.1}, False)
    course = Course(
        identity="this",
        stopped=False,
        seconds=1.0,
        best_epoch=1,
        watches=(),
        history=[{}],
        evaluation=evaluation,
    )
    (tmp_path / "checkpoint.json").write_text(course.model_dump_json())
    sound = np.zeros(3)
    for planted in ("weights-1.npz", "state-1.npz"):
        for name in ("weights-1.npz", "state-1.npz"):
            np.savez(tmp_path / name, np.array([Planted()], object) if name == planted else sound)
        assert checkpoint.load(tmp_path, "this") is None
    for name in ("weights-1.npz", "state-1.npz"):
        np.savez(tmp_path / name, sound)
    assert checkpoint.load(tmp_path, "this") is not None  # else the above says nothing
