"""Side outputs: full resolution, float32, a probability."""

import keras
import numpy as np
import pytest

from microseg.models.side_outputs import probability, side_output


@pytest.mark.parametrize("factor", [1, 4])
def test_a_side_output_of_constant_features_is_constant_at_full_resolution(factor):
    inputs = keras.Input((None, None, 2))
    model = keras.Model(inputs, side_output(inputs, 3, factor))
    logits = keras.ops.convert_to_numpy(model(np.ones((1, 5, 6, 2), np.float32)))
    assert logits.shape == (1, 5 * factor, 6 * factor, 3)
    inner = logits[:, 2 * factor : 3 * factor, 2 * factor : 4 * factor]  # away from the convolution's border
    np.testing.assert_allclose(inner, np.broadcast_to(inner[:, :1, :1], inner.shape), rtol=1e-5)
    assert np.unique(inner.round(5)).size == 3


def test_a_side_output_is_interpolated_not_repeated():
    inputs = keras.Input((None, None, 1))
    model = keras.Model(inputs, side_output(inputs, 1, 4))
    kernel = np.zeros((3, 3, 1, 1), np.float32)
    kernel[1, 1] = 1
    model.set_weights([kernel, np.zeros(1, np.float32)])
    step = keras.ops.convert_to_numpy(model(np.array([0, 1], np.float32).reshape(1, 1, 2, 1)))
    np.testing.assert_allclose(step[0, 0, :, 0], [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1])


@pytest.mark.parametrize(
    ("logits", "expected"), [([0.0], [0.5]), ([0.0, np.log(3.0)], [0.25, 0.75])], ids=["sigmoid", "softmax"]
)
def test_one_map_is_a_sigmoid_and_several_a_softmax(logits, expected):
    inputs = keras.Input((None, None, len(logits)))
    model = keras.Model(inputs, probability(inputs, "side"))
    answer = keras.ops.convert_to_numpy(model(np.asarray(logits, np.float32).reshape(1, 1, 1, -1)))
    np.testing.assert_allclose(answer.ravel(), expected, rtol=1e-6)


def test_side_outputs_are_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        inputs = keras.Input((None, None, 1), dtype="bfloat16")
        side = side_output(inputs, 1, 2)
        assert {side.dtype, probability(side, "side").dtype} == {"float32"}
    finally:
        keras.config.set_dtype_policy("float32")
