"""Distances between objects: by hand, against the plain definition, and where objects are not told apart."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from microseg.data.borders import border_distance, separate


def plain(objects):
    """Return d1 + d2 by its definition, in quarters of a pixel."""
    fields = [ndimage.distance_transform_edt(objects != number) for number in np.unique(objects[objects > 0])]
    fields += [np.full(objects.shape, 63.75)] * 2
    return np.rint(np.minimum(np.sort(fields, axis=0)[:2].sum(axis=0), 63.75) * 4)


def test_between_two_objects_it_is_the_width_of_the_gap():
    objects = np.zeros((9, 20), np.int32)
    objects[:, :5], objects[:, 9:] = 1, 2
    assert border_distance(objects)[4, 5:9].tolist() == [20, 20, 20, 20]  # 1 + 4, 2 + 3, ... pixels
    assert border_distance(objects)[4, 4] == 20 and border_distance(objects)[4, 0] == 36


def test_without_a_second_object_it_is_far_everywhere():
    objects = np.zeros((30, 30), np.int32)
    assert (border_distance(objects) == 255).all()
    objects[10:20, 10:20] = 7
    assert (border_distance(objects) == 255).all()


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_it_equals_the_definition(seed):
    rng = np.random.default_rng(seed)
    objects = np.zeros((90, 110), np.int32)
    for number in range(1, rng.integers(1, 9)):
        y, x = rng.integers(0, 85), rng.integers(0, 105)
        objects[y : y + rng.integers(1, 30), x : x + rng.integers(1, 30)] = number
    np.testing.assert_allclose(border_distance(objects), plain(objects), atol=1)


def test_regions_of_every_class_are_objects_and_ignored_pixels_are_not():
    target = np.array([[1, 1, 0, 2, 255], [0, 0, 0, 2, 255], [1, 0, 0, 1, 1]], np.uint8)
    objects = separate(target, 255)
    assert sorted(np.unique(objects)) == [0, 1, 2, 3, 4]
    assert (objects[:, 4] == [0, 0, objects[2, 3]]).all()
    assert len({objects[0, 0], objects[0, 3], objects[2, 0], objects[2, 3]}) == 4
