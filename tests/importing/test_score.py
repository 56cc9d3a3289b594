"""Masks of an outside tool: found by name, read with one meaning, scored, kept, and compared."""

import json
import shutil
from types import SimpleNamespace

import mlflow
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from microseg import registry, storage
from microseg.data.images import read_labels, write_image
from microseg.data.options import DataOptions
from microseg.errors import MicrosegError
from microseg.folds import split_holdout, splits_file
from microseg.importing.masks import Meaning, match, meaning, open_truth, read_mask
from microseg.importing.scores import ScoreRequest, compare, rival, score, sentence
from microseg.registry import ImageScore, Meeting
from microseg.tracking import scores, store, tree

SIZE = 24
GROUPS = 6


def cells(count, seed=0):
    """A label map of squares that do not touch."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    corners = [(row, column) for row in (1, 9, 17) for column in (1, 9, 17)]
    for number in range(count):
        row, column = corners[(number + seed) % 9]
        mask[row : row + 6, column : column + 6] = number + 1
    return mask


TRUTH = {f"s{place % GROUPS}-{place}": cells(2 + place % 3, place) for place in range(12)}


def write(folder, masks, ending=".png"):
    """Write masks by name, changed by nothing."""
    for name, mask in masks.items():
        write_image(folder / f"{name}{ending}", mask)
    return folder


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A store of runs, a data set of twelve images in six sessions, and its masks alone."""
    folder = tmp_path_factory.mktemp("lab")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        patch.delenv(name, raising=False)
    patch.setenv("MICROSEG_HOME", str(folder / "home"))
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    write(folder / "cells" / "masks", TRUTH)
    write(folder / "cells" / "images", {name: mask * 20 for name, mask in TRUTH.items()})
    yield SimpleNamespace(
        folder=folder, data=folder / "cells", masks=folder / "cells" / "masks", client=store.connect()
    )
    mlflow.set_tracking_uri(None)
    patch.undo()


def ask(lab, prediction, name, **changes):
    options = {"mask_kind": "instance", "group_regex": r"^s\d"}
    values = {"truth": lab.data, "prediction": prediction, "name": name, "options": options}
    return ScoreRequest.model_validate(values | changes)


def shifted(by):
    return {name: np.roll(mask, by, axis=1) for name, mask in TRUTH.items()}


def test_the_truth_itself_has_perfect_scores_as_data_set_and_as_folder_of_masks(lab, tmp_path):
    predictions = write(tmp_path, TRUTH, "_cp_masks.png")
    whole = score(ask(lab, predictions, "perfect"))
    alone = score(ask(lab, predictions, "alone", truth=lab.masks))
    assert whole.table == alone.table
    assert [hashes.truth for hashes in whole.files] == [hashes.truth for hashes in alone.files]
    for one in whole.table:
        assert one.scores.pop("hausdorff95") == 0
        assert list(one.scores.values()) == pytest.approx([1.0] * 8), one
        assert set(one.scores) == {"dice", "iou", "mcc", "boundary_f1", "ap", "ap50", "ap75", "pq"}
    assert [one.group for one in whole.table] == [one.image.partition("-")[0] for one in whole.table]


def test_truth_and_predictions_are_read_from_s3(lab, tmp_path, s3_server, monkeypatch, called):
    for name, value in s3_server.variables.items():
        monkeypatch.setenv(name, value)
    s3_server.bucket("scores")
    storage.store_folder(lab.data, "s3://scores/sets/cells")
    storage.store_folder(write(tmp_path / "found", shifted(1), "_cp_masks.png"), "s3://scores/cellpose/cells")
    here = score(ask(lab, tmp_path / "found", "here"))
    options = ["--mask-kind", "instance", "--group-regex", r"^s\d"]
    for name, truth in (("there", "s3://scores/sets/cells"), ("masks", "s3://scores/sets/cells/masks")):
        arguments = ["--truth", truth, "--prediction", "s3://scores/cellpose/cells", "--name", name, *options]
        code, _, error = called("score", *arguments)
        assert code == 0, error
        there = scores.recorded(lab.client, name)
        assert (there.table, there.files) == (here.table, here.files)
    for truth, prediction in (
        ("s3://scores/none", "s3://scores/cellpose/cells"),
        (lab.data, "s3://scores/none"),
    ):
        code, _, error = called(
            "score", "--truth", truth, "--prediction", prediction, "--name", "none", *options
        )
        assert code == 2 and error.count("\n") == 1
        assert "s3://scores/none: no objects there; check the name, upper and lower case count" in error


