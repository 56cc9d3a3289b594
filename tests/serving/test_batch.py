"""Masks and objects for folders: names, failures that do not stop the others, remote folders."""

import csv
import os
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from microseg import storage
from microseg.data.images import read_labels, write_image
from microseg.data.streams import open_stream
from microseg.errors import MicrosegError
from microseg.serving.batch import PredictOptions, load_segmenter, predict_folder
from microseg.serving.batch import folder as module
from microseg.serving.batch.files import images_of
from microseg.serving.segmenter import Segmenter

OBJECTS = PredictOptions(instances=True)
CHAMPION = "models:/cells@champion"


@pytest.fixture
def folder(tmp_path, image):
    """Three images, a file that is no image, and a folder."""
    source = tmp_path / "images"
    write_image(source / "a.png", image)
    write_image(source / "b.tif", image[::-1].astype(np.uint16) * 257)
    write_image(source / "tiny.png", image[:1, :1])
    (source / "notes.txt").write_text("day 3")
    (source / "raw").mkdir()
    return source


def test_every_image_gets_a_mask_of_its_size_under_its_stem(registered, folder, image, tmp_path):
    counted = []
    summary = predict_folder(
        CHAMPION, str(folder), str(tmp_path / "out"), progress=lambda *count: counted.append(count)
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png", "tiny.png"]
    assert summary.masks == tuple(str(tmp_path / "out" / name) for name in ("a.png", "b.png", "tiny.png"))
    assert summary.skipped == (str(folder / "notes.txt"),)
    assert summary.failed == {}
    assert summary.megapixels == pytest.approx((2 * 70 * 50 + 1) / 1e6)
    assert summary.megapixels_per_second > 0
    assert counted == [(1, 3), (2, 3), (3, 3)]
    segmenter = load_segmenter(CHAMPION)
    assert_array_equal(read_labels(tmp_path / "out" / "a.png"), segmenter.segment(image))
    assert_array_equal(read_labels(tmp_path / "out" / "b.png"), segmenter.segment(image[::-1]))


def test_objects_are_numbered_in_the_masks_and_measured_in_one_table(registered, folder, image, tmp_path):
    summary = predict_folder(CHAMPION, str(folder), str(tmp_path / "out"), OBJECTS)
    segmenter = load_segmenter(CHAMPION)
    labels = segmenter.label(segmenter.probability(image))
    assert_array_equal(read_labels(tmp_path / "out" / "a.png"), labels)
    assert_array_equal(labels > 0, segmenter.segment(image) > 0)  # no parameters stored: the mask's pieces
    assert (tmp_path / "out" / "a.png").read_bytes()[24] == 16  # bits, in the PNG's header
    rows = list(csv.DictReader((tmp_path / "out" / "objects.csv").read_text().splitlines()))
    assert len(rows) == summary.objects
    assert [int(row["label"]) for row in rows if row["image"] == "a.png"] == list(range(1, labels.max() + 1))
    assert sum(float(row["area_px"]) for row in rows if row["image"] == "a.png") == (labels > 0).sum()
    assert "objects.csv" not in "".join(summary.masks)


def test_without_objects_the_table_has_its_header_alone(registered, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(Segmenter, "label", lambda self, given: np.zeros(given.shape[:2], np.int32))
    summary = predict_folder(CHAMPION, str(folder / "a.png"), str(tmp_path / "out"), OBJECTS)
    assert summary.objects == 0
    (line,) = (tmp_path / "out" / "objects.csv").read_text().splitlines()
    assert line.startswith("image,label,area_px,centroid_y,centroid_x,")


def test_more_objects_than_16_bits_hold_fail_alone(registered, folder, tmp_path, monkeypatch):
    many = {(50, 70): 70_000, (1, 1): 1}
    monkeypatch.setattr(
        Segmenter,
        "label",
        lambda self, given: np.full(given.shape[:2], many[given.shape[:2]], np.int32),
    )
    summary = predict_folder(CHAMPION, str(folder), str(tmp_path / "out"), OBJECTS)
    assert summary.failed[str(folder / "a.png")] == (
        "70000 objects, but a 16-bit label image holds 65535; cut the image up, or use 'microseg predict "
        "--format ome-tiff'"
    )
    assert [Path(mask).name for mask in summary.masks] == ["tiny.png"]


def interrupt_after(monkeypatch, count):
    """Let a run be interrupted when so many images are finished; return the images that it began."""
    begun = []
    predict_image = module.predict_image

    def interrupted(segmenter, image, *given):
        if len(begun) == count:
            raise KeyboardInterrupt
        begun.append(Path(image).name)
        return predict_image(segmenter, image, *given)

    monkeypatch.setattr(module, "predict_image", interrupted)
    return begun


@pytest.mark.parametrize("options", [PredictOptions(), OBJECTS])
def test_an_interrupted_run_goes_on_with_the_images_that_are_left(
    registered, folder, tmp_path, monkeypatch, options
):
    expected = predict_folder(CHAMPION, str(folder), str(tmp_path / "whole"), options)
    out, shares = tmp_path / "out", []
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, 2)
        predict_folder(CHAMPION, str(folder), str(out), options)
    part = out / ".objects.csv.part"
    part.write_bytes((part.read_bytes() if part.exists() else b"") + b"half-writ")  # a killed process's
    with monkeypatch.context() as patch:
        begun = interrupt_after(patch, 9)
        done = predict_folder(CHAMPION, str(folder), str(out), options, lambda *told: shares.append(told))
    assert begun == ["tiny.png"]
    assert done.resumed == {str(folder / name): 1.0 for name in ("a.png", "b.tif")}
    assert shares == [(3, 3)]
    assert (done.objects, done.failed) == (expected.objects, {})
    assert done.megapixels == pytest.approx(1e-6)
    if options.instances:
        assert (out / "objects.csv").read_text() == (tmp_path / "whole" / "objects.csv").read_text()
        assert not part.exists()
    for mask in expected.masks:
        assert_array_equal(read_labels(out / Path(mask).name), read_labels(Path(mask)))
    assert (
        predict_folder(CHAMPION, str(folder), str(out), options).resumed == {}
    )  # asked for again, done again


@pytest.mark.parametrize("change", ["options", "image", "mask", "list", "table"])
def test_after_any_change_all_images_are_predicted_anew(
    registered, folder, image, tmp_path, monkeypatch, change
):
    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, 2)
        predict_folder(CHAMPION, str(folder), str(out), OBJECTS)
    options = PredictOptions(instances=True, tta=change == "options")
    if change == "table":
        (out / ".objects.csv.part").unlink()
    if change == "image":
        write_image(folder / "a.png", image[::-1])
    if change == "mask":
        (out / "b.png").unlink()
    if change == "list":
        (out / module.FINISHED).write_text('{"digest": "fe')
    assert predict_folder(CHAMPION, str(folder), str(out), options).resumed == {}


