"""Near duplicates: copies that were changed are found, other cells and empty fields are not."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from microseg.data.audit import audit
from microseg.data.audit.likeness import NEAR, SAME, SIDE, TURNS, alike, details, thumbnail, turned
from microseg.data.images import read_image, write_image
from microseg.data.synthetic import draw_cells
from microseg.folds import Fold


def compress(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=40)
    return np.asarray(Image.open(buffer))


def resize(image):
    return np.asarray(Image.fromarray(image).resize((image.shape[1] * 3 // 4, image.shape[0] * 3 // 4)))


def noise(image):
    return np.clip(image + np.random.default_rng(0).normal(0, 10, image.shape), 0, 255).astype(np.uint8)


CHANGES = {
    "compressed": compress,
    "resized": resize,
    "noisy": noise,
    "darker": lambda image: (image * 0.5 + 20).astype(np.uint8),
    "blurred": lambda image: ndimage.gaussian_filter(image, 1),
    "mirrored": lambda image: image[:, ::-1],
    "turned": np.rot90,
    "cropped by 3 %": lambda image: image[1:-4, 3:-2],
}


def cells(seed, size=160):
    """An image of synthetic cells in 8 bits."""
    image, _ = draw_cells(size, 0, seed, 0)
    low, high = np.percentile(image, (0.1, 99.9))
    return np.clip((image.squeeze() - low) / (high - low) * 255, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def originals():
    return [cells(seed) for seed in range(8)]


def compare(images):
    thumbnails = np.stack([thumbnail(image[..., None]) for image in images])
    return alike(thumbnails, details(thumbnails))


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_found_and_nothing_else_is(originals, change):
    found = compare([*originals, *map(CHANGES[change], originals)])
    assert sorted(pair[:2] for pair in found) == [(index, index + 8) for index in range(8)]
    if change != "cropped by 3 %":
        assert np.median([pair.correlation for pair in found]) >= SAME


def test_the_orientation_is_told(originals):
    for turn in TURNS:
        (pair,) = compare([originals[0], turned(originals[0], turn)])
        assert turned(turned(originals[0], turn), pair.turn).tobytes() == originals[0].tobytes()


@pytest.mark.parametrize(
    "light", [lambda y, x: 1 + x / 4, lambda y, x: np.exp(-(x**2) - y**2)], ids=["tilted", "vignetted"]
)
def test_empty_fields_under_the_same_light_are_not_one_image(light):
    rng = np.random.default_rng(0)
    even = 100 * light(*np.mgrid[-1:1:256j, -1:1:256j])
    assert compare([even + rng.normal(0, 4, even.shape) for _ in range(20)]) == []


def test_images_without_structure_have_no_details():
    constant = np.full((2, SIDE, SIDE), 1234.5, np.float32)
    tilted = np.broadcast_to(np.linspace(0, 65535, SIDE, dtype=np.float32), (2, SIDE, SIDE))
    for pictures in (constant, tilted, np.zeros_like(constant)):
        assert not details(pictures).any()
        assert alike(pictures, details(pictures)) == []


@settings(max_examples=20, deadline=None)
@given(gain=st.floats(0.01, 100), offset=st.floats(-1000, 1000), seed=st.integers(0, 9))
def test_details_know_neither_brightness_nor_contrast(gain, offset, seed):
    picture = np.random.default_rng(seed).normal(100, 10, (1, SIDE, SIDE)).astype(np.float32)
    changed = (gain * picture + offset).astype(np.float32)
    np.testing.assert_allclose(details(changed), details(picture), atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(details(changed)), 1, rtol=1e-5)


@pytest.mark.parametrize("shape", [(64, 64), (128, 256), (1, 3), (100, 77)])
def test_a_thumbnail_averages_pixels_and_channels(shape):
    image = np.random.default_rng(0).integers(0, 2**16, (*shape, 3), dtype=np.uint16)
    small = thumbnail(image)
    assert (small.shape, small.dtype) == ((SIDE, SIDE), np.float32)
    if shape[0] % SIDE == shape[1] % SIDE == 0:
        np.testing.assert_allclose(small.mean(), image.mean(), rtol=1e-5)
        block = image[: shape[0] // SIDE, : shape[1] // SIDE]
        np.testing.assert_allclose(small[0, 0], block.mean(), rtol=1e-5)


def test_many_images_are_compared_block_by_block(monkeypatch, originals):
    images = [*originals, *(image[::-1] for image in originals)]
    whole = compare(images)
    monkeypatch.setattr("microseg.data.audit.likeness._ROWS", 3)
    assert compare(images) == whole and len(whole) == 8


@pytest.fixture
def folder(tmp_path, originals):
    """Six images of cells; ``copy`` is a compressed one of ``a``, ``near`` one of ``b``, cropped."""
    images = dict(zip("abcd", originals, strict=False))
    images |= {"copy": compress(originals[0]), "near": CHANGES["cropped by 3 %"](originals[1])}
    for name, image in images.items():
        write_image(tmp_path / "set/images" / f"{name}.png", image)
        write_image(
            tmp_path / "set/masks" / f"{name}.png",
            (image > np.percentile(image, 80 + ord(name[0]) % 7)).astype(np.uint8),
        )
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("train", "valid", "levels"),
    [
        ("a b c", "copy near d", ("refuse", "warn")),
        ("a b", "copy d", ("refuse", "warn")),  # near is in the hold-out
        ("a copy c", "b near d", ("note", None)),
        ("", "", ("warn", "note")),  # no folds yet
    ],
)
def test_copies_are_refused_and_likenesses_warned_of_where_a_fold_divides_them(
    opened, tmp_path, folder, train, valid, levels
):
    folds = [Fold(index=0, train=tuple(train.split()), valid=tuple(valid.split()))] if train else []
    found = {finding.check: finding for finding in audit(opened(folder), tmp_path / "cache", folds)}
    near = found.get("near_duplicate")
    assert (found["nearly_identical"].level, near and near.level) == levels
    assert found["nearly_identical"].items == ("a", "copy")
    for pair in near.pairs if near else ():
        assert {pair.one, pair.other} == {"b", "near"} and NEAR <= pair.correlation < SAME


def test_likenesses_within_a_group_are_what_groups_are_for(opened, tmp_path, folder):
    (folder / "manifest.csv").write_text("file,group\na,1\ncopy,1\nb,2\nnear,2\nc,3\nd,3\n")
    found = {finding.check: finding.level for finding in audit(opened(folder), tmp_path / "cache")}
    assert found["nearly_identical"] == "note" and "near_duplicate" not in found


@pytest.mark.parametrize("name", ["afm_astrocyte", "dsb2018_nuclei", "t98g_phase_usiigaci"])
def test_no_two_different_real_images_are_taken_for_copies(real_data, name):
    files = sorted(path for path in (real_data(name) / "images").iterdir())[:40]
    thumbnails = np.stack([thumbnail(read_image((file,), None)) for file in files])
    assert alike(thumbnails, details(thumbnails)) == []