def test_scores_are_kept_as_a_run_with_a_table_and_read_back_as_they_were(lab, tmp_path):
    done = score(ask(lab, write(tmp_path, shifted(1)), "kept"))
    (run,) = [run for run in lab.client.search_runs(["1"]) if run.data.tags.get(scores.NAME) == "kept"]
    assert (run.info.status, run.data.tags[tree.LEVEL], run.data.tags[tree.STATE]) == (
        "FINISHED",
        "score",
        "completed",
    )
    assert run.data.metrics["score/dice"] == pytest.approx(10 / 12)  # of 6 columns 5 overlap
    assert {"score/pq", "score_groups/dice"} <= set(run.data.metrics)
    assert "images.json" in run.data.tags["mlflow.loggedArtifacts"]
    back = scores.recorded(lab.client, "kept")
    assert (back.table, back.files) == (done.table, done.files)


def test_the_same_masks_are_kept_once_and_others_refused_under_that_name(lab, tmp_path):
    first, again = (score(ask(lab, write(tmp_path / "a", shifted(2)), "once")) for _ in range(2))
    assert (first.known, again.known) == (False, True)
    with pytest.raises(MicrosegError, match=r"'once' names other scores in .*; choose another --name"):
        score(ask(lab, write(tmp_path / "b", shifted(3)), "once"))
    assert (
        len([run for run in lab.client.search_runs(["1"]) if run.data.tags.get(scores.NAME) == "once"]) == 1
    )


def test_a_run_that_was_cut_short_is_not_found_but_gone_on_with(lab, tmp_path, monkeypatch):
    monkeypatch.setattr(type(lab.client), "log_dict", lambda *_: (_ for _ in ()).throw(RuntimeError("full")))
    with pytest.raises(RuntimeError, match="full"):
        score(ask(lab, write(tmp_path, shifted(1)), "cut"))
    monkeypatch.undo()
    with pytest.raises(MicrosegError, match="no scores are named 'cut' in "):
        scores.recorded(lab.client, "cut")
    assert score(ask(lab, tmp_path, "cut")).known is False
    (run,) = [run for run in lab.client.search_runs(["1"]) if run.data.tags.get(scores.NAME) == "cut"]
    assert run.info.status == "FINISHED"  # gone on with, not left behind


def test_foreground_alone_is_scored_where_masks_tell_no_objects_apart(lab, tmp_path):
    done = score(
        ask(
            lab, write(tmp_path, {name: (mask > 0) * np.uint8(255) for name, mask in TRUTH.items()}), "binary"
        )
    )
    assert {one.scores["dice"] for one in done.table} == {1.0}
    assert "ap50" not in done.table[0].scores
    assert done.notes == ("the predicted masks tell no objects apart: foreground is scored, objects are not",)


def test_missing_masks_are_refused_or_empty_and_extra_ones_do_not_count(lab, tmp_path):
    some = dict(list(TRUTH.items())[2:]) | {"stray": cells(3)}
    predictions = write(tmp_path, some)
    with pytest.raises(
        MicrosegError, match=r"no mask of 's0-0' \(2 of 12 are missing\); .* --missing-as-empty"
    ):
        score(ask(lab, predictions, "missing"))
    done = score(ask(lab, predictions, "missing", missing_as_empty=True))
    assert [one.image for one in done.table if one.scores["dice"] == 0] == ["s0-0", "s1-1"]
    assert done.notes == (
        "2 images have no predicted mask and count as empty ('s0-0')",
        "1 predicted masks have no truth here and do not count (stray.png)",
    )


