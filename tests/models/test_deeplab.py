"""DeepLabv3+: output strides, any size that the stride divides, the pyramid's rates and its mean of the image."""

import keras
import numpy as np
import pytest

from microseg.components import check
from microseg.config import Component
from microseg.errors import MicrosegError
from microseg.models import ARCHITECTURES, build_model, stride

pytestmark = pytest.mark.usefixtures("small_encoder")


def small(**params):
    given = {"encoder": "small", "filters": 4, "low_level_filters": 2, **params}
    return Component(name="deeplab_v3_plus", params=given)


def predict(model, batch):
    return keras.ops.convert_to_numpy(model(batch, training=False))


def images(height, width, channels=1):
    return np.random.default_rng(0).random((1, height, width, channels), np.float32)


def atrous_rates(model):
    """Return the rates of the pyramid's depthwise convolutions, which the encoder's are not among."""
    depthwise = [layer for layer in model.layers if isinstance(layer, keras.layers.DepthwiseConv2D)]
    return [layer.dilation_rate[0] for layer in depthwise if layer.dilation_rate != (1, 1)]


@pytest.mark.parametrize("output_stride", [8, 16])
def test_any_multiple_of_the_output_stride_is_taken(output_stride):
    params = small(output_stride=output_stride)
    assert stride(params) == output_stride
    model = build_model(params, 1, 2)
    for height, width in ((output_stride, 3 * output_stride), (5 * output_stride, 2 * output_stride)):
        assert predict(model, images(height, width)).shape == (1, height, width, 2)


def test_rates_are_given_for_stride_16_and_doubled_at_8():
    assert atrous_rates(build_model(small(), 1, 1)) == [6, 12, 18]
    assert atrous_rates(build_model(small(output_stride=8), 1, 1)) == [12, 24, 36]
    assert atrous_rates(build_model(small(rates=[2, 3]), 1, 1)) == [2, 3]


def test_the_mean_of_the_image_reaches_every_pixel():
    keras.utils.set_random_seed(0)
    model = build_model(small(output_stride=8, rates=[1], normalisation="none", activation="elu"), 1, 1)
    image = images(160, 160)
    brighter = image.copy()
    brighter[:, -8:, -8:] = 100.0  # far outside of what the convolutions of the first pixels see
    change = np.abs(predict(model, brighter) - predict(model, image))
    assert change[0, :8, :8].min() > 1e-6


def test_output_is_the_same_as_with_enlarged_features():
    keras.utils.set_random_seed(0)
    model = build_model(small(), 1, 3)
    *_, maps, enlarged, probability = model.layers
    features = keras.Model(model.inputs[0], maps.input)
    large = keras.layers.UpSampling2D(4, interpolation="bilinear")(features(images(32, 48)))
    expected = keras.ops.softmax(maps(large))
    assert isinstance(enlarged, keras.layers.UpSampling2D) and probability.name == "probability"
    np.testing.assert_allclose(predict(model, images(32, 48)), expected, rtol=1e-4, atol=1e-6)


def test_the_head_computes_in_float32_from_its_convolution_on():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build_model(small(), 1, 1)
    finally:
        keras.config.set_dtype_policy("float32")
    assert [layer.compute_dtype for layer in model.layers[-4:]] == ["bfloat16"] + ["float32"] * 3


def test_frozen_encoder_has_no_trainable_weights():
    model = build_model(small(freeze=2), 1, 1)
    assert not model.get_layer("small").trainable_weights
    assert model.trainable_weights


@pytest.mark.slow
@pytest.mark.parametrize(
    "encoder", ["xception", "resnet50", "efficientnet_b0", "densenet121", "convnext_tiny"]
)
def test_every_kind_of_encoder_fits(encoder, tmp_path):
    model = build_model(small(encoder=encoder, output_stride=16), 3, 1)
    batch = images(48, 80, 3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    assert predict(model, batch).shape == (1, 48, 80, 1)
    np.testing.assert_array_equal(predict(loaded, batch), predict(model, batch))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"output_stride": 4}, "'output_stride' is 4; Input should be 8 or 16"),
        ({"rates": []}, r"'rates' is \[\]; .*at least 1 item"),
        ({"rates": [0]}, r"'rates' is \[0\]; Input should be greater than or equal to 1"),
    ],
    ids=str,
)
def test_what_makes_no_pyramid_is_refused(params, message):
    with pytest.raises(MicrosegError, match=message):
        check(small(**params), ARCHITECTURES, "model")
