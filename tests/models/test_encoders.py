"""Encoders of keras.applications: exact levels, input of any channel count, weights and their failures."""

import functools
import warnings

import keras
import numpy as np
import pytest
from keras.src.utils import file_utils  # where keras.applications looks up its downloads

from microseg.components import check
from microseg.config import Component
from microseg.errors import MicrosegError
from microseg.models import ARCHITECTURES
from microseg.models.encoders import ENCODERS, PLAIN, adapt, input_scaling, level_strides, load_encoder

QUICK = ("vgg16", "mobilenet_v3_small")
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406], "float32"), np.array([0.229, 0.224, 0.225], "float32")

# Wider and deeper by the same code of Keras, with levels of the same names.
LARGER = {f"efficientnet_b{number}": "efficientnet_b0" for number in range(1, 8)}
LARGER |= {f"efficientnet_v2_b{number}": "efficientnet_v2_b0" for number in range(1, 4)}
LARGER |= {f"efficientnet_v2_{size}": "efficientnet_v2_s" for size in "ml"}
KINDS = [name for name in ENCODERS if name not in LARGER]


def over(names):
    """Return a mark: the tests of an encoder one after the other, so that they share a network."""
    marked = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]
    return pytest.mark.parametrize("name", marked, scope="module")


every, kinds = over([*KINDS, *LARGER]), over(KINDS)


def component(**params):
    return Component(name="encoder_unet", params=params)


def images(height, width, channels=3):
    return np.random.default_rng(0).random((1, height, width, channels), np.float32)


def run(model, batch):
    return [keras.ops.convert_to_numpy(output) for output in keras.tree.flatten(model(batch, training=False))]


def adapted(image, scaling):
    inputs = keras.Input((None, None, image.shape[-1]))
    model = keras.Model(inputs, adapt(inputs, scaling))
    return run(model, image)[0], model


@functools.lru_cache(maxsize=1)
def whole(name):
    return load_encoder(name, None, "none")


