"""Images in strips: the numbers of one piece, whatever the format, the strips' width and what was interrupted."""

import csv
import shutil

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal
from skimage.measure import label

from microseg.config import Component
from microseg.data.images import read_labels, write_image
from microseg.data.streams import CHUNK, MaskStore, open_stream, stream_of
from microseg.errors import MicrosegError
from microseg.serving.batch import PredictOptions, folder, predict_folder, publish
from microseg.serving.batch import image as one_image
from microseg.serving.large import Plan, Wanted, job, memory, parts
from microseg.serving.segmenter import Segmenter
from microseg.serving.unlike import appearance

WATERSHED = Component(name="watershed", params={"min_distance": 4, "smoothing": 1.0, "min_size": 3})


@pytest.fixture(autouse=True)
def in_strips(monkeypatch):
    """Every image counts as large, and every batch has one shape."""
    monkeypatch.setattr(one_image, "SMALL", 0)
    monkeypatch.setenv("MICROSEG_BATCH_SIZE", "16")


@pytest.fixture
def use(build, tmp_path, monkeypatch):
    """Return a function that makes a model the registered one."""

    def used(maps=1, **changes):
        shutil.rmtree(tmp_path / "model", ignore_errors=True)
        network = build.network(1, classes=maps)
        directory = build.save(tmp_path / "model", [network], build.card(**changes))
        segmenter = Segmenter(directory)
        monkeypatch.setattr(folder, "load_segmenter", lambda uri: segmenter)
        return segmenter

    return used


