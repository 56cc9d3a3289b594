"""One code path from image to mask: channels, the fold ensemble, refusals."""

import json

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from microseg.config import Component, TrialConfig
from microseg.data.preprocess import percentile
from microseg.errors import MicrosegError
from microseg.serving import segmenter as module
from microseg.serving.card import ModelCard, Tiling
from microseg.serving.masks import to_mask
from microseg.serving.segmenter import Segmenter
from microseg.tiling import Grid, predict_tiled


@pytest.fixture(scope="module")
def segmenter(build, tmp_path_factory):
    folder = tmp_path_factory.mktemp("grey") / "model"
    return Segmenter(build.save(folder, [build.network(1), build.network(2)], build.card()))


@pytest.fixture(scope="module")
def colour(build, tmp_path_factory):
    folder = tmp_path_factory.mktemp("colour") / "model"
    card = build.card(channels=3, classes=("background", "nucleus", "body"))
    return Segmenter(build.save(folder, [build.network(3, channels=3, classes=3)], card))


def test_an_image_of_one_tile_gives_the_mean_of_the_networks(segmenter, build, image):
    tile = image[:32, :32]
    prepared = percentile(tile)[None]
    members = [build.network(seed).predict_on_batch(prepared)[0] for seed in (1, 2)]
    probability = segmenter.probability(tile)
    assert probability.dtype == np.float32
    assert_allclose(probability, np.mean(members, axis=0), atol=1e-5)
    assert np.abs(members[0] - members[1]).max() > 0.1  # else one of them alone would pass


def test_a_larger_image_has_its_own_size_and_both_classes(segmenter, image):
    mask = segmenter.segment(image)
    assert mask.shape == image.shape[:2]
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 255}
    assert_array_equal(mask, segmenter.segment(image))


def test_the_halo_is_the_measured_one_or_half_the_overlap_of_validation(build, tmp_path, image):
    network, prepared = build.network(1), percentile(image)
    for tiling, halo in [(None, 4), (Tiling(halo=7, seam_mean=0.0, seam_worst=0.0), 7)]:
        card = build.card(tiling=tiling)
        assert card.halo == halo
        expected = predict_tiled(prepared, network.predict_on_batch, grid=Grid(32, halo, 8), batch_size=4)
        given = Segmenter(build.save(tmp_path / str(halo), [network], card)).probability(image)
        assert_allclose(given, expected, atol=1e-5)


def test_a_card_says_in_a_sentence_what_tiles_change(build):
    tiling = Tiling(halo=7, seam_mean=0.000123, seam_worst=0.045678)
    assert build.card().seams == ""
    assert build.card(tiling=tiling).seams == (
        "tiles of 32 pixels with a halo of 7 change a probability by 0.00012 on average and by 0.046 in 1 of 1000 "
        "pixels (measured on validation images)"
    )


def test_any_number_of_tiles_at_once_gives_the_same(build, tmp_path, image, monkeypatch):
    folder = build.save(tmp_path / "model", [build.network(1), build.network(2)], build.card())
    maps, masks = [], []
    for size in (1, 3, 16):
        monkeypatch.setenv("MICROSEG_BATCH_SIZE", str(size))
        segmenter = Segmenter(folder)
        maps.append(segmenter.probability(image))
        masks.append(segmenter.segment(image))
        assert_array_equal(segmenter.probability(image), maps[-1])
    for other in (1, 2):
        assert_allclose(maps[0], maps[other], atol=1e-5)
        assert_array_equal(masks[0], masks[other])


def test_the_number_of_tiles_is_measured_on_the_first_large_image_only(build, tmp_path, image, monkeypatch):
    sizes, measured = [], []

    def tiled(image, predict, *, grid, batch_size, fixed):
        sizes.append(batch_size)
        return np.zeros((*image.shape[:2], 1), np.float32)

    monkeypatch.delenv("MICROSEG_BATCH_SIZE", raising=False)
    monkeypatch.setattr(module, "predict_tiled", tiled)
    monkeypatch.setattr(module, "fastest_batch_size", lambda _, tile, room: measured.append(tile.shape) or 2)
    monkeypatch.setattr(module, "is_large", lambda shape, tile: shape[0] in (20, 50))
    segmenter = Segmenter(build.save(tmp_path / "model", [build.network(1)], build.card()))
    for height in (40, 20, 40, 50):  # a large image may be narrower than a tile
        segmenter.probability(image[:height])
    assert sizes == [4, 2, 4, 2]
    assert measured == [(32, 32, 1)]
    monkeypatch.setenv("MICROSEG_BATCH_SIZE", "5")
    Segmenter(tmp_path / "model").probability(image)
    assert sizes[4:] == [5]


def test_test_time_augmentation_turns_with_the_image(segmenter, image):
    square = image[:48, :48]
    plain, mean = segmenter.probability(square), segmenter.probability(square, tta=True)
    turned = segmenter.probability(np.rot90(square), tta=True)
    assert_allclose(np.rot90(mean)[12:-12, 12:-12], turned[12:-12, 12:-12], atol=1e-5)
    assert np.abs(mean - plain).max() > 0.05
    assert_array_equal(segmenter.segment(square, tta=True), to_mask(mean, segmenter.card.config.threshold))


