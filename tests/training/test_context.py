"""How far a network looks and what its seams are, of networks whose answer is known."""

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from microseg import runtime
from microseg.tiling import Grid
from microseg.training.context import influence, measured_halo, seam_error, view


def convolution(kernel, maps=1):
    """One convolution with given weights, (height, width), then a sigmoid or softmax."""
    inputs = keras.Input((None, None, 1))
    activation = "sigmoid" if maps == 1 else "softmax"
    layer = keras.layers.Conv2D(maps, len(kernel), padding="same", activation=activation)
    network = keras.Model(inputs, layer(inputs))
    weights = np.zeros((*np.shape(kernel), 1, maps), np.float32)
    weights[..., 0, 0] = kernel  # the other classes are 0
    layer.set_weights([weights, np.zeros(maps, np.float32)])
    return network


def ring(radius, far):
    """Weights 1 in the middle and ``far`` in all, on the ring at a distance."""
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
    kernel[radius, radius] = 1.0
    kernel[0, :] = kernel[-1, :] = kernel[:, 0] = kernel[:, -1] = far / (8 * radius)
    return kernel


def images(count=2, side=40):
    return [np.random.default_rng(seed).random((side, side, 1), np.float32) for seed in range(count)]


def test_the_gradient_of_a_sum_of_squares_is_twice_the_input():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert_array_equal(runtime.input_gradient(lambda x: keras.ops.square(x), values), 2 * values)


@pytest.mark.parametrize("maps", [1, 3])
def test_the_influence_of_a_ring_is_its_share_of_the_weights(maps):
    shares = influence(convolution(ring(5, far=1.0), maps), images(side=32))
    assert shares.shape == (17,)
    assert_allclose(shares[[0, 5]], 0.5, rtol=1e-5)
    assert_allclose(np.delete(shares, [0, 5]), 0.0, atol=1e-7)


def test_the_halo_holds_99_percent_and_is_at_most_a_quarter_of_the_tile():
    def halo(*networks):
        return measured_halo(networks, images(), 32)

    assert halo(convolution(ring(5, far=0.1))) == 5
    assert halo(convolution(ring(5, far=0.005))) == 0
    assert halo(convolution(ring(12, far=0.1))) == 8
    # of an ensemble, the mean counts: half of 0.015 / 1.015 is less than 1 %
    assert halo(convolution(ring(5, far=0.015))) == 5
    assert halo(convolution(ring(5, far=0.015)), convolution(np.ones((1, 1)))) == 0


def test_a_network_without_a_gradient_has_the_largest_halo():
    assert measured_halo([convolution(np.zeros((3, 3)))], images(), 32) == 8


def test_a_halo_that_the_network_does_not_leave_has_no_seam_and_a_smaller_one_has():
    network, grid = convolution(ring(5, far=4.0)), Grid(32, 5)
    mean, worst = seam_error([network], images(), grid, batch_size=4)
    assert mean < worst < 1e-5
    mean, worst = seam_error([network], images(), grid._replace(halo=2), batch_size=4)
    assert 1e-4 < mean < 0.1 * worst


def test_the_members_probabilities_are_averaged_before_they_are_compared():
    member, grid = convolution(ring(5, far=4.0)), Grid(32, 2)
    alone = seam_error([member], images(), grid, batch_size=4)
    halved = seam_error([member, convolution(np.ones((1, 1)))], images(), grid, batch_size=4)
    assert_allclose(np.array(alone) / halved, 2.0, rtol=1e-2)


def test_a_view_is_the_middle_of_a_large_image_and_the_mirrored_whole_of_a_small_one():
    image = np.arange(35, dtype=np.float32).reshape(5, 7, 1)
    assert_array_equal(view(image, 3), image[1:4, 2:5])
    assert view(image, 6).shape == (6, 6, 1)
    assert_array_equal(view(image, 6)[:5], image[:, :6])
    assert_array_equal(view(image, 6)[5], image[4, :6])