def test_masks_of_another_size_are_refused(lab, tmp_path):
    with pytest.raises(MicrosegError, match=r"s0-0.png: 20 x 24 pixels, but the truth of 's0-0' has 24 x 24"):
        score(ask(lab, write(tmp_path, {name: mask[:, :20] for name, mask in TRUTH.items()}), "size"))


def test_the_hold_out_is_the_one_that_searches_have_set_aside(lab, tmp_path):
    request = ask(lab, write(tmp_path, TRUTH), "held", part="holdout")
    with pytest.raises(MicrosegError, match=r"no hold-out is known .* --part all"):
        score(request)
    truth = open_truth(lab.data, request.options, lab.folder / "home" / "cache")
    file = splits_file(truth, lab.folder / "home")
    assert not file.exists()  # none was drawn
    held = split_holdout(truth, 0.3, 1, file)[1]
    done = score(request)
    assert {one.image for one in done.table} == {item.name for item in held.items}
    assert 0 < len(done.table) < 12


def test_a_comparison_says_what_its_groups_allow(lab, tmp_path):
    near, far, jumpy = (tmp_path / name for name in ("near", "far", "jumpy"))
    uneven = {
        name: np.roll(mask, 2 * (place % 2), axis=1) for place, (name, mask) in enumerate(TRUTH.items())
    }
    a, b, c = (
        score(ask(lab, write(folder, masks), folder.name))
        for folder, masks in ((near, shifted(1)), (far, shifted(2)), (jumpy, uneven))
    )
    found = compare(a, b)
    assert (found.groups, found.images) == (6, 12)
    assert found.estimate == pytest.approx(1 / 6)
    assert sentence(a, b) == (
        "near less far: dice +0.1667 (95 % interval +0.1667 to +0.1667, 6 groups, 12 images): near is better"
    )
    assert sentence(b, a, "hausdorff95").endswith("near is better")  # a smaller distance is
    assert sentence(a, c).endswith("the two cannot be told apart")
    few = score(ask(lab, near, "few", options={"mask_kind": "instance", "group_regex": r"^s\d*[05]|^s"}))
    assert "cannot be decided with 3 groups, 6 are needed" in sentence(few, b)
    plain = score(ask(lab, near, "plain", options={"mask_kind": "instance"}))
    assert "12 images, each taken for a group of its own" in sentence(plain, b)
    with pytest.raises(MicrosegError, match="--metric 'dise' is not in both scores; did you mean 'dice'"):
        compare(a, b, "dise")
    other = scores.Scored("x", b.data, b.table, tuple(scores.FileHashes("0", "0") for _ in b.files))
    with pytest.raises(MicrosegError, match="'s0-0' has one truth in 'near' and another in 'x'"):
        compare(a, other)


@pytest.fixture(scope="module")
def version(lab):
    """A version about which the registry has decided twice, on eight of its images."""
    client, truth = (
        lab.client,
        open_truth(lab.data, ask(lab, lab.masks, "x").options, lab.folder / "home" / "cache"),
    )
    run = client.create_run("0", tags={"microseg.digest": truth.digest}).info.run_id
    client.create_registered_model("cells")
    client.create_model_version("cells", "somewhere", run)
    client.set_registered_model_alias("cells", "champion", "1")
    for use, reached in ((2, 0.1), (10, 0.75)):
        meeting = Meeting(
            name="cells", version=1, champion=None, hold_out="f" * 64, metric="dice", least=0.005
        )
        table = [
            ImageScore(image=item.name, group=item.group, champion=0.2, challenger=reached)
            for item in truth.items[:8]
        ]
        registry.record(client, run, registry.decide(meeting, table, use), table, "<html/>")
    return "models:/cells@champion"