def test_a_list_whose_last_line_is_torn_counts_up_to_it(registered, folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, 2)
        predict_folder(CHAMPION, str(folder), str(out))
    text = (out / module.FINISHED).read_text()
    (out / module.FINISHED).write_text(text[:-20])
    assert list(predict_folder(CHAMPION, str(folder), str(out)).resumed) == [str(folder / "a.png")]


@pytest.mark.parametrize("line", [b"\0" * 40 + b"\n", b'{"image": "a.png"}\n'])
def test_a_damaged_list_does_not_count(registered, folder, tmp_path, monkeypatch, line):
    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, 2)
        predict_folder(CHAMPION, str(folder), str(out))
    with (out / module.FINISHED).open("ab") as file:
        file.write(line)
    assert predict_folder(CHAMPION, str(folder), str(out)).resumed == {}


def test_objects_of_an_image_whose_mask_cannot_be_written_are_not_in_the_table(
    registered, folder, tmp_path, monkeypatch
):
    """Nor are those of an image that fails after its objects were measured."""
    store = storage.store

    def full(path, uri):
        if Path(uri).name == "b.png":
            raise OSError(28, "No space left on device", uri)
        store(path, uri)

    def measured_first(segmenter, image, target, options, table, watch):
        written = predict_image(segmenter, image, target, options, table, watch)
        if image.endswith("a.png"):
            raise MicrosegError("it failed after all")
        return written

    predict_image = module.predict_image
    monkeypatch.setattr(storage, "store", full)
    monkeypatch.setattr(module, "predict_image", measured_first)
    done = predict_folder(CHAMPION, str(folder), str(tmp_path / "out"), OBJECTS)
    assert done.failed == {
        str(folder / "a.png"): "it failed after all",
        str(
            folder / "b.tif"
        ): f"{tmp_path / 'out' / 'b.png'}: No space left on device; what is done is kept: run it again",
    }
    with (tmp_path / "out" / "objects.csv").open(newline="") as file:
        assert {row["image"] for row in csv.DictReader(file)} == {"tiny.png"}


