"""Encoders of keras.applications: published size, input of any channel count, weights and their failures."""

import keras
import numpy as np
import pytest

from microseg.components import check
from microseg.config import Component
from microseg.errors import MicrosegError
from microseg.models import ARCHITECTURES, build_model, encoders, stride
from microseg.models.encoders import ENCODERS, adapt


def component(**params):
    return Component(name="encoder_unet", params=params)


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def adapted(image, pretrained):
    inputs = keras.Input((None, None, image.shape[-1]))
    model = keras.Model(inputs, adapt(inputs, ENCODERS["vgg16"], pretrained))
    return keras.ops.convert_to_numpy(model(image)), model


@pytest.mark.parametrize("name", ENCODERS)
def test_levels_have_the_strides_of_the_table(name):
    row = ENCODERS[name]
    network = row.build(include_top=False, weights=None, input_tensor=keras.Input((None, None, 3)))
    for layer, step in zip(row.levels, row.strides, strict=True):
        output = network.get_layer(layer).output
        shape = keras.Model(network.inputs, output).compute_output_shape((1, 64, 64, 3))
        assert shape[1:3] == (64 // step, 64 // step)


def test_vgg16_unet_has_the_published_number_of_trainable_parameters():
    # Tiryaki et al. 2022, DOI 10.1002/cyto.a.24533: U-VGG16
    assert trainable(build_model(component(encoder="vgg16"), 3, 1)) == 25_858_497


def test_stride_follows_the_depth():
    assert [stride(component(depth=depth)) for depth in (2, 3, 4, 5)] == [2, 4, 8, 16]


def test_frozen_encoder_trains_only_the_decoder():
    free = build_model(component(depth=2, filters=2), 1, 1)
    frozen = build_model(component(depth=2, filters=2, freeze=True), 1, 1)
    assert free.count_params() == frozen.count_params()
    encoder = 3 * 64 * 9 + 64 + 64 * 64 * 9 + 64 + 64 * 128 * 9 + 128 + 128 * 128 * 9 + 128
    assert trainable(free) - trainable(frozen) == encoder


def test_pretrained_input_is_bgr_minus_the_imagenet_mean():
    image = np.array([0.25, 0.5, 1.0], np.float32).reshape(1, 1, 1, 3)
    expected = keras.applications.vgg16.preprocess_input(image * 255.0)
    np.testing.assert_allclose(adapted(image, pretrained=True)[0], expected, rtol=1e-5)


@pytest.mark.parametrize("pretrained", [False, True])
def test_grey_is_replicated_and_fixed(pretrained):
    grey = np.random.default_rng(0).random((1, 4, 4, 1), np.float32)
    output, model = adapted(grey, pretrained)
    colour, _ = adapted(np.repeat(grey, 3, axis=-1), pretrained)
    np.testing.assert_allclose(output, colour, rtol=1e-5)
    assert not model.trainable_weights


def test_other_channel_counts_are_projected_and_learned():
    image = np.random.default_rng(0).random((1, 4, 4, 5), np.float32)
    output, model = adapted(image, pretrained=False)
    np.testing.assert_allclose(output[..., 0], image.mean(axis=-1), rtol=1e-5)
    assert trainable(model) == 5 * 3 + 3


def test_weights_of_a_local_file_are_the_ones_used(tmp_path):
    source = keras.applications.VGG16(include_top=False, weights=None)
    source.save_weights(tmp_path / "vgg16.weights.h5")
    model = build_model(component(depth=2, filters=2, weights=str(tmp_path / "vgg16.weights.h5")), 1, 1)
    kernel = source.get_layer("block2_conv2").kernel
    np.testing.assert_array_equal(model.get_layer("vgg16").get_layer("block2_conv2").kernel, kernel)


@pytest.mark.parametrize("weights", ["imagnet", "weights/vgg16.h5", "/nowhere/vgg16.h5"])
def test_weights_that_are_not_there_are_refused_before_building(weights):
    with pytest.raises(MicrosegError, match="allowed: none, imagenet, or the absolute path") as caught:
        check(component(weights=weights), ARCHITECTURES, "model")
    assert weights in str(caught.value)


def test_file_that_is_no_weights_file_is_one_line(tmp_path):
    path = tmp_path / "wrong.h5"
    path.write_text("no weights")
    with pytest.raises(MicrosegError, match="could not be loaded") as caught:
        build_model(component(weights=str(path)), 3, 1)
    assert "\n" not in str(caught.value)


def test_failed_download_says_what_to_do(monkeypatch):
    def offline(**_):
        raise Exception("URL fetch failure on https://example.org/vgg16.h5: None --\nno network")

    monkeypatch.setitem(encoders.ENCODERS, "vgg16", ENCODERS["vgg16"]._replace(build=offline))
    with pytest.raises(
        MicrosegError, match=r"URL fetch failure.*use weights: none, or the absolute path"
    ) as caught:
        build_model(component(weights="imagenet"), 3, 1)
    assert "\n" not in str(caught.value)