def test_a_registered_version_is_met_on_the_hold_out_that_its_gate_used(lab, version, tmp_path):
    predictions = write(tmp_path, shifted(1))
    done = score(ask(lab, predictions, "rival"))
    other = rival(lab.client, version)
    assert {one.scores["dice"] for one in other.table} == {0.75}  # of the newest use
    assert rival(lab.client, "models:/cells/1").table == other.table
    found = compare(done, other)
    assert (found.images, found.groups) == (8, 4)
    assert found.estimate == pytest.approx(10 / 12 - 0.75)
    assert sentence(done, other) == (
        "rival less models:/cells@champion: dice +0.0833 over 4 groups, 8 images: "
        "cannot be decided with 4 groups, 6 are needed"
    )
    alone = score(ask(lab, predictions, "rival-alone", truth=lab.masks))
    with pytest.raises(MicrosegError, match="have other images or masks as their truth; give by --truth"):
        compare(alone, other)
    with pytest.raises(MicrosegError, match="--metric 'iou' is not in both scores; allowed: dice"):
        compare(done, other, "iou")


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("models:/cells", "names no version; write models:/NAME/3"),
        ("models:/cells/9", "there is no such version"),
        ("models:/cells@nobody", "there is no such version"),
        ("models:/cells/2", "version 2 has no scores on a hold-out, which microseg promote records"),
    ],
)
def test_a_version_without_scores_is_refused(lab, version, uri, said):
    if uri.endswith("2") and len(lab.client.search_model_versions("name = 'cells'")) < 2:
        lab.client.create_model_version("cells", "elsewhere", lab.client.create_run("0").info.run_id)
    with pytest.raises(MicrosegError, match=said) as caught:
        rival(lab.client, uri)
    assert "\n" not in str(caught.value)


def test_a_file_belongs_to_the_image_whose_name_it_has(lab, tmp_path):
    items = open_truth(lab.masks, DataOptions(mask_kind="instance"), tmp_path / "cache").items[:2]
    first, second = (item.name for item in items)
    write(tmp_path / "p", {first: cells(2), f"{second}_pred": cells(2), "other": cells(1)})
    found, extra = match(tmp_path / "p", items)
    assert {name: file.name for name, file in found.items()} == {
        first: f"{first}.png",
        second: f"{second}_pred.png",
    }
    assert [file.name for file in extra] == ["other.png"]
    write(tmp_path / "p", {f"{first}_cp_masks": cells(2), f"{second}_cp_masks": cells(2)})
    with pytest.raises(MicrosegError, match=f"both are of '{first}'; keep one, or choose by --suffix"):
        match(tmp_path / "p", items)
    assert {file.name for file in match(tmp_path / "p", items, "_cp_masks")[0].values()} == {
        f"{first}_cp_masks.png", f"{second}_cp_masks.png",
    }  # fmt: skip
    with pytest.raises(MicrosegError, match="no masks whose names end in '_none'"):
        match(tmp_path / "p", items, "_none")
    with pytest.raises(MicrosegError, match="absent: no such folder"):
        match(tmp_path / "absent", items)


def test_arrays_are_read_and_pickles_never_loaded(tmp_path):
    np.save(tmp_path / "mask.npy", cells(3).astype(np.int32))
    np.save(tmp_path / "bool.npy", cells(3) > 0)
    assert_array_equal(read_mask(tmp_path / "mask.npy"), cells(3))
    assert read_mask(tmp_path / "bool.npy").max() == 1
    np.save(tmp_path / "x_seg.npy", {"masks": cells(3)}, allow_pickle=True)  # what Cellpose writes
    np.save(tmp_path / "part.npy", np.full((4, 4), 0.5))
    np.save(tmp_path / "deep.npy", np.zeros((4, 4, 2), np.uint8))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "mask.npy").read_bytes()[:40])
    for name, said in {
        "x_seg.npy": "is a pickle, which may run any code",
        "part.npy": r"float64 of shape \(4, 4\); a mask is",
        "deep.npy": r"uint8 of shape \(4, 4, 2\)",
        "cut.npy": "no plain array",
    }.items():
        with pytest.raises(MicrosegError, match=said) as caught:
            read_mask(tmp_path / name)
        assert "\n" not in str(caught.value)