def blobs(height, width, seed=0):
    """A grey image of bright blots, of which some lie on every seam between blocks."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 60, (height, width, 1), dtype=np.uint8)
    y, x = np.mgrid[:height, :width]
    image[((y // 9) % 3 > 0) & ((x // 11) % 3 > 0)] += 150
    return image


def predict(tmp_path, source, note=lambda text: None, **options):
    return predict_folder(
        "models:/any", str(source), str(tmp_path / "out"), PredictOptions(**options), note=note
    )


def read(path):
    """Return a mask of any format as (height, width)."""
    if path.suffix == ".png":
        return read_labels(path)
    with open_stream(path) as mask:
        height, width, _ = mask.shape
        return mask.read(slice(0, height), slice(0, width))[..., 0]


@pytest.fixture(scope="module")
def wide():
    """An image of two blocks across and a part of a third, one down and a part of another."""
    return blobs(CHUNK + 90, 2 * CHUNK + 70)


@pytest.mark.parametrize("form", ["png", "ome-tiff", "ome-zarr"])
@pytest.mark.parametrize("strip", [CHUNK, 8 * CHUNK])
def test_strips_give_what_one_piece_gives_in_every_format(use, wide, tmp_path, monkeypatch, form, strip):
    segmenter = use()
    monkeypatch.setattr(memory, "WIDEST", strip)
    tifffile.imwrite(tmp_path / "in.tif", wide[..., 0], tile=(256, 256))
    done = predict(tmp_path, tmp_path / "in.tif", format=form)
    assert done.failed == {} and done.resumed == {}
    (mask,) = (tmp_path / "out").iterdir()  # and nothing unfinished beside it
    assert str(mask) == done.masks[0]
    assert_array_equal(read(mask), segmenter.segment(wide))


@pytest.mark.parametrize("preprocess", ["scale", "zscore"])
def test_what_is_measured_on_the_whole_image_is_so_in_strips(use, tmp_path, build, preprocess):
    config = build.card().config.model_copy(update={"preprocess": Component(name=preprocess)})
    segmenter = use(config=config)
    image = blobs(CHUNK + 30, 90)
    image[:100] //= 3  # so that no part looks like the whole
    write_image(tmp_path / "in.tif", image)
    predict(tmp_path, tmp_path / "in.tif")
    assert_array_equal(read(tmp_path / "out" / "in.png"), segmenter.segment(image))


@pytest.mark.parametrize("instances", [WATERSHED, None])
def test_objects_in_blocks_are_those_of_one_piece(use, wide, tmp_path, instances):
    segmenter = use(instances=instances)
    tifffile.imwrite(tmp_path / "in.tif", wide[..., 0], resolution=(2e4, 2e4), resolutionunit="CENTIMETER")
    done = predict(tmp_path, tmp_path / "in.tif", instances=True, format="ome-tiff")
    assert done.failed == {}
    found, expected = read(tmp_path / "out" / "in.ome.tiff"), segmenter.label(segmenter.probability(wide))
    assert done.objects == found.max() == expected.max()
    pairs = np.unique(np.stack([found.ravel(), expected.ravel()]), axis=1)
    assert pairs.shape[1] == expected.max() + 1  # a renumbering
    with (tmp_path / "out" / "objects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    areas = np.bincount(expected.ravel())[1:]
    assert sorted(int(row["area_px"]) for row in rows) == sorted(areas.tolist())
    assert {row["image"] for row in rows} == {"in.tif"}
    assert float(rows[0]["area_um2"]) == pytest.approx(0.25 * float(rows[0]["area_px"]))


def test_a_stack_is_predicted_plane_by_plane_and_stays_a_stack(use, tmp_path):
    segmenter = use()
    planes = [blobs(60, 50, seed) // (seed + 1) for seed in range(3)]
    stack = np.stack(planes)[..., 0]
    tifffile.imwrite(tmp_path / "in.ome.tif", stack, metadata={"axes": "ZYX", "PhysicalSizeZ": 2.0})
    done = predict(tmp_path, tmp_path / "in.ome.tif")
    with tifffile.TiffFile(tmp_path / "out" / "in.ome.tiff") as file:
        assert file.series[0].axes == "ZYX"
        assert 'Name="in"' in file.ome_metadata
        assert_array_equal(file.asarray(), np.stack([segmenter.segment(plane) for plane in planes]))
    assert done.megapixels == pytest.approx(3 * 60 * 50 / 1e6)
    done = predict(tmp_path, tmp_path / "in.ome.tif", instances=True)
    expected = [int(segmenter.label(segmenter.probability(plane)).max()) for plane in planes]
    assert (done.failed, done.objects) == ({}, sum(expected)) and min(expected) > 0
    with (tmp_path / "out" / "objects.csv").open(newline="") as file:
        names = {row["image"] for row in csv.DictReader(file)}
    assert names == {f"in.ome.tif[z={z}]" for z in range(3)}


def test_an_interrupted_image_goes_on_where_it_stopped(use, tmp_path, monkeypatch):
    segmenter = use()
    image = blobs(3 * CHUNK, 40)
    write_image(tmp_path / "in.tif", image)
    written, write = [], MaskStore.write

    def interrupted(store, values, rows, columns, plane):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(rows)
        write(store, values, rows, columns, plane)

    monkeypatch.setattr(MaskStore, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict(tmp_path, tmp_path / "in.tif", format="ome-tiff")
    assert all(path.name.startswith(".") for path in (tmp_path / "out").iterdir())
    shares = []
    monkeypatch.setattr(MaskStore, "write", write)
    done = predict_folder(
        "models:/any", str(tmp_path / "in.tif"), str(tmp_path / "out"), PredictOptions(format="ome-tiff"),
        progress=lambda share, images: shares.append(share),
    )  # fmt: skip
    assert done.resumed == {str(tmp_path / "in.tif"): pytest.approx(2 / 3)}
    assert shares == [1.0, 1]
    assert_array_equal(read(tmp_path / "out" / "in.ome.tiff"), segmenter.segment(image))


@pytest.mark.parametrize("instances", [False, True])
def test_a_mask_that_could_not_be_put_at_its_place_is_not_predicted_again(
    use, tmp_path, monkeypatch, instances
):
    segmenter = use()
    image = blobs(CHUNK + 5, 40)
    write_image(tmp_path / "in.tif", image)

    def interrupted(mask, target):
        raise KeyboardInterrupt

    options = {"format": "ome-tiff", "instances": instances}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(publish, "write_ome_tiff", interrupted)
        predict(tmp_path, tmp_path / "in.tif", **options)
    with monkeypatch.context() as patch:
        patch.setattr(Segmenter, "rows", None)
        done = predict(tmp_path, tmp_path / "in.tif", **options)
    assert done.resumed == {str(tmp_path / "in.tif"): 1.0}
    assert_array_equal(read(tmp_path / "out" / "in.ome.tiff") > 0, segmenter.segment(image) > 0)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == ({"in.ome.tiff", "objects.csv"} if instances else {"in.ome.tiff"})


@pytest.mark.parametrize("change", ["", "image", "tta", "skip_flat"])
def test_what_was_begun_with_other_options_or_of_another_image_is_not_gone_on_with(
    use, tmp_path, monkeypatch, change
):
    segmenter, options = use(), {"tta": True, "skip_flat": 0.9}
    first, second = blobs(CHUNK + 8, 40), blobs(CHUNK + 8, 40, seed=1)
    write_image(tmp_path / "in.tif", first)
    predict_part = one_image.predict_part

    def fail(*given):
        predict_part(*given)
        raise MicrosegError("the disk is full")

    monkeypatch.setattr(one_image, "predict_part", fail)
    done = predict(tmp_path, tmp_path / "in.tif")
    assert done.failed == {str(tmp_path / "in.tif"): "the disk is full"}
    monkeypatch.setattr(one_image, "predict_part", predict_part)
    if change == "image":
        write_image(tmp_path / "in.tif", second)
    done = predict(tmp_path, tmp_path / "in.tif", **{change: options[change]} if change in options else {})
    assert done.resumed == ({} if change else {str(tmp_path / "in.tif"): 1.0})
    expected = segmenter.segment(second if change == "image" else first, tta=change == "tta")
    if change != "skip_flat":
        assert_array_equal(read(tmp_path / "out" / "in.png"), expected)


def test_flat_tiles_are_background_without_a_question(use, tmp_path, monkeypatch):
    segmenter = use(maps=3, classes=("cell", "other"))
    image = np.full((400, 300, 1), 200, np.uint8)
    image[:40, :40] = blobs(40, 40)
    write_image(tmp_path / "in.tif", image)
    asked = []
    plain = Segmenter._predict
    monkeypatch.setattr(
        Segmenter, "_predict", lambda self, batch: asked.append(len(batch)) or plain(self, batch)
    )
    predict(tmp_path, tmp_path / "in.tif", skip_flat=0.05)
    skipping, asked[:] = sum(asked), []
    mask = read(tmp_path / "out" / "in.png")
    assert (mask[100:, 100:] == 0).all()
    expected = segmenter.segment(image)
    assert_array_equal(mask[:20, :20], expected[:20, :20])
    assert skipping < sum(asked) / 3


def test_a_large_image_unlike_the_training_is_named(use, tmp_path):
    image = blobs(CHUNK, 300)
    use(appearance=appearance([image]), pixel_size_um=0.5)
    write_image(tmp_path / "same.tif", image)
    tifffile.imwrite(
        tmp_path / "other.tif", image[..., 0] // 8, resolution=(1e3, 1e3), resolutionunit="CENTIMETER"
    )
    assert predict(tmp_path, tmp_path / "same.tif").unlike == {}
    dim, coarse = predict(tmp_path, tmp_path / "other.tif").unlike[str(tmp_path / "other.tif")]
    assert dim.startswith("the image's values lie between")
    assert "a pixel is 10 um wide" in coarse


def test_the_bound_of_memory_is_told_beforehand_and_narrows_the_strips(use, wide, tmp_path):
    segmenter = use()
    images = [stream_of(wide, "wide"), stream_of(wide[:, :50], "narrow")]
    whole = memory.plan(segmenter, images[0], Wanted(), None)
    assert whole.strip == 3 * CHUNK and whole.batch_size == 16
    less = memory.plan(segmenter, images[0], Wanted(), whole.bound - 1)
    assert less.strip == 2 * CHUNK
    assert less.bound < whole.bound
    assert memory.plan(segmenter, images[1], Wanted(), None).strip == CHUNK
    with pytest.raises(
        MicrosegError, match=r"wide: the bound of memory is 0.09 GiB, .* give --max-memory .*GiB"
    ):
        memory.plan(segmenter, images[0], Wanted(), 10**8)
    notes = []
    write_image(tmp_path / "in.tif", wide[:50])
    predict(tmp_path, tmp_path / "in.tif", notes.append)
    notes.clear()
    write_image(tmp_path / "images" / "one.tif", wide[:50])
    write_image(tmp_path / "images" / "two.tif", wide[:50])
    predict(tmp_path, tmp_path / "images", notes.append)
    assert len(notes) == 1 and notes[0].startswith("memory: at most ")


@pytest.mark.parametrize("height", [None, CHUNK, 2 * CHUNK])
def test_parts_are_what_is_not_done_and_cover_it_once(tmp_path, height):
    like = stream_of(np.zeros((5 * CHUNK - 3, 2 * CHUNK + 5, 1), np.uint8), "like")
    store = MaskStore.open(tmp_path / "mask.ome.zarr", like, "uint8", {})
    done = slice(2 * CHUNK, 3 * CHUNK), slice(0, 2 * CHUNK)
    store.write(np.zeros((CHUNK, 2 * CHUNK), np.uint8), *done)
    plan = Plan(strip=2 * CHUNK, batch_size=1, resident=0, strips=0)
    count = np.zeros(store.shape, np.uint8)
    count[done] = 1
    for part in parts(store, plan, height):
        count[part.region] += 1
        assert part.region[0].stop - part.region[0].start <= (height or len(count))
    assert (count == 1).all()
    runs = [part.region[0] for part in parts(store, plan, height) if part.region[1].start == 0]
    if height is None:
        assert runs == [slice(0, 2 * CHUNK), slice(3 * CHUNK, 5 * CHUNK - 3)]


def test_a_mask_with_missing_blocks_is_not_put_at_its_place(use, tmp_path, monkeypatch):
    use()
    write_image(tmp_path / "in.tif", blobs(CHUNK + 5, 40))
    monkeypatch.setattr(one_image, "parts", lambda store, plan: list(parts(store, plan, CHUNK))[:1])
    done = predict(tmp_path, tmp_path / "in.tif", format="png")
    assert "1 of 2 blocks are missing; resume it" in done.failed[str(tmp_path / "in.tif")]
    assert not (tmp_path / "out" / "in.png").exists()


def test_slabs_of_any_heights_are_gathered_to_blocks():
    values = np.arange(2 * CHUNK + 7)[:, None]
    slabs = iter(np.split(values, [5, 6, CHUNK - 1, CHUNK + 900, 2 * CHUNK]))
    blocks = list(job._in_blocks(slabs, slice(CHUNK, 3 * CHUNK + 7)))
    assert [rows for rows, _ in blocks] == [
        slice(CHUNK, 2 * CHUNK), slice(2 * CHUNK, 3 * CHUNK), slice(3 * CHUNK, 3 * CHUNK + 7)
    ]  # fmt: skip
    assert_array_equal(np.concatenate([block for _, block in blocks]), values)


def test_a_png_holds_no_stack_and_no_image_beyond_its_limit(use, tmp_path, monkeypatch):
    use()
    tifffile.imwrite(
        tmp_path / "stack.tif", np.zeros((3, 40, 30), np.uint8), metadata={"axes": "TYX"}, imagej=True
    )
    done = predict(tmp_path, tmp_path / "stack.tif", format="png")
    assert list(done.failed.values()) == [
        "{'t': 3} planes, but a PNG holds one plane of at most 67108864 pixels; give --format ome-tiff or ome-zarr"
    ]
    import microseg.serving.batch.opening as opening

    monkeypatch.setattr(opening, "MOST_PIXELS", 1000)
    write_image(tmp_path / "big.png", np.zeros((40, 30), np.uint8))
    assert list(predict(tmp_path, tmp_path / "big.png").failed.values()) == [
        "30 x 40 pixels in a PNG, which is decoded as a whole: at most 1000 pixels; save it as tiled TIFF or "
        "OME-Zarr"
    ]


def test_pieces_of_a_mask_that_touch_across_blocks_are_one(use, tmp_path):
    """Without a stored way to tell objects apart, the mask itself is divided: by classes too."""
    segmenter = use(maps=3, classes=("cell", "other"))
    image = blobs(CHUNK + 40, CHUNK + 60)
    write_image(tmp_path / "in.tif", image)
    done = predict(tmp_path, tmp_path / "in.tif", instances=True, format="ome-zarr")
    expected = label(segmenter.segment(image), connectivity=2)
    (mask,) = [path for path in (tmp_path / "out").iterdir() if path.name != "objects.csv"]
    assert str(mask) == done.masks[0]
    assert done.objects == read(mask).max() == expected.max()


def test_an_image_whose_preprocessing_needs_all_of_it_is_predicted_in_one_piece(use, tmp_path, build):
    config = build.card().config.model_copy(
        update={"preprocess": Component(name="scale", params={"clahe": 4.0})}
    )
    segmenter = use(config=config)
    image = blobs(90, 120)
    write_image(tmp_path / "in.tif", image)
    predict(tmp_path, tmp_path / "in.tif")
    assert_array_equal(read(tmp_path / "out" / "in.png"), segmenter.segment(image))
    write_image(tmp_path / "in.tif", blobs(CHUNK + 1, 40))
    done = predict(tmp_path, tmp_path / "in.tif", max_memory="32GiB")
    assert "clahe equalises by parts of 1/8 of the whole image" in done.failed[str(tmp_path / "in.tif")]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["in.png"]


def test_images_of_one_size_fit_a_bound_alike(use, tmp_path):
    """What the strips of the first took does not count as the networks' when the second is planned."""
    segmenter = use()
    for name in "abc":
        write_image(tmp_path / "in" / f"{name}.tif", blobs(CHUNK + 8, 2 * CHUNK))
    stream = stream_of(blobs(CHUNK + 8, 2 * CHUNK), "a")
    bound = memory.plan(segmenter, stream, Wanted(encoding=4 * (CHUNK + 8) * 2 * CHUNK), None).bound
    notes = []
    done = predict(tmp_path, tmp_path / "in", notes.append, max_memory=f"{bound + 2**26}B")
    assert done.failed == {} and len(notes) == 1
