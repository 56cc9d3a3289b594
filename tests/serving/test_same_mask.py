"""One image, one mask: by `microseg predict`, in a notebook and over REST."""

import base64

import mlflow.pyfunc
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from microseg.data.images import read_labels, write_image
from microseg.serving.batch import PredictOptions, predict_folder
from microseg.serving.client import Client
from microseg.serving.request import decode
from microseg.serving.speed import BATCH_SIZE, is_large

MODEL = "models:/cells@champion"
GREY = ["grey", "colour", "deep", "deep_colour"]  # the same picture as cameras store it
FIXED = "3"  # tiles at once, of which the images here are no multiple


@pytest.fixture(scope="module")
def files(image, tmp_path_factory):
    """Image files by name: within a tile, in several that they do not fill, and many."""
    deep = image.astype(np.uint16) * 257
    arrays = {
        "grey": image,
        "colour": image.repeat(3, axis=-1),
        "deep": deep,
        "deep_colour": deep.repeat(3, axis=-1),
        "small": image[:20, :27],
        "large": np.tile(image, (11, 8, 1))[:530, :545],
    }
    assert [name for name, array in arrays.items() if is_large(array.shape, tile=32)] == ["large"]
    folder = tmp_path_factory.mktemp("same")
    for name, array in arrays.items():
        write_image(folder / f"{name}.png", array)
    return {name: folder / f"{name}.png" for name in arrays}


@pytest.fixture
def predict(registered, files, tmp_path):
    """Return a function: the mask that `microseg predict` writes."""

    def written(name, tta):
        predict_folder(MODEL, str(files[name]), str(tmp_path / "masks"), PredictOptions(tta=tta))
        return read_labels(tmp_path / "masks" / f"{name}.png")

    return written


@pytest.fixture
def notebook(registered, files):
    """Return a function: mask and probability that the loaded model answers."""
    model = mlflow.pyfunc.load_model(MODEL)

    def answered(name, form, tta):
        text = base64.b64encode(files[name].read_bytes()).decode()
        (answer,) = model.predict([{"image": text, "format": form, "probability": True, "tta": tta}])
        return decode(answer.mask)[..., 0], decode(answer.probability)

    return answered


@pytest.fixture
def fixed(monkeypatch):
    """Each model that is loaded from here on computes so many tiles at once."""
    monkeypatch.setenv(BATCH_SIZE, FIXED)


@pytest.fixture
def free(monkeypatch):
    """Each model that is loaded from here on chooses."""
    monkeypatch.delenv(BATCH_SIZE, raising=False)


@pytest.fixture(scope="module")
def fixed_server(model_server):
    with model_server(**{BATCH_SIZE: FIXED}) as running:
        yield Client(running.address)


@pytest.fixture(scope="module")
def free_server(model_server):
    with model_server(**{BATCH_SIZE: ""}) as running:
        yield Client(running.address)


@pytest.mark.parametrize("tta", [False, True], ids=["plain", "tta"])
def test_a_folder_and_a_notebook_have_the_same_mask(fixed, predict, notebook, tta):
    masks = [mask for name in GREY for mask in (predict(name, tta), notebook(name, "png", tta)[0])]
    assert set(np.unique(masks[0])) == {0, 255}
    for mask in masks[1:]:
        assert_array_equal(mask, masks[0])
    assert_array_equal(notebook("grey", "npy", tta)[0], masks[0])


@pytest.mark.slow  # a server of its own; test_rest.py compares one image by default
@pytest.mark.parametrize("tta", [False, True], ids=["plain", "tta"])
def test_all_three_ways_are_equal_bit_by_bit_where_the_batch_is_fixed(
    fixed, predict, notebook, fixed_server, files, tta
):
    for name, file in files.items():
        mask, probability = notebook(name, "npy", tta)
        assert set(np.unique(mask)) == {0, 255}
        assert_array_equal(predict(name, tta), mask)
        for form in ("png", "npy"):
            served = fixed_server.segment(file, format=form, probability=True, tta=tta)
            assert_array_equal(served.mask, mask)
            assert_array_equal(served.probability, probability)
            assert_array_equal(notebook(name, form, tta)[0], mask)


@pytest.mark.slow  # another server, which measures its own batch
@pytest.mark.parametrize("tta", [False, True], ids=["plain", "tta"])
def test_all_three_ways_are_equal_off_the_threshold_where_each_chooses_its_batch(
    free, predict, notebook, free_server, files, tta, monkeypatch
):
    monkeypatch.setenv(BATCH_SIZE, "1")
    ones = {name: predict(name, tta) for name in files}
    monkeypatch.delenv(BATCH_SIZE)
    for name, file in files.items():
        mask, probability = notebook(name, "npy", tta)
        settled = np.abs(probability[..., 0] - 0.5) > 1e-5
        assert settled.mean() > 0.99
        served = free_server.segment(file, probability=True, tta=tta)
        assert_allclose(served.probability, probability, rtol=0, atol=1e-5)
        for other in (predict(name, tta), served.mask, ones[name]):
            assert_array_equal(other[settled], mask[settled])