def test_the_preprocessing_of_the_card_is_applied(build, tmp_path, image):
    config = TrialConfig(model=Component(name="unet"), preprocess=Component(name="scale"), tile=32)
    folder = build.save(tmp_path / "model", [build.network(1)], build.card(config=config))
    tile = image[:32, :32]
    expected = build.network(1).predict_on_batch(tile[None].astype(np.float32) / 255)[0]
    assert_allclose(Segmenter(folder).probability(tile), expected, atol=1e-5)


def test_a_16_bit_image_gives_what_its_8_bit_copy_gives(segmenter, image):
    assert_allclose(
        segmenter.probability(image.astype(np.uint16) * 257), segmenter.probability(image), atol=1e-5
    )


def test_a_grey_image_is_repeated_for_a_colour_model_and_reduced_for_a_grey_one(segmenter, colour, image):
    rgb = image.repeat(3, axis=-1)
    assert_array_equal(colour.segment(image), colour.segment(rgb))
    assert_array_equal(segmenter.segment(rgb), segmenter.segment(image))


def test_several_classes_give_class_indices(colour, image):
    mask = colour.segment(image)
    assert_array_equal(mask, colour.probability(image).argmax(axis=-1))
    assert set(np.unique(mask)) <= {0, 1, 2}
    assert len(np.unique(mask)) > 1


def test_objects_are_told_apart_as_the_card_says(build, tmp_path, image):
    networks = [build.network(1), build.network(2)]
    way = Component(name="components", params={"threshold": 0.5, "min_size": 30})
    stored = Segmenter(build.save(tmp_path / "stored", networks, build.card(instances=way)))
    plain = Segmenter(build.save(tmp_path / "plain", networks, build.card()))
    labels = plain.label(plain.probability(image))
    assert_array_equal(labels > 0, plain.segment(image) > 0)
    assert labels.dtype == np.int32
    sizes = np.bincount(labels.ravel())[1:]
    assert 0 < stored.label(stored.probability(image)).max() == (sizes >= 30).sum() < labels.max()


def test_without_a_stored_way_each_piece_of_a_class_is_an_object(colour):
    """Two classes side by side are two objects; a class that is only likelier than the others counts."""
    halves = np.zeros((4, 6, 3), np.float32)
    halves[:, :3] = 0.3, 0.4, 0.3
    halves[:, 3:] = 0.4, 0.2, 0.4
    halves[:, 3:5] = 0.1, 0.1, 0.8
    assert_array_equal(colour.label(halves), [[1, 1, 1, 2, 2, 0]] * 4)


def test_the_threshold_itself_is_foreground():
    assert to_mask(np.array([[[0.3], [0.29]]], np.float32), np.float32(0.3)).tolist() == [[255, 0]]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((5, 5), np.uint8), r"shape \(5, 5\); give \(height, width, channels\)"),
        (np.zeros((0, 5, 1), np.uint8), r"shape \(0, 5, 1\)"),
        (np.zeros((5, 5, 2), np.uint8), "2 channel.* the model 'cells' takes 1"),
        (np.arange(75, dtype=np.uint8).reshape(5, 5, 3), "3 channel.* the model 'cells' takes 1"),
        (np.full((5, 5, 1), np.nan, np.float32), "NaN or infinite"),
        (np.full((5, 5, 1), np.inf, np.float32), "NaN or infinite"),
        (np.zeros((5, 5, 1), complex), "type complex128"),
    ],
)
def test_an_image_that_cannot_be_used_is_refused_in_one_line(segmenter, array, words):
    with pytest.raises(MicrosegError, match=words) as caught:
        segmenter.probability(array)
    assert "\n" not in str(caught.value)


def test_the_card_comes_back_as_it_was_written(build, tmp_path):
    card = build.card(
        pixel_size_um=0.325,
        axes="CYX",
        precision="bfloat16",
        instances=Component(name="watershed"),
        tiling=Tiling(halo=7, seam_mean=1e-5, seam_worst=0.01),
    )
    card.write(tmp_path)
    assert ModelCard.read(tmp_path) == card


def test_a_directory_that_is_no_model_is_refused(build, tmp_path):
    with pytest.raises(MicrosegError, match=r"no card\.json; this is not a microseg model"):
        Segmenter(tmp_path)
    build.card().write(tmp_path)
    with pytest.raises(MicrosegError, match=r"no \*\.keras file"):
        Segmenter(tmp_path)
    (tmp_path / "fold-0.keras").write_bytes(b"not a network")
    with pytest.raises(MicrosegError, match=r"fold-0\.keras: not a network that can be loaded") as caught:
        Segmenter(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_card_of_another_version_is_refused_with_the_key(build, tmp_path):
    build.card().write(tmp_path)
    card = json.loads((tmp_path / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps(card | {"colour": "blue"}))
    with pytest.raises(MicrosegError, match=r"unknown key 'colour'.*use the microseg version that wrote it"):
        ModelCard.read(tmp_path)


def test_a_network_that_carries_code_is_refused(build, tmp_path):
    inputs = keras.Input((None, None, 1))
    evil = keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs))
    with pytest.raises(MicrosegError, match="not a network that can be loaded"):
        Segmenter(build.save(tmp_path / "model", [evil], build.card()))