BINARY = {name: (mask > 0).astype(np.uint8) for name, mask in TRUTH.items()}
CLASSES = {name: np.where(mask > 1, 2, mask).astype(np.uint8) for name, mask in TRUTH.items()}
GREY = {
    name: (np.arange(SIZE * SIZE).reshape(SIZE, SIZE) * mask % 200).astype(np.uint8)
    for name, mask in TRUTH.items()
}


@pytest.mark.parametrize(
    ("truth", "kind", "predicted", "threshold", "expected"),
    [
        (BINARY, "binary", BINARY, None, Meaning()),
        (BINARY, "binary", TRUTH, None, Meaning()),  # a label map against foreground
        (BINARY, "binary", GREY, 100.0, Meaning(100.0)),
        (
            BINARY,
            "binary",
            GREY,
            None,
            "several values, which are no numbers of objects; state --prediction-threshold",
        ),
        (TRUTH, "instance", TRUTH, None, Meaning(objects=True)),
        (TRUTH, "instance", BINARY, None, Meaning()),
        (TRUTH, "instance", {name: mask * 0 for name, mask in TRUTH.items()}, None, Meaning(objects=True)),
        (CLASSES, "classes", CLASSES, None, Meaning(classes=True)),
        (CLASSES, "classes", TRUTH, None, "a value of 3, but the truth has the classes 0 to 2"),
        (CLASSES, "classes", CLASSES, 1.0, "the truth has classes, leave it out"),
    ],
)
def test_what_the_values_of_predictions_mean_is_decided_once_for_all(
    tmp_path, truth, kind, predicted, threshold, expected
):
    manifest = open_truth(write(tmp_path / "t", truth), DataOptions(mask_kind=kind), tmp_path / "cache")
    files = sorted(write(tmp_path / "p", predicted).iterdir())
    if isinstance(expected, Meaning):
        assert meaning(files, manifest, threshold) == expected
    else:
        with pytest.raises(MicrosegError, match=expected):
            meaning(files, manifest, threshold)


def test_a_jpeg_needs_a_threshold(lab, tmp_path):
    from PIL import Image

    Image.fromarray(BINARY["s0-0"] * 255).save(tmp_path / "s0-0.jpg")
    truth = open_truth(lab.data, DataOptions(mask_kind="instance"), tmp_path / "cache")
    with pytest.raises(
        MicrosegError, match=r"s0-0.jpg: a JPEG, whose values are blurred; state --prediction-threshold"
    ):
        meaning([tmp_path / "s0-0.jpg"], truth, None)
    assert meaning([tmp_path / "s0-0.jpg"], truth, 128) == Meaning(128)


def test_classes_are_scored_by_their_numbers(lab, tmp_path):
    options = {"mask_kind": "classes", "classes": ("background", "one", "more")}
    truth = write(tmp_path / "t", CLASSES)
    swapped = {name: np.choose(mask, [0, 2, 1]).astype(np.uint8) for name, mask in CLASSES.items()}
    right = score(ask(lab, write(tmp_path / "a", CLASSES), "classes", truth=truth, options=options))
    wrong = score(ask(lab, write(tmp_path / "b", swapped), "swapped", truth=truth, options=options))
    assert ({one.scores["dice"] for one in right.table}, {one.scores["dice"] for one in wrong.table}) == (
        {1.0},
        {0.0},
    )


def test_under_mlflow_run_its_run_is_the_one_that_keeps_the_scores(lab, tmp_path, monkeypatch):
    given = lab.client.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    score(ask(lab, write(tmp_path, shifted(4)), "project"))
    run = lab.client.get_run(given)
    assert (run.info.run_name, run.info.status) == ("project", "FINISHED")
    assert scores.recorded(lab.client, "project").table


