"""Files of Keras 2 and 3: loaded with the weights they hold, or refused in one line that helps."""

import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers
from numpy.testing import assert_array_equal

from microseg.errors import MicrosegError
from microseg.importing.files import load_network


def small():
    """A network with the layers whose configuration changed between Keras 2 and 3."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 1))
    x = layers.Conv2D(4, 3, padding="same")(image)
    x = skip = layers.LeakyReLU(0.1)(layers.BatchNormalization()(x))
    x = layers.SeparableConv2D(4, 3, padding="same", activation="relu")(layers.MaxPooling2D()(x))
    x = layers.Dropout(0.2)(layers.DepthwiseConv2D(3, padding="same")(x))
    x = layers.Concatenate()([layers.Conv2DTranspose(4, 2, strides=2)(x), skip])
    return keras.Model(image, layers.Conv2D(1, 1, activation="sigmoid")(x))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A legacy HDF5 file, what it describes, and what it answers to an image."""
    path = tmp_path_factory.mktemp("files") / "old.h5"
    model = small()
    model.compile(loss=lambda y_true, y_pred: keras.ops.mean(y_true - y_pred), optimizer="adam")
    model.save(path)
    with h5py.File(path) as file:
        config = json.loads(file.attrs["model_config"])
    image = np.random.default_rng(0).random((1, 16, 16, 1), np.float32)
    return path, config, image, np.asarray(model(image, training=False))


def old_form(config):
    """Describe the network as Keras 2.2 did; keys and values are those of files from that time."""
    config = json.loads(json.dumps(config))
    config["class_name"] = "Model"
    for layer in config["config"]["layers"]:
        kind, values = layer["class_name"], layer["config"]
        values["dtype"] = {"class_name": "Policy", "config": {"name": "float32"}}
        if kind == "InputLayer":
            shape = values["batch_shape"]
            layer["config"] = {"batch_input_shape": shape, "dtype": "float32", "sparse": False,
                               "ragged": False, "name": values["name"]}  # fmt: skip
        if kind in ("Conv2DTranspose", "DepthwiseConv2D", "SeparableConv2D"):
            values["groups"] = 1
        if kind == "SeparableConv2D":
            values |= {"kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": None}},
                       "kernel_regularizer": None, "kernel_constraint": None}  # fmt: skip
        if kind == "BatchNormalization":
            values |= {"axis": [3], "fused": None, "renorm": False}
        if kind == "LeakyReLU":
            values["alpha"] = values.pop("negative_slope")
        layer["inbound_nodes"] = [_old_node(node) for node in layer["inbound_nodes"]]
    return config


def _old_node(node):
    tensors = node["args"][0] if isinstance(node, dict) else None
    if tensors is None:
        return node
    tensors = tensors if isinstance(tensors, list) else [tensors]
    return [[*tensor["config"]["keras_history"], {}] for tensor in tensors]


def rewritten(source, target, config):
    target.write_bytes(source.read_bytes())
    with h5py.File(target, "r+") as file:
        file.attrs["model_config"] = json.dumps(config)
    return target


def layers_of(config, kind):
    return [layer["config"] for layer in config["config"]["layers"] if layer["class_name"] == kind]


def test_a_custom_loss_does_not_matter(written):
    path, _, image, answer = written
    assert_array_equal(load_network(path)(image, training=False), answer)


def test_what_keras_2_wrote_gives_the_same_answers(written, tmp_path):
    path, config, image, answer = written
    old = rewritten(path, tmp_path / "old.hdf5", old_form(config))
    with pytest.raises((TypeError, ValueError, AttributeError)):  # else there is nothing to repair
        keras.saving.load_model(old, compile=False)
    before = old.read_bytes()
    assert_array_equal(load_network(old)(image, training=False), answer)
    assert old.read_bytes() == before


def test_a_long_description_is_rewritten_too(written, tmp_path):
    """HDF5 holds a short attribute in a header of 64 KiB; large networks have longer descriptions."""
    path, config, image, answer = written
    old = rewritten(path, tmp_path / "old.h5", old_form(config) | {"note": "x" * 100_000})
    assert_array_equal(load_network(old)(image, training=False), answer)


def test_a_sequential_network_of_keras_2_keeps_its_input_with_its_first_layer(tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 2)), layers.Conv2D(3, 3, padding="same")])
    model.save(tmp_path / "new.h5")
    with h5py.File(tmp_path / "new.h5") as file:
        config = json.loads(file.attrs["model_config"])
    del config["config"]["layers"][0]
    config["config"]["layers"][0]["config"]["batch_input_shape"] = [None, 8, 8, 2]
    loaded = load_network(rewritten(tmp_path / "new.h5", tmp_path / "old.h5", config))
    assert loaded.input_shape == (None, 8, 8, 2)
    assert_array_equal(loaded.get_weights()[0], model.get_weights()[0])


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_the_outputs_of_a_sequential_network_have_names_too(tmp_path, suffix):
    keras.Sequential([keras.Input((8, 8, 2)), layers.Conv2D(3, 1, name="last")]).save(
        tmp_path / f"s.{suffix}"
    )
    loaded = load_network(tmp_path / f"s.{suffix}")
    assert loaded.output_names == ["last"]
    assert loaded.outputs[0].shape == (None, 8, 8, 3)


