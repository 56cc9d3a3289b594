"""Objects from probability maps: split where they touch, whole where they do not, none lost."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal
from skimage.feature import peak_local_max

from microseg.components import check
from microseg.config import Component
from microseg.errors import MicrosegError
from microseg.instances import (
    INSTANCES,
    candidates,
    components,
    foreground_of,
    label_objects,
    search_instances,
    watershed,
)
from microseg.instances.methods import _flooded

Y, X = np.mgrid[:96, :96]


def disc(y, x, radius):
    return ((Y - y) ** 2 + (X - x) ** 2 <= radius**2).astype(np.float32)


TOUCHING = np.maximum(disc(48, 34, 16), disc(48, 62, 16))
ROD = np.zeros((96, 96), np.float32)
ROD[10, 5:80] = 1.0
ROD[86:89, 5:80] = 1.0


def probability(seed=0, size=64):
    return np.random.default_rng(seed).random((size, size), np.float32)


def test_touching_discs_are_one_component_and_two_basins():
    assert components(TOUCHING).max() == 1
    labels = watershed(TOUCHING)
    assert labels.max() == 2
    assert labels[48, 34] != labels[48, 62]
    assert_array_equal(labels > 0, TOUCHING > 0)
    assert abs(int((labels == 1).sum()) - int((labels == 2).sum())) < 40


@pytest.mark.parametrize("seeds", ["distance", "probability"])
@pytest.mark.parametrize("smoothing", [0.0, 1.0])
@pytest.mark.parametrize(
    ("shape", "objects"), [(disc(48, 48, 20), 1), (ROD, 2), (np.ones_like(ROD), 1), (np.zeros_like(ROD), 0)]
)
def test_round_thin_full_and_empty_maps(shape, objects, smoothing, seeds):
    """A rod's middle is a ridge of equal height: one seed, where peak_local_max sets one every few pixels."""
    labels = watershed(shape, smoothing=smoothing, seeds=seeds)
    assert labels.max() == objects
    assert_array_equal(labels > 0, shape >= 0.5)
    assert components(shape).max() == objects


def test_the_trap_that_seeds_of_our_own_avoid():
    from scipy import ndimage

    ridge = ndimage.distance_transform_edt(ROD > 0)
    assert len(peak_local_max(ridge, min_distance=5, exclude_border=False)) > 2
    assert len(peak_local_max(np.ones((9, 9)), exclude_border=False)) == 0


def test_a_thin_piece_beside_a_thick_one_is_kept():
    both = disc(48, 48, 16)
    both[48, 66:70] = 1.0  # apart from the disc, but within reach of its peak
    labels = watershed(both, min_distance=40)
    assert labels.max() == 2
    assert_array_equal(labels > 0, both > 0)


@pytest.mark.parametrize("apart", [2, 3, 4, 5])
def test_specks_of_equal_height_side_by_side_stay_apart(apart):
    """Their peaks lie within each other's reach and are grouped as those of a ridge are, if it is one piece."""
    specks = np.zeros((96, 96), np.float32)
    specks[40, 40] = specks[40, 40 + apart] = 1.0
    assert watershed(specks, min_distance=5).max() == 2


def test_a_part_of_an_image_is_divided_as_the_whole():
    """scikit-image floods equally high markers in an order that depends on all others of the image."""
    from skimage.segmentation import watershed as flood

    def divided(others):
        relief, markers = np.zeros((20, 9)), np.zeros((20, 9), np.int32)
        relief[0], markers[0, [1, 7]] = -1.0, (1, 2)
        for number in range(others):
            relief[2 + 2 * number, 0], markers[2 + 2 * number, 0] = -1.0 - number % 3, 3 + number
        return relief, markers, relief < 0

    theirs, ours = set(), set()
    for others in range(6):
        relief, markers, mask = divided(others)
        theirs.add(tuple(flood(relief, markers, np.ones((3, 3)), mask=mask)[0]))
        ours.add(tuple(_flooded(-relief, markers, mask)[0]))
    assert len(theirs) > 1
    assert len(ours) == 1


def test_seeds_are_grouped_through_their_own_piece_only():
    """A chain of specks between the ends of a dumbbell does not make one seed of both."""
    chain = np.zeros((96, 96), np.float32)
    for column in range(10, 40, 5):
        chain[20:23, column : column + 3] = 1.0
    handle = [(row, 9) for row in range(21, 40)] + [(40, column) for column in range(9, 24)]
    for step, (row, column) in enumerate(handle):  # lowest in the middle
        chain[row, column] = chain[row, 47 - column] = 0.95 - step / 100
    assert components(chain).max() == 5
    assert watershed(chain, seeds="probability", min_distance=5, smoothing=0.0).max() == 6


def test_an_object_is_one_connected_piece():
    """Two peaks in reach of each other are one seed; a third one's basin may part what they flood."""
    map_ = np.random.default_rng(32).random((24, 24), np.float32).round(1)
    labels = watershed(map_, min_distance=6, smoothing=0.0, seeds="probability")
    for label in range(1, labels.max() + 1):
        assert components((labels == label).astype(np.float32)).max() == 1


def test_a_dip_in_the_probability_splits_what_the_distance_does_not():
    bar = np.zeros((96, 96), np.float32)
    bar[40:56, 16:80] = 0.9 - 0.3 * np.exp(-((X[40:56, 16:80] - 48.0) ** 2) / 8)
    assert watershed(bar, seeds="distance").max() == 1
    labels = watershed(bar, seeds="probability", min_distance=5)
    assert labels.max() == 2
    assert len(set(labels[48, 16:45])) == 1


