"""Window attention against plain loops: windows, shift, padding and relative position bias."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from microseg.models.window_attention import WindowAttention, relative_positions


def attention(heads=1, window=2, shift=0, channels=4, seed=0):
    """Return a layer with a bias large enough to matter."""
    layer = WindowAttention(heads, window, shift)
    layer.build((None, None, None, 3 * channels))
    bias = np.random.default_rng(seed).normal(size=(heads, (2 * window - 1) ** 2))
    layer.set_weights([bias.astype(np.float32)])
    return layer


def features(height, width, channels=4):
    return np.random.default_rng(1).normal(size=(2, height, width, 3 * channels)).astype(np.float32)


def attend(layer, x):
    return keras.ops.convert_to_numpy(layer(x))


def in_one_window(first, second, window, shifts):
    return all((a - s) // window == (b - s) // window for a, b, s in zip(first, second, shifts, strict=True))


def by_loops(layer, x):
    """Attend from every position to every other of its window, one head and one pair at a time."""
    batch, height, width, channels = x.shape
    query, key, value = np.split(x.reshape(batch, height * width, channels), 3, axis=-1)
    bias, window, per_head = layer.get_weights()[0], layer.window, channels // 3 // layer.heads
    shifts = [layer.shift if side > window else 0 for side in (height, width)]
    places = [divmod(index, width) for index in range(height * width)]
    answer = np.zeros((batch, height * width, channels // 3))
    for head in range(layer.heads):
        part = slice(head * per_head, (head + 1) * per_head)
        for i, here in enumerate(places):
            near = [j for j, there in enumerate(places) if in_one_window(here, there, window, shifts)]
            offsets = [
                (here[0] - places[j][0] + window - 1) * (2 * window - 1)
                + (here[1] - places[j][1] + window - 1)
                for j in near
            ]
            scores = np.einsum("bc,bjc->bj", query[:, i, part], key[:, near, part]) / np.sqrt(per_head)
            weights = np.exp(scores + bias[head, offsets])
            weights /= weights.sum(axis=1, keepdims=True)
            answer[:, i, part] = np.einsum("bj,bjc->bc", weights, value[:, near, part])
    return answer.reshape(batch, height, width, -1)


@pytest.mark.parametrize(
    ("height", "width", "window", "shift"),
    [
        pytest.param(4, 6, 2, 0, id="plain"),
        pytest.param(4, 6, 2, 1, id="shifted"),
        pytest.param(6, 9, 3, 1, id="shifted-odd-window"),
        pytest.param(5, 7, 3, 0, id="padded"),
        pytest.param(5, 7, 3, 1, id="padded-shifted"),
        pytest.param(7, 8, 4, 2, id="padded-along-one-axis-shifted"),
        pytest.param(3, 6, 3, 1, id="one-window-along-one-axis"),
        pytest.param(1, 2, 4, 2, id="smaller-than-a-window"),
    ],
)
def test_it_is_attention_within_windows(height, width, window, shift):
    layer = attention(heads=2, window=window, shift=shift)
    x = features(height, width)
    np.testing.assert_allclose(attend(layer, x), by_loops(layer, x), rtol=1e-4, atol=1e-5)


def test_a_graph_of_unknown_size_gives_what_known_sizes_give():
    layer = attention(heads=2, window=3, shift=1)
    graph = tf.function(layer, input_signature=[tf.TensorSpec((None, None, None, 12))])
    for height, width in ((5, 7), (3, 6), (9, 1)):
        x = features(height, width)
        np.testing.assert_allclose(graph(x), attend(layer, x), atol=1e-6)


@pytest.mark.parametrize("pixel", [(0, 0), (0, 5), (7, 7), (3, 4)])
def test_nothing_is_attended_across_the_seam_of_a_shifted_map(pixel):
    layer, x = attention(window=4, shift=2), features(8, 8)
    changed = x.copy()
    changed[:, pixel[0], pixel[1]] += 1.0
    seen = np.abs(attend(layer, changed) - attend(layer, x)).max(axis=(0, 3)) > 1e-6
    expected = [[in_one_window(pixel, (r, c), 4, (2, 2)) for c in range(8)] for r in range(8)]
    np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize("offset", [(0, 0), (1, 0), (-1, 2)])
def test_the_bias_moves_attention_to_one_relative_position(offset):
    layer, x = attention(window=3), features(3, 3)
    bias = np.zeros((1, 25), np.float32)
    bias[0, (offset[0] + 2) * 5 + offset[1] + 2] = 1e4  # query minus key
    layer.set_weights([bias])
    here, there = (1, 2), (1 - offset[0], 2 - offset[1])
    value = x[..., 8:]
    np.testing.assert_allclose(attend(layer, x)[:, *here], value[:, *there], rtol=1e-5)


def test_relative_positions_by_hand():
    expected = [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    np.testing.assert_array_equal(relative_positions(2), expected)


def test_gradients_reach_the_bias_of_every_pair_and_no_other():
    layer, x = attention(heads=2, window=3), features(2, 3)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x) ** 2)
    (gradient,) = tape.gradient(loss, layer.trainable_variables)
    rows = np.abs(gradient.numpy()).sum(axis=0).reshape(5, 5)
    assert (rows[1:4] > 0).all()  # two rows of the window lie in the map: offsets of -1, 0 and 1
    assert (rows[[0, 4]] == 0).all()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_it_stays_near_float32_under_mixed_precision(policy):
    x = features(5, 7)
    exact = attend(attention(window=3, shift=1), x)
    keras.config.set_dtype_policy(policy)
    try:
        layer = attention(window=3, shift=1)
    finally:
        keras.config.set_dtype_policy("float32")
    answer = layer(x)
    assert keras.backend.standardize_dtype(answer.dtype) == policy.removeprefix("mixed_")
    np.testing.assert_allclose(np.asarray(keras.ops.cast(answer, "float32")), exact, atol=0.05)