@pytest.mark.parametrize("module", ["keras.engine.functional", "keras.src.engine.functional"])
def test_an_archive_of_keras_2_is_told_how_to_be_saved_instead(tmp_path, module):
    small().save(tmp_path / "new.keras")
    with zipfile.ZipFile(tmp_path / "new.keras") as new, zipfile.ZipFile(tmp_path / "old.keras", "w") as old:
        for name in new.namelist():
            content = new.read(name)
            if name == "config.json":
                content = json.dumps(json.loads(content) | {"module": module}).encode()
            old.writestr(name, content)
    with pytest.raises(MicrosegError, match=r"a \.keras file of Keras 2, .* model\.save\('network\.h5'\)"):
        load_network(tmp_path / "old.keras")


def test_an_argument_that_would_change_the_network_is_not_dropped(written, tmp_path):
    path, config, _, _ = written
    config = old_form(config)
    layers_of(config, "Conv2DTranspose")[0]["groups"] = 2
    with pytest.raises(MicrosegError, match=r"Unrecognized keyword arguments passed to Conv2DTranspose"):
        load_network(rewritten(path, tmp_path / "odd.h5", config))


@pytest.mark.parametrize("name", ["MyDropout", "TFOpLambda"])
def test_a_layer_that_keras_does_not_have_is_named(written, tmp_path, name):
    path, config, _, _ = written
    config = old_form(config)
    next(x for x in config["config"]["layers"] if x["class_name"] == "Dropout")["class_name"] = name
    with pytest.raises(MicrosegError, match=f"it uses '{name}', which is no part of Keras 3") as caught:
        load_network(rewritten(path, tmp_path / "odd.h5", config))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_a_lambda_layer_is_refused_also_where_keras_would_load_it(tmp_path, suffix, monkeypatch):
    image = keras.Input((8, 8, 1))
    keras.Model(image, layers.Lambda(lambda x: x / 255)(image)).save(tmp_path / f"l.{suffix}")
    monkeypatch.setattr(keras.saving, "load_model", lambda *args, **options: pytest.fail("it was loaded"))
    with pytest.raises(MicrosegError, match="it has a Lambda layer, code that would run"):
        load_network(tmp_path / f"l.{suffix}")


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_a_lambda_layer_inside_a_nested_network_is_found(tmp_path, suffix):
    inner_image, image = keras.Input((8, 8, 1)), keras.Input((8, 8, 1))
    inner = keras.Model(inner_image, layers.Lambda(lambda x: x / 255)(inner_image))
    keras.Model(image, inner(image)).save(tmp_path / f"l.{suffix}")
    with pytest.raises(MicrosegError, match="it has a Lambda layer"):
        load_network(tmp_path / f"l.{suffix}")


def test_weights_alone_are_told_from_a_network(tmp_path):
    small().save_weights(tmp_path / "best.weights.h5")
    with pytest.raises(MicrosegError, match="it holds weights without a network; build the network"):
        load_network(tmp_path / "best.weights.h5")


def damaged(folder):
    model = small()
    model.save(folder / "good.keras")
    model.save(folder / "good.h5")
    keras_file, old_file = (folder / "good.keras").read_bytes(), (folder / "good.h5").read_bytes()
    flipped = bytearray(keras_file)
    flipped[len(flipped) // 2] ^= 255
    return {
        "cut.keras": (keras_file[:300], "a damaged Keras archive"),
        "cut.h5": (old_file[:3000], "a damaged HDF5 file"),
        "flipped.keras": (bytes(flipped), "not a network that Keras .* can rebuild"),
        "text.h5": (b"hello", "neither HDF5 nor a Keras archive"),
        "model.pb": (old_file, r"no file that ends in \.h5, \.hdf5, \.keras"),
    }


def test_damaged_and_other_files_are_one_line(tmp_path):
    for name, (content, words) in damaged(tmp_path).items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MicrosegError, match=words) as caught:
            load_network(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(str(tmp_path / name))
    with pytest.raises(MicrosegError, match="no file that ends in"):
        load_network(tmp_path / "absent.h5")


def test_the_content_counts_and_not_the_name(written, tmp_path):
    path, _, image, answer = written
    (tmp_path / "renamed.keras").write_bytes(path.read_bytes())
    assert_array_equal(load_network(tmp_path / "renamed.keras")(image, training=False), answer)