def test_after_the_system_failed_the_same_command_does_what_is_left(
    registered, folder, tmp_path, monkeypatch
):
    store, out = storage.store, tmp_path / "out"

    def full(path, uri):
        if Path(uri).name == "b.png":
            raise OSError(28, "No space left on device", uri)
        store(path, uri)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "store", full)
        first = predict_folder(CHAMPION, str(folder), str(out), OBJECTS)
    assert list(first.failed) == [str(folder / "b.tif")]
    done = predict_folder(CHAMPION, str(folder), str(out), OBJECTS)
    assert list(done.resumed) == [str(folder / "a.png"), str(folder / "tiny.png")]
    whole = predict_folder(CHAMPION, str(folder), str(tmp_path / "whole"), OBJECTS)
    lines = [sorted((place / "objects.csv").read_text().splitlines()) for place in (out, tmp_path / "whole")]
    assert lines[0] == lines[1] and done.objects == whole.objects
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.png", "objects.csv", "tiny.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_one_line(registered, folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir(mode=0o500)
    with pytest.raises(MicrosegError, match="Permission denied; what is done is kept: run it again"):
        predict_folder(CHAMPION, str(folder), str(out))


def test_a_folder_of_object_storage_may_hold_nothing_but_zarr(monkeypatch):
    def nothing(uri):
        raise MicrosegError(f"{uri}: no objects there")

    monkeypatch.setattr(storage, "listing", nothing)
    monkeypatch.setattr(storage, "folders", lambda uri: [f"{uri}/a.ome.zarr", f"{uri}/notes"])
    assert images_of("s3://lab/in") == (["s3://lab/in/a.ome.zarr"], ())
    monkeypatch.setattr(storage, "folders", lambda uri: [f"{uri}/notes"])
    with pytest.raises(MicrosegError, match="no objects there"):
        images_of("s3://lab/in")


def test_two_runs_do_not_write_into_one_folder(registered, folder, tmp_path, monkeypatch):
    out, refused = tmp_path / "out", []
    predict_image = module.predict_image

    def meanwhile(*given):
        with pytest.raises(MicrosegError, match=r"out: another 'predict' writes there; wait for it, or give"):
            predict_folder(CHAMPION, str(folder), str(out))
        refused.append(True)
        return predict_image(*given)

    monkeypatch.setattr(module, "predict_image", meanwhile)
    assert len(predict_folder(CHAMPION, str(folder), str(out)).masks) == 3
    assert len(refused) == 3
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.png", "tiny.png"]


@pytest.mark.parametrize("form", ["ome-tiff", "ome-zarr"])
@pytest.mark.parametrize("instances", [False, True])
def test_small_images_are_written_in_every_format(registered, folder, tmp_path, form, instances):
    options = PredictOptions(format=form, instances=instances)
    done = predict_folder(CHAMPION, str(folder), str(tmp_path / "out"), options)
    assert [Path(mask).name for mask in done.masks] == [
        f"{stem}.{form.replace('-', '.')}" for stem in ("a", "b", "tiny")
    ]
    left = {path.name for path in (tmp_path / "out").iterdir()} - {"objects.csv"}
    assert left == {Path(mask).name for mask in done.masks}
    expected = load_segmenter(CHAMPION)
    with open_stream(Path(done.masks[0])) as mask:
        found = mask.read(slice(0, 50), slice(0, 70))[..., 0]
    with open_stream(folder / "b.tif") as stream:
        image = stream.read(slice(0, 50), slice(0, 70))[::-1] // 257
    image = image.astype(np.uint8)
    assert_array_equal(
        found, expected.label(expected.probability(image)) if instances else expected.segment(image)
    )


def test_one_file_is_as_good_as_a_folder(registered, folder, tmp_path):
    summary = predict_folder(CHAMPION, str(folder / "a.png"), str(tmp_path / "out"))
    assert [Path(mask).name for mask in summary.masks] == ["a.png"]


def test_an_image_that_cannot_be_used_is_named_and_the_others_are_done(registered, folder, image, tmp_path):
    whole = (folder / "a.png").read_bytes()
    (folder / "damaged.png").write_bytes(whole[: len(whole) // 2])
    write_image(folder / "colour.tif", np.concatenate([image, image // 2, image // 3], axis=2))
    summary = predict_folder(CHAMPION, str(folder), str(tmp_path / "out"))
    assert [Path(mask).name for mask in summary.masks] == ["a.png", "b.png", "tiny.png"]
    assert set(summary.failed) == {str(folder / "damaged.png"), str(folder / "colour.tif")}
    assert summary.failed[str(folder / "damaged.png")].startswith("damaged or incomplete file")
    assert "3 channel(s); the model 'cells' takes 1" in summary.failed[str(folder / "colour.tif")]
    assert all("\n" not in reason for reason in summary.failed.values())
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_images_come_from_and_masks_go_to_object_storage(registered, folder, tmp_path, monkeypatch):
    """The server's half is tested in test_storage; here a folder stands for the bucket."""
    monkeypatch.setenv("MICROSEG_HOME", str(tmp_path / "home"))
    bucket = tmp_path / "bucket"
    shutil.copytree(folder, bucket / "in")

    def local(uri):
        return bucket / uri.removeprefix("s3://lab/")

    def fetch(uri, into):
        into.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(local(uri), into))

    def store(path, uri):
        local(uri).parent.mkdir(exist_ok=True)
        shutil.copy(path, local(uri))

    monkeypatch.setattr(
        storage, "listing", lambda uri: [f"s3://lab/in/{name}" for name in ("a.png", "text.png", "tiny.png")]
    )
    (bucket / "in" / "text.png").write_text("no image")
    monkeypatch.setattr(storage, "fetch", fetch)
    monkeypatch.setattr(storage, "store", store)
    monkeypatch.setattr(storage, "state", lambda uri: "unchanged")
    monkeypatch.setattr(storage, "folders", lambda uri: [])
    summary = predict_folder(CHAMPION, "s3://lab/in", "s3://lab/out/")
    assert summary.masks == ("s3://lab/out/a.png", "s3://lab/out/tiny.png")
    assert summary.failed == {"s3://lab/in/text.png": "not a PNG, TIFF or JPEG file; save it as PNG or TIFF"}
    assert read_labels(bucket / "out" / "a.png").shape == (50, 70)


def test_what_would_lose_a_file_is_refused_before_the_model_is_loaded(folder, image, tmp_path):
    """The model named here does not exist: were it loaded first, the message would be about it."""
    absent = "models:/absent@champion"
    with pytest.raises(
        MicrosegError, match=r"images: the images lie there, masks would be taken for images; give another"
    ):
        predict_folder(absent, str(folder), f"{folder}/../{folder.name}")
    write_image(folder / "a.tif", image)
    with pytest.raises(MicrosegError, match=r"a\.\*: 2 images differ only in their suffix"):
        predict_folder(absent, str(folder), str(tmp_path / "out"))
    with pytest.raises(MicrosegError, match="no image among 1 file"):
        predict_folder(absent, str(folder / "notes.txt"), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    with pytest.raises(MicrosegError, match=r"notes\.txt: cannot be made .*; give a writable folder"):
        predict_folder(absent, str(folder / "tiny.png"), str(folder / "notes.txt"))


def test_a_model_that_is_not_there_or_not_ours_is_one_clear_line(registered, folder, tmp_path):
    absent = ("models:/absent@champion", "models:/cells@winner", "models:/cells/99", str(tmp_path / "none"))
    code = tmp_path / "other.py"
    code.write_text(
        "import mlflow\n"
        "class Other(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, model_input: list[str]) -> list[str]:\n"
        "        return model_input\n"
        "mlflow.models.set_model(Other())\n"
    )
    other = tmp_path / "other"
    mlflow.pyfunc.save_model(other, python_model=str(code), pip_requirements=["mlflow"])
    with pytest.raises(MicrosegError, match="not a microseg model; give one that 'microseg search'"):
        load_segmenter(str(other))
    for uri in absent:
        with pytest.raises(MicrosegError, match="cannot be loaded") as caught:
            load_segmenter(uri)
        assert str(caught.value).startswith(uri)
        assert "\n" not in str(caught.value)