def test_twice_the_size_with_twice_the_lengths_gives_the_same_objects():
    small = np.maximum(TOUCHING, disc(84, 10, 6))
    large = small.repeat(2, axis=0).repeat(2, axis=1)
    for seeds in ("distance", "probability"):
        one = watershed(small, min_distance=6, smoothing=1.0, min_size=20, seeds=seeds)
        two = watershed(large, min_distance=12, smoothing=2.0, min_size=80, seeds=seeds)
        assert one.max() == two.max() > 1
        assert (one.repeat(2, axis=0).repeat(2, axis=1) != two).mean() < 0.01


def test_small_objects_go_and_the_others_are_numbered_anew():
    shape = np.maximum(disc(20, 20, 2), disc(60, 60, 15))
    size = int(disc(20, 20, 2).sum())
    for tell in (components, watershed):
        assert tell(shape, min_size=size).max() == 2
        labels = tell(shape, min_size=size + 1)
        assert set(np.unique(labels)) == {0, 1}
        assert labels[60, 60] == 1


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.float32, (12, 17), elements=st.floats(0, 1, width=32)),
    st.sampled_from(["components", "watershed"]),
    st.sampled_from([0.3, 0.5, 0.9]),
)
def test_labels_are_consecutive_and_cover_exactly_the_thresholded_map(map_, name, threshold):
    labels = label_objects(map_[..., None], Component(name=name, params={"threshold": threshold}))
    assert labels.dtype == np.int32
    assert labels.shape == map_.shape
    assert_array_equal(np.unique(labels[labels > 0]), np.arange(1, labels.max() + 1))
    assert_array_equal(labels > 0, map_ >= threshold)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_a_watershed_divides_components_and_never_joins_them(seed):
    map_ = probability(seed, 24)
    whole, split = components(map_), watershed(map_, min_distance=2)
    assert split.max() >= whole.max()
    for label in range(1, split.max() + 1):
        assert len(np.unique(whole[split == label])) == 1


def test_of_several_maps_all_but_the_background_are_foreground():
    map_ = np.dstack([1 - TOUCHING, TOUCHING * 0.4, TOUCHING * 0.6])
    np.testing.assert_allclose(foreground_of(map_), TOUCHING)
    assert label_objects(map_, Component(name="watershed")).max() == 2


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("watersched", {}, "unknown instances 'watersched'; did you mean 'watershed'"),
        ("watershed", {"min_distance": 0}, "parameter 'min_distance' is 0"),
        ("watershed", {"smoothing": -1.0}, "parameter 'smoothing' is -1.0"),
        ("watershed", {"seeds": "otsu"}, "parameter 'seeds' is 'otsu'"),
        ("components", {"threshold": 1.0}, "parameter 'threshold' is 1.0"),
        ("components", {"min_size": -1}, "parameter 'min_size' is -1"),
        ("components", {"seeds": "distance"}, "unknown parameter 'seeds'"),
    ],
)
def test_what_the_table_does_not_allow_is_one_line(name, params, words):
    with pytest.raises(MicrosegError, match=words) as caught:
        label_objects(TOUCHING[..., None], Component(name=name, params=params))
    assert "\n" not in str(caught.value)


def truth_of_touching():
    return np.where(TOUCHING > 0, np.where(X < 48, 1, 2), 0).astype(np.int32)


def test_the_search_finds_the_parameters_that_split_and_the_same_ones_again():
    truths = [truth_of_touching(), components(disc(30, 30, 16))]
    maps = [TOUCHING[..., None] * 0.9, disc(30, 30, 16)[..., None] * 0.9]
    chosen, score = search_instances(maps, truths, candidates(truths))
    assert chosen.name == "watershed"
    assert score == 1.0
    assert search_instances(maps, truths, candidates(truths)) == (chosen, score)
    plain = Component(name="components")
    # Of the three, the single disc is found, and so is the larger half of the pair: more than half of it.
    assert search_instances(maps, truths, [plain]) == (plain, pytest.approx(2 / 3))


def test_of_equal_candidates_the_simplest_comes_first_and_nothing_is_none():
    truth = components(disc(48, 48, 16))
    chosen, score = search_instances([disc(48, 48, 16)[..., None]], [truth], candidates([truth]))
    assert (chosen, score) == (Component(name="components", params={"threshold": 0.5}), 1.0)
    empty = np.zeros((9, 9), np.int32)
    assert search_instances([np.zeros((9, 9, 1), np.float32)], [empty], candidates([empty]))[1] == 1.0
    with pytest.raises(MicrosegError, match="0 ways to tell objects apart, 1 images"):
        search_instances([np.zeros((9, 9, 1), np.float32)], [empty], [])


def test_a_threshold_is_found_where_the_network_is_shy():
    truth = components(disc(48, 48, 16))
    chosen, score = search_instances([disc(48, 48, 16)[..., None] * 0.4], [truth], candidates([truth]))
    assert (chosen.params["threshold"], score) == (0.3, 1.0)


@pytest.mark.parametrize("radius", [3, 12, 30])
def test_the_candidates_fit_the_table_and_grow_with_the_objects(radius):
    tried = candidates([components(disc(48, 48, radius))])
    assert all(check(component, INSTANCES, "instances") for component in tried)
    assert len({component.model_dump_json() for component in tried}) == len(tried)
    distances = {c.params["min_distance"] for c in tried if c.name == "watershed"}
    assert max(distances) == pytest.approx(radius, abs=1)


def test_objects_are_told_apart_without_any_framework():
    code = "import sys, microseg.instances; print({'keras', 'tensorflow', 'mlflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