@pytest.mark.parametrize(
    ("name", "kind"), [("t98g_phase_usiigaci", "instance"), ("dsb2018_nuclei", "instance")]
)
def test_real_masks_lose_what_was_taken_from_them(lab, real_data, tmp_path, name, kind):
    """Every second object is left out: half of them are found, and every pixel that is predicted is right."""
    for file in sorted((real_data(name) / "masks").iterdir())[:2]:
        (tmp_path / "truth").mkdir(exist_ok=True)
        shutil.copy(file, tmp_path / "truth")
        labels = read_labels(file)
        write_image(tmp_path / "half" / f"{file.stem}.tif", np.where(labels % 2, labels, 0))
    done = score(ask(lab, tmp_path / "half", name, truth=tmp_path / "truth", options={"mask_kind": kind}))
    for one in done.table:
        labels = read_labels(next((tmp_path / "truth").glob(f"{one.image}.*")))
        kept = np.unique(labels[labels % 2 == 1]).size / np.unique(labels[labels > 0]).size
        assert (one.scores["ap50"], one.scores["ap"]) == pytest.approx((kept, kept))
        assert one.scores["pq"] == pytest.approx(2 * kept / (1 + kept))
        share = (labels % 2 == 1).sum() / (labels > 0).sum()
        assert one.scores["dice"] == pytest.approx(2 * share / (1 + share))


def test_the_command_prints_the_means_and_the_comparison(lab, called, tmp_path):
    given = ["--truth", lab.data, "--mask-kind", "instance", "--group-regex", r"^s\d"]
    code, out, err = called(
        "score", *given, "--prediction", write(tmp_path / "a", shifted(1)), "--name", "tool-a"
    )
    assert (code, err) == (0, "")
    assert "over 12 images" in out and "over 6 groups" in out
    assert "recorded in MLflow as 'tool-a'" in out
    second = write(tmp_path / "b", shifted(2))
    out = called(
        "score", *given, "--prediction", second, "--name", "tool-b", "--against", "tool-a", "--metric", "iou"
    )[1]
    assert "tool-b less tool-a: iou -0.2143" in out  # 4/8 less 5/7
    assert "a comparison, not a promotion" in out
    before = len(lab.client.search_runs(["1"]))
    code, _, err = called("score", *given, "--prediction", second, "--name", "tool-c", "--against", "tool-x")
    assert (code, err.count("\n")) == (2, 1)
    assert "no scores are named 'tool-x'" in err and "did you mean 'tool-" in err
    assert len(lab.client.search_runs(["1"])) == before  # refused before anything was written


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"--truth": "nowhere"}, "nowhere: no such file or folder"),
        ({"--truth": "empty"}, "empty: no masks; give a data set, or a folder of masks"),
        ({"--prediction": "nowhere"}, "nowhere: no such folder"),
        ({"--part": "some"}, "score: part: Input should be 'all' or 'holdout'"),
        ({"--name": ""}, "score: name"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(lab, called, changes, said):
    (lab.folder / "empty").mkdir(exist_ok=True)
    given = {
        "--truth": lab.masks,
        "--prediction": lab.masks,
        "--name": "x",
        "--mask-kind": "instance",
    } | changes
    code, _, err = called("score", *(word for pair in given.items() for word in pair))
    assert code == 2
    assert said in err
    assert err.startswith("microseg: ") and err.count("\n") == 1


def test_the_table_opens_in_the_viewer_of_the_store(lab, tmp_path):
    score(ask(lab, write(tmp_path, shifted(5)), "viewer"))
    (run,) = [run for run in lab.client.search_runs(["1"]) if run.data.tags.get(scores.NAME) == "viewer"]
    (entry,) = json.loads(run.data.tags["mlflow.loggedArtifacts"])
    assert entry == {"path": "images.json", "type": "table"}