def assert_exact(network, strides):
    """Every level of a network has exactly the size that its stride says."""
    height, width = 3 * strides[-1], 5 * strides[-1]
    shapes = network.compute_output_shape((1, height, width, 3))
    assert [shape[1:3] for shape in shapes] == [(height // step, width // step) for step in strides]
    assert [level.shape[1:3] for level in run(network, images(height, width))] == [
        (height // step, width // step) for step in strides
    ]


@every
def test_every_level_has_exactly_the_size_that_its_stride_says(name):
    assert_exact(whole(name), level_strides(name, None))


@kinds
def test_so_have_the_first_levels_alone(name):
    assert_exact(load_encoder(name, 2, "none"), level_strides(name, 2))


@kinds
def test_levels_do_not_depend_on_what_the_process_built_before(name):
    networks = [whole(name), load_encoder(name, None, "none")]
    networks[1].set_weights(networks[0].get_weights())
    first, second = (run(network, images(64, 64)) for network in networks)
    for level, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(level, other)


@every
def test_what_prediction_normalises_by_follows_within_an_epoch_of_a_small_set(name):
    norms = [layer for layer in whole(name).layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert all(layer.momentum <= 0.9 for layer in norms)
    assert norms or name.startswith(("vgg", "convnext"))


@kinds
def test_saved_encoder_loads_without_custom_objects(name, tmp_path):
    network = whole(name)
    network.save(tmp_path / "encoder.keras")
    loaded = keras.saving.load_model(tmp_path / "encoder.keras", compile=False, safe_mode=True)
    for level, other in zip(run(network, images(64, 64)), run(loaded, images(64, 64)), strict=True):
        np.testing.assert_array_equal(level, other)


def own_preprocessing(name):
    """Return the published preprocessing of an encoder on RGB in 0..255: the identity where it is inside."""
    family = {"resnet50": "resnet", "densenet121": "densenet", "convnext_tiny": "convnext"}
    module = family.get(name) or name.rsplit("_", maxsplit=1)[0]
    return getattr(keras.applications, module).preprocess_input


def pretrained(name, path):
    """Save a network as its ImageNet weights are: EfficientNet's hold mean and deviation of the input."""
    network = ENCODERS[name].build(include_top=False, weights=None)
    for layer in network.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            layer.adapt_mean.assign(MEAN)
            layer.adapt_variance.assign(DEVIATION)  # sic: Keras scales by its root once more
    network.save_weights(path)


@kinds
def test_input_is_what_the_imagenet_weights_were_trained_on(name, tmp_path, monkeypatch):
    path = tmp_path / "encoder.weights.h5"
    pretrained(name, path)
    monkeypatch.setattr(file_utils, "get_file", lambda *_, **__: str(path))  # instead of a download
    # EfficientNet's own preprocessing lacks a step where the same weights come from a file.
    weights = str(path) if name.startswith("efficientnet_b") else "imagenet"
    network = load_encoder(name, None, weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        original = ENCODERS[name].build(include_top=False, weights="imagenet")
    image = images(64, 64)
    encoded, _ = adapted(image, input_scaling(name, weights, "auto"))
    expected = run(original, own_preprocessing(name)(image * 255.0))[0]
    ours = run(network, encoded)[-1]
    if name.startswith("vgg"):
        ours = run(keras.layers.MaxPooling2D(2), ours)[0]
    assert expected.std() > 0.0
    np.testing.assert_allclose(ours, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize(("larger", "kind"), LARGER.items())
def test_a_larger_encoder_differs_from_one_of_its_kind_in_nothing_but_what_builds_it(larger, kind):
    builders = [ENCODERS[name].build for name in (larger, kind)]
    assert builders[0] is not builders[1] and builders[0].__module__ == builders[1].__module__
    assert ENCODERS[larger]._replace(build=None) == ENCODERS[kind]._replace(build=None)


def test_scaling_is_of_imagenet_with_weights_unless_said_otherwise():
    caffe = ENCODERS["vgg16"].scaling
    assert input_scaling("vgg16", "none", "auto") == PLAIN
    assert input_scaling("vgg16", "imagenet", "auto") == caffe
    assert input_scaling("vgg16", "imagenet", "none") == PLAIN
    assert input_scaling("vgg16", "none", "imagenet") == caffe


@pytest.mark.parametrize("name", ["vgg16", "vgg19", "xception", "resnet50", "densenet121"])
def test_scaling_equals_the_published_function_where_it_is_outside_the_network(name):
    image = images(4, 4)
    published = own_preprocessing(name)(image * 255.0)
    assert np.abs(published - image * 255.0).max() > 1.0
    np.testing.assert_allclose(
        adapted(image, ENCODERS[name].scaling)[0], published, rtol=1e-5, atol=1e-5 * np.abs(published).max()
    )


@pytest.mark.parametrize("name", [None, "vgg16", "xception", "densenet121"])
def test_grey_is_replicated_and_fixed(name):
    scaling = ENCODERS[name].scaling if name else PLAIN
    grey = images(4, 4, 1)
    output, model = adapted(grey, scaling)
    colour, _ = adapted(np.repeat(grey, 3, axis=-1), scaling)
    np.testing.assert_allclose(output, colour, rtol=1e-5, atol=1e-5)
    assert not model.trainable_weights


def test_other_channel_counts_are_projected_and_learned():
    image = images(4, 4, 5)
    output, model = adapted(image, PLAIN)
    np.testing.assert_allclose(output[..., 0], image.mean(axis=-1), rtol=1e-5)
    assert [weight.shape for weight in model.trainable_weights] == [(1, 1, 5, 3), (3,)]


@pytest.mark.slow
@pytest.mark.parametrize("level", [0, 1])
def test_padding_centres_the_levels_of_unpadded_convolutions(level):
    network = load_encoder("xception", 2, "none")
    for weight in network.trainable_weights:
        weight.assign(np.full(weight.shape, 0.1, np.float32))
    stride = level_strides("xception", 2)[level]
    image = np.ones((1, 64, 64, 3), np.float32)
    impulse = image.copy()
    impulse[:, 31:33, 31:33] += 0.01  # between pixels 31 and 32: the middle of the image
    response = run(network, impulse)[level] - run(network, image)[level]
    profile = np.abs(response)[0].sum(axis=(1, 2))
    centre = (profile * (np.arange(profile.size) + 0.5)).sum() / profile.sum() * stride
    assert abs(centre - 32.0) <= stride / 2


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
def test_weights_of_a_local_file_are_the_ones_used(suffix, tmp_path):
    source = ENCODERS["mobilenet_v3_small"].build(include_top=False, weights=None)
    path = tmp_path / f"encoder{suffix}"
    source.save_weights(path) if suffix == ".weights.h5" else source.save(path)
    network = load_encoder("mobilenet_v3_small", 2, str(path))
    layer = "expanded_conv_1_expand"
    np.testing.assert_array_equal(network.get_layer(layer).kernel, source.get_layer(layer).kernel)


@pytest.mark.parametrize("weights", ["imagnet", "weights/vgg16.h5", "/nowhere/vgg16.h5"])
def test_weights_that_are_not_there_are_refused_before_building(weights):
    with pytest.raises(MicrosegError, match="allowed: none, imagenet, or the absolute path") as caught:
        check(component(weights=weights), ARCHITECTURES, "model")
    assert weights in str(caught.value)


def test_weights_of_another_network_are_one_line(tmp_path):
    path = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Conv2D(2, 3)]).save_weights(path)
    with pytest.raises(
        MicrosegError, match=r"'mobilenet_v3_small': weights .* could not be loaded"
    ) as caught:
        load_encoder("mobilenet_v3_small", 2, str(path))
    assert "\n" not in str(caught.value)


def test_file_that_is_no_weights_file_is_one_line(tmp_path):
    path = tmp_path / "wrong.h5"
    path.write_text("no weights")
    with pytest.raises(MicrosegError, match="could not be loaded") as caught:
        load_encoder("mobilenet_v3_small", 2, str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", QUICK)
def test_failed_download_says_what_to_do(name, monkeypatch):
    def offline(*_, **__):
        raise Exception("URL fetch failure on https://example.org/weights.h5: None --\nno network")

    monkeypatch.setattr(file_utils, "get_file", offline)
    with pytest.raises(
        MicrosegError, match=r"URL fetch failure.*use weights: none, or the absolute path"
    ) as caught:
        load_encoder(name, 2, "imagenet")
    assert "\n" not in str(caught.value)


def test_unknown_encoder_is_refused_with_the_nearest_name():
    with pytest.raises(MicrosegError, match=r"'encoder' is 'resnet';.*did you mean 'resnet50'\? allowed:"):
        check(component(encoder="resnet"), ARCHITECTURES, "model")


def test_more_levels_than_the_encoder_has_are_refused():
    expected = "encoder 'convnext_tiny' has 4 levels, depth is 5; give at most 4"
    with pytest.raises(MicrosegError, match=expected):
        level_strides("convnext_tiny", 5)
    assert level_strides("convnext_tiny", None) == (4, 8, 16, 32)
    assert level_strides("vgg19", 3) == (1, 2, 4)
