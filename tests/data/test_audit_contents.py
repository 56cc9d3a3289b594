"""What masks, objects and grey values give away."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from microseg.data.audit import audit
from microseg.data.audit.contents import robust_scores
from microseg.data.images import write_image


@pytest.fixture
def found(tmp_path, opened):
    """Return a function that writes images and masks and gives the findings of one check."""

    def run(check, images, masks, tile=None, **options):
        for index, (image, mask) in enumerate(zip(images, masks, strict=True)):
            write_image(tmp_path / f"set/images/{index:02d}x.png", image)
            write_image(tmp_path / f"set/masks/{index:02d}x.png", mask)
        findings = audit(opened(tmp_path / "set", **options), tmp_path / "cache", (), tile)
        return [finding for finding in findings if finding.check == check]

    return run


def grey(seed, low=50, high=150, shape=(32, 32)):
    return np.random.default_rng(seed).integers(low, high, shape, dtype=np.uint8)


def mask(*boxes, shape=(32, 32)):
    """A mask with an object, 1, 2, ..., per box of first row and column, height and width."""
    drawn = np.zeros(shape, np.uint8)
    for number, (row, column, height, width) in enumerate(boxes, 1):
        drawn[row : row + height, column : column + width] = number
    return drawn


def test_the_share_of_each_class(found):
    masks = [mask((0, 0, 16, 32), (16, 0, 8, 32)), mask((0, 0, 16, 32)), mask((0, 0, 16, 32))]
    images = [grey(seed) for seed in range(3)]
    (balance,) = found(
        "class_balance", images, masks, mask_kind="classes", classes=("none", "cell", "nucleus")
    )
    assert (
        balance.text
        == "foreground is 58.3% of the pixels that count: cell 50.0% in 3 images, nucleus 8.3% in 1 images"
    )
    (rare,) = found("rare_class", images, masks, mask_kind="classes", classes=("none", "cell", "nucleus"))
    assert (rare.level, rare.items) == ("warn", ("00x",)) and "nucleus" in rare.text


def test_objects_longer_than_the_tile(found):
    masks = [mask((0, 0, 4, 30), (10, 0, 8, 8)), mask((0, 0, 8, 8))]
    (finding,) = found("object_size", [grey(0), grey(1)], masks, tile=16, mask_kind="instance")
    assert "1 of 3 objects are longer than the tile of 16 pixels (up to 30)" in finding.text
    assert found("object_size", [grey(0), grey(1)], masks, tile=32, mask_kind="instance") == []


@pytest.mark.parametrize(("side", "expected"), [(3, ["warn"]), (5, [])])
def test_objects_too_small_for_a_deep_network(found, side, expected):
    masks = [mask(*((8 * n, 8 * n, side, side) for n in range(3))) for _ in range(2)]
    masks[1][31, 0:12] = 9
    findings = found("object_size", [grey(0), grey(1)], masks, mask_kind="instance")
    assert [finding.level for finding in findings] == expected


def test_objects_of_binary_masks_are_connected_regions(found):
    diagonal = np.eye(32, dtype=np.uint8)
    (tiny,) = found("tiny_object", [grey(0), grey(1)], [diagonal, mask((0, 0, 2, 2))])
    assert tiny.text.startswith("1 objects have fewer than 9 pixels") and tiny.items == ("01x",)


def test_a_group_unlike_the_others(found):
    images = [grey(seed) for seed in range(6)] + [grey(6, 200, 250)]
    masks = [mask((seed, 0, 8, 8)) for seed in range(7)]
    (finding,) = found("group_statistics", images, masks)
    assert (finding.level, finding.items) == ("note", ("06x",))
    assert "1 of 7 images" in finding.text and "06x (brightness 0.88 against 0.39)" in finding.text


def test_inverted_contrast_is_seen_where_mean_and_spread_agree(found):
    """Bright cells on dark ground in all groups but one: the same grey values, the other way round."""
    masks = [mask((seed, seed, 16, 32)) for seed in range(7)]
    images = [np.where(drawn > 0, 150, 50).astype(np.uint8) + grey(0, 0, 20) for drawn in masks]
    images[3] = 220 - images[3]
    (finding,) = found("group_statistics", images, masks)
    assert "03x (contrast -" in finding.text


def test_alike_groups_and_few_groups_are_not_told_apart(found):
    same = [grey(seed) for seed in range(6)]
    assert found("group_statistics", same, [mask((seed, 0, 8, 8)) for seed in range(6)]) == []


def test_too_few_groups_have_no_outlier(found):
    images = [grey(0), grey(1), grey(2), grey(3, 200, 250)]
    assert found("group_statistics", images, [mask((seed, 0, 8, 8)) for seed in range(4)]) == []


def test_clipped_images(found):
    bright = np.clip(grey(0).astype(int) * 2, 0, 255).astype(np.uint8)
    (finding,) = found(
        "clipped",
        [bright, np.arange(1024, dtype=np.uint16).reshape(32, 32)],
        [mask((0, 0, 8, 8)), mask((1, 0, 8, 8))],
    )
    assert finding.items == ("00x",)


def test_masks_without_background_have_no_contrast(found):
    full = np.ones((32, 32), np.uint8)
    images = [grey(seed) for seed in range(5)] + [grey(5, 200, 250)]
    (finding,) = found("group_statistics", images, [full] * 6, mask_kind="classes", classes=("none", "cell"))
    assert finding.items == ("05x",)


@settings(max_examples=30, deadline=None)
@given(
    values=arrays.arrays(float, (7, 2), elements=st.floats(-1, 1)),
    scale=st.floats(0.1, 10),
)
def test_robust_scores_do_not_depend_on_the_unit(values, scale):
    np.testing.assert_allclose(
        robust_scores(values * scale, (0.01 * scale,) * 2),
        robust_scores(values, (0.01, 0.01)),
        rtol=1e-6,
        atol=1e-6,
    )


def test_robust_scores_of_known_values():
    """Median 3, median absolute deviation 1; a group without a value has no score."""
    scores = robust_scores(np.array([[1.0], [2.0], [3.0], [4.0], [np.nan], [103.0]]), [0.1])
    np.testing.assert_allclose(scores[[0, 2, 5], 0], np.array([-2, 0, 100]) / 1.4826)
    assert np.isnan(scores[4, 0])
    assert robust_scores(np.array([[1.0], [1.0], [1.0], [1.1]]), [0.5])[3, 0] == pytest.approx(0.2)
