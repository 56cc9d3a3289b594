"""Labels made in blocks are the whole image's, up to their numbers; what may differ is said."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy import ndimage
from skimage import measure

from microseg.config import Component
from microseg.data.images import read_image
from microseg.errors import MicrosegError
from microseg.instances import Method, components, label_blocks, label_objects, method_of
from microseg.metrics import average_precision

EIGHT = np.ones((3, 3), bool)
WATERSHED = Component(name="watershed", params={"min_distance": 6, "smoothing": 1.0, "min_size": 20})
DISTANCE = {"min_distance": st.integers(1, 7), "smoothing": st.sampled_from([0.0, 0.5, 1.5])}
PARAMS = {"threshold": st.sampled_from([0.6, 0.75, 0.9]), "min_size": st.sampled_from([0, 4, 12])}
COMPONENTS = st.fixed_dictionaries(
    {"name": st.just("components"), "params": st.fixed_dictionaries(PARAMS)}
).map(Component.model_validate)
WATERSHEDS = st.fixed_dictionaries(
    {
        "name": st.just("watershed"),
        "params": st.fixed_dictionaries(
            PARAMS | DISTANCE | {"seeds": st.sampled_from(["distance", "probability"])}
        ),
    }
).map(Component.model_validate)


def ranked(field):
    """Return a map that is evenly spread over [0, 1), so that a threshold is a share of the pixels."""
    return (field.ravel().argsort().argsort().reshape(field.shape) / field.size).astype(np.float32)[..., None]


@st.composite
def blobs(draw):
    """Smooth random fields, also in steps, which have plateaus and equal peaks."""
    shape = draw(st.tuples(st.integers(1, 70), st.integers(1, 70)))
    noise = np.random.default_rng(draw(st.integers(0, 10_000))).random(shape)
    field = ndimage.gaussian_filter(noise, draw(st.sampled_from([0.7, 1.5, 2.5])))
    return ranked(field).round(1) if draw(st.booleans()) else ranked(field)


def same(one, other):
    """Whether two label maps differ in nothing but the numbers."""
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    nothing = bool((pairs == 0).all(axis=0).any())
    return pairs.shape[1] - nothing == np.count_nonzero(np.unique(one)) == np.count_nonzero(np.unique(other))


def in_blocks(probability, method, **sizes):
    labels = np.full(probability.shape[:2], -1, np.int32)
    return labels, label_blocks(probability, labels, method, **sizes)


def pieces_of(foreground):
    """Return the connected pieces and, by piece from 1, the larger one of height and width."""
    pieces, _ = ndimage.label(foreground, EIGHT)
    return pieces, [max(s.stop - s.start for s in found) for found in ndimage.find_objects(pieces)]


@settings(max_examples=60, deadline=None)
@given(blobs(), WATERSHEDS, st.integers(3, 40), st.integers(0, 25))
def test_every_object_that_is_not_reported_is_the_whole_images(probability, component, block, halo):
    whole = label_objects(probability, component)
    labels, (count, larger) = in_blocks(probability, method_of(component), block=block, halo=halo)
    assert_array_equal(np.unique(labels[labels > 0]), np.arange(1, count + 1))
    pieces, sizes = pieces_of(probability[..., 0] >= component.params["threshold"])
    reported = np.unique(pieces[np.isin(labels, larger)])
    assert all(sizes[piece - 1] > halo for piece in reported)
    exact = ~np.isin(pieces, reported)
    assert same(np.where(exact, whole, 0), np.where(exact, labels, 0))


@settings(max_examples=30, deadline=None)
@given(blobs(), COMPONENTS, st.integers(3, 40), st.integers(0, 25))
def test_connected_components_are_the_whole_images_at_any_size(probability, component, block, halo):
    whole = label_objects(probability, component)
    labels, (count, _) = in_blocks(probability, method_of(component), block=block, halo=halo)
    assert count == whole.max()
    assert same(whole, labels)


@pytest.mark.parametrize(("seeds", "seed"), [("distance", 0), ("probability", 2)])
def test_without_the_methods_reach_the_blocks_would_differ(seeds, seed):
    """A halo as large as the pieces is not enough: what lies beside them is smoothed into their relief."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).random((48, 60)), 0.8)
    probability = ranked(field)
    params = {"threshold": 0.85, "min_distance": 2, "smoothing": 8.0, "seeds": seeds}
    component = Component(name="watershed", params=params)
    whole, method = label_objects(probability, component), method_of(component)
    halo = max(pieces_of(probability[..., 0] >= 0.85)[1])
    for reach, equal in ((method.reach, True), (8, False)):
        labels, _ = in_blocks(probability, method._replace(reach=reach), block=12, halo=halo)
        assert same(whole, labels) == equal


