"""What the served model answers to each way of asking, called as the scoring server calls it."""

import base64
import io
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from microseg.data.images import write_image
from microseg.serving.pyfunc_model import SegmentationModel
from microseg.serving.request import BadRequest, Limits, decode, encode_npy, encode_png
from microseg.serving.unlike import appearance


@pytest.fixture(scope="module")
def model(build, image, tmp_path_factory):
    """A model that knows how its training images look and how wide their pixels are."""
    card = build.card(appearance=appearance([image]), pixel_size_um=0.5)
    served = SegmentationModel()
    folder = build.save(tmp_path_factory.mktemp("served") / "model", [build.network(1)], card)
    served.load_context(SimpleNamespace(artifacts={"model": str(folder)}))
    return served


@pytest.fixture(scope="module")
def text(image):
    return encode_png(image[..., 0])


def ask(model, **fields):
    (answer,) = model.predict([fields])
    return answer


def array_of(npy):
    return np.load(io.BytesIO(base64.b64decode(npy)))


def test_every_way_to_send_an_image_gets_the_same_mask(model, image, text, tmp_path, monkeypatch):
    write_image(tmp_path / "a.tif", image)
    monkeypatch.setattr(model, "limits", Limits(roots=(tmp_path.as_uri(),)))
    answers = model.predict(
        [
            {"image": text},
            {"image": encode_npy(image)},
            {"tensor": image.tolist(), "dtype": "uint8"},
            {"uri": (tmp_path / "a.tif").as_uri()},
        ]
    )
    assert len({answer.mask for answer in answers}) == 1
    assert decode(answers[0].mask).shape[:2] == image.shape[:2]
    assert [answer.warnings for answer in answers] == [[]] * 4


def test_arrays_come_as_npy_where_asked_for(model, text):
    png, npy = (ask(model, image=text, instances=True, format=name) for name in ("png", "npy"))
    for field in ("mask", "instances"):
        array = array_of(getattr(npy, field))
        assert array.ndim == 2
        assert_array_equal(array, decode(getattr(png, field))[..., 0])


def test_the_table_has_a_row_for_every_object_and_needs_no_label_image(model, text):
    answer = ask(model, image=text, table=True)
    count = decode(ask(model, image=text, instances=True).instances).max()
    assert answer.instances is None
    assert [row["label"] for row in answer.table] == list(range(1, count + 1))
    row = answer.table[0]
    assert row["area_um2"] == pytest.approx(0.25 * row["area_px"])
    assert ask(model, image=text).table is None


def test_test_time_augmentation_is_the_segmenters_own(model, image, text):
    plain, averaged = (
        array_of(ask(model, image=text, probability=True, tta=tta).probability) for tta in (False, True)
    )
    assert_array_equal(averaged, model.segmenter.probability(image, tta=True))
    assert (plain != averaged).any()


def test_a_pixel_size_of_the_request_measures_the_table_and_is_compared(model, text):
    answer = ask(model, image=text, table=True, pixel_size_um=2.0)
    assert answer.table[0]["area_um2"] == pytest.approx(4 * answer.table[0]["area_px"])
    (warning,) = answer.warnings
    assert "2 um wide" in warning and "4 times its size" in warning


def test_an_image_unlike_the_training_images_is_answered_with_a_warning(model, image):
    answer = ask(model, image=encode_npy(image.astype(np.float32) / 255))
    assert any("give the values as the training images stored them" in each for each in answer.warnings)
    assert decode(answer.mask).shape[:2] == image.shape[:2]


def test_a_model_of_unknown_images_warns_of_nothing(build, image, tmp_path):
    served = SegmentationModel()
    folder = build.save(tmp_path / "model", [build.network(1)], build.card())
    served.load_context(SimpleNamespace(artifacts={"model": str(folder)}))
    assert ask(served, image=encode_npy(image.astype(np.float32) / 255), pixel_size_um=9.0).warnings == []


def test_refusals_name_the_image_and_the_next_request_is_answered(model, image, text):
    noise = np.zeros((4, 4, 3), np.uint8)
    noise[0, 0, 0] = 9
    empty = io.BytesIO()
    np.save(empty, np.zeros((0, 5), np.uint8))
    bad = {
        "image with 3 channel(s); the model 'cells' takes 1": {"image": encode_png(noise)},
        "none of them zero": {"image": base64.b64encode(empty.getvalue()).decode()},
        "give (height, width, channels), none of them zero": {"tensor": [[[]]]},
        "NaN or infinite": {"image": encode_npy(np.full((4, 4), np.nan, np.float32))},
        "image with NaN": {"tensor": [[[float("nan")]]]},
        "reads no addresses": {"uri": "file:///etc/passwd"},
        "give file:///... or s3://...": {"uri": "http://127.0.0.1:5001/invocations"},
        "unknown key 'picture'": {"picture": text},
    }
    for words, fields in bad.items():
        with pytest.raises(BadRequest) as caught:
            model.predict([{"image": text}, fields])
        assert caught.value.message.startswith("image 2 of the request: ")
        assert words in caught.value.message
    assert ask(model, image=text).mask


def test_many_images_in_one_request_share_its_limit(model, image, text, monkeypatch):
    monkeypatch.setattr(model, "limits", Limits(pixels=2 * image[..., 0].size))
    assert len(model.predict([{"image": text}] * 2)) == 2
    with pytest.raises(BadRequest, match="image 3 of the request: more than 7000 pixels in one request"):
        model.predict([{"image": text}] * 3)