def mosaic_on_seams(side, block):
    """Pairs of touching discs, all alike, on every crossing of seams and on the middle of every seam."""
    image = np.zeros((side, side), np.float32)
    y, x = np.mgrid[:side, :side]
    for row in range(0, side + 1, block // 2):
        for column in range(0, side + 1, block // 2):
            for shift in (-6, 6):
                image[(y - row - shift) ** 2 + (x - column - shift) ** 2 <= 64] = 1.0
    return image[..., None]


@pytest.mark.parametrize("seeds", ["distance", "probability"])
def test_objects_on_every_seam(seeds):
    probability = mosaic_on_seams(256, 64)
    component = Component(name="watershed", params=WATERSHED.params | {"seeds": seeds})
    whole = label_objects(probability, component)
    labels, (count, larger) = in_blocks(probability, method_of(component), block=64, halo=34)
    assert count == whole.max() > 81
    assert same(whole, labels)
    assert larger.size == 0


@pytest.mark.parametrize("name", ["components", "watershed"])
def test_real_nuclei_in_a_mosaic(real_data, name):
    folder = real_data("dsb2018_nuclei") / "masks"
    masks = [read_image([path])[..., 0] for path in sorted(folder.iterdir())[:40]]
    masks = [mask > 0 for mask in masks if mask.shape == (256, 256)][:9]
    foreground = np.block([masks[row : row + 3] for row in (0, 3, 6)])
    probability = ndimage.gaussian_filter(foreground.astype(np.float32), 1.0)[..., None]
    component = Component(name=name, params=WATERSHED.params if name == "watershed" else {"min_size": 20})
    whole = label_objects(probability, component)
    halo = max(pieces_of(probability[..., 0] >= 0.5)[1])
    labels, (count, larger) = in_blocks(probability, method_of(component), block=150, halo=halo)
    assert count == whole.max() > 100
    assert same(whole, labels)
    assert larger.size == 0


def test_what_is_larger_than_the_halo_is_whole_all_the_same_and_reported():
    probability = np.zeros((90, 90, 1), np.float32)
    probability[10:14, 5:85] = 1.0
    probability[40:50, 40:50] = 1.0
    for component in (Component(name="components"), Component(name="watershed")):
        labels, (count, larger) = in_blocks(probability, method_of(component), block=20, halo=12)
        assert count == 2
        assert_array_equal(larger, [labels[12, 40]])
        assert same(labels, components(probability[..., 0]))


def test_tissue_without_gaps_is_reported_and_its_seams_are_seldom_elsewhere():
    field = ndimage.gaussian_filter(np.random.default_rng(1).random((240, 240)), 5.0)
    tissue = (0.5 + (field - field.min())).astype(np.float32)[..., None]  # one piece, all foreground
    params = {"seeds": "probability", "smoothing": 0.0}
    whole = label_objects(tissue, Component(name="watershed", params=params))
    method = method_of(Component(name="watershed", params=params))
    labels, (count, larger) = in_blocks(tissue, method, block=60, halo=2)
    assert_array_equal(larger, np.arange(1, count + 1))
    assert count == pytest.approx(whole.max(), rel=0.03)
    assert average_precision([whole], [labels], (0.9,))["ap"] > 0.95


def test_a_snake_that_no_block_sees_connected_is_one():
    snake = np.zeros((41, 41), np.float32)
    snake[::4] = 1.0
    for number, row in enumerate(range(0, 40, 4)):
        snake[row : row + 4, -1 if number % 2 else 0] = 1.0
    labels, (count, larger) = in_blocks(
        snake[..., None], method_of(Component(name="components")), block=8, halo=0
    )
    assert (count, larger.tolist()) == (1, [1])
    assert_array_equal(labels > 0, snake > 0)


def test_pieces_that_share_little_of_a_seam_are_one():
    """One block sees the upper two of three bars joined, the other the first and the last."""
    combs = np.zeros((16, 40), np.float32)
    combs[1, 5:36] = combs[3:8, 5:26] = combs[9:14, 12:36] = 1.0
    combs[1:8, 5] = combs[1:14, 35] = 1.0
    labels, (count, _) = in_blocks(
        combs[..., None], method_of(Component(name="components")), block=20, halo=0
    )
    assert (count, components(combs).max()) == (1, 1)
    assert_array_equal(labels > 0, combs > 0)


def test_the_least_size_counts_the_pixels_of_all_blocks():
    probability = np.zeros((40, 40, 1), np.float32)
    probability[18:22, 18:22] = 1.0  # four pixels in each of four blocks
    probability[2:4, 2:5] = 1.0  # six pixels in one
    probability[19:21, 2:5] = 1.0  # six in two
    for least, count in ((6, 3), (7, 1), (16, 1), (17, 0)):
        method = method_of(Component(name="components", params={"min_size": least}))
        assert in_blocks(probability, method, block=20, halo=5)[1].objects == count


def test_classes_that_touch_are_told_apart_by_a_method_of_ones_own():
    classes = np.zeros((30, 30), int)
    classes[3:27, 3:15], classes[3:27, 15:27] = 1, 2
    probability = np.eye(3, dtype=np.float32)[classes]
    method = Method(lambda maps: measure.label(maps.argmax(axis=-1), connectivity=2))
    labels, (count, _) = in_blocks(probability, method, block=8, halo=4)
    assert count == 2
    assert same(classes, labels)


def test_only_a_block_and_its_margin_are_read_and_a_file_takes_the_labels(tmp_path):
    probability = mosaic_on_seams(256, 64)
    method = method_of(WATERSHED)
    most = 64 + 2 * (34 + method.reach)

    def read(rows, columns):
        assert rows.stop - rows.start <= most
        assert columns.stop - columns.start <= most
        return probability[rows, columns]

    path = tmp_path / "labels.npy"
    file = np.lib.format.open_memmap(path, "w+", np.uint32, (256, 256))
    stitched = label_blocks(read, file, method, block=64, halo=34)
    labels, (count, _) = in_blocks(probability, method, block=64, halo=34)
    assert stitched.objects == count
    assert_array_equal(np.load(path), labels)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"halo": -1}, "halo is -1; give the size of the largest object in pixels, at least 0"),
        ({"block": 0}, "block is 0; give the side of a block in pixels, at least 1"),
        ({"probability": np.zeros((20, 20))}, r"20 x 20 pixels was read as \(20, 20\); give an image of"),
        ({"probability": np.zeros((9, 20, 1))}, r"20 x 20 pixels was read as \(9, 20, 1\)"),
    ],
)
def test_what_does_not_fit_is_one_line(change, words):
    given_ = {"probability": np.zeros((20, 20, 1)), "method": Method(lambda maps: maps[..., 0])} | change
    with pytest.raises(MicrosegError, match=words) as caught:
        label_blocks(labels=np.zeros((20, 20), np.int32), **given_)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("block", [10, 64])
def test_more_objects_than_the_type_holds(block):
    dots = np.zeros((40, 40, 1), np.float32)
    dots[::2, ::2] = 1.0
    method = method_of(Component(name="components"))
    with pytest.raises(MicrosegError, match="400 objects, but labels of type uint8 end at 255; give int32"):
        label_blocks(dots, np.zeros((40, 40), np.uint8), method, block=block, halo=2)
