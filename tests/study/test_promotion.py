"""The challenger meets the champion: real networks, a real registry, images that no study saw."""

import itertools
import json
import shutil
from pathlib import Path
from unittest.mock import Mock

import keras
import mlflow
import numpy as np
import pytest
from mlflow.artifacts import download_artifacts
from mlflow.tracking import MlflowClient

from microseg import registry, report
from microseg import study as studies
from microseg.config import SearchConfig, TrialConfig
from microseg.data.images import read_image, read_labels, write_image
from microseg.data.options import DataOptions
from microseg.errors import MicrosegError
from microseg.registry import uses
from microseg.serving.batch import load_segmenter
from microseg.serving.card import ModelCard
from microseg.serving.packaging import log_candidate
from microseg.space import parse_space
from microseg.statistics import level
from microseg.study import promotion, provenance
from microseg.study.hold_out import hold_out, origin
from microseg.tracking import store
from microseg.tracking.tree import StudyRun

SIDE = 32
TRIAL = {
    "model": {"name": "unet"}, "preprocess": {"name": "scale"}, "tile": 32, "overlap": 0.0, "batch_size": 2,
}  # fmt: skip
COARSE, FINE = 120, 150  # cuts of the networks: haze is cell too, in part; and hardly ever


def write_images(folder, seed, groups=10, images=2):
    """Cells of 200 beside haze of 110 on black: Otsu's threshold takes the haze for cells."""
    rng = np.random.default_rng(seed)
    for group, number in itertools.product(range(groups), range(images)):
        labels = np.zeros((SIDE, SIDE), np.uint8)
        labels[4:13, 4 + group : 15 + group] = 1
        light = np.where(labels, 200, np.where(np.arange(SIDE) < 17, 110, 0)[:, None])
        light = np.clip(light + rng.normal(0, 8 + group, (SIDE, SIDE)), 0, 255).astype(np.uint8)
        write_image(folder / "images" / f"g{group}_{number}.png", light)
        write_image(folder / "masks" / f"g{group}_{number}.png", labels)
    return folder


def network(file, cut):
    """A pixel is a cell where it is brighter than the cut (of 255)."""
    inputs = keras.Input((None, None, 1))
    model = keras.Model(inputs, keras.layers.Conv2D(1, 1, activation="sigmoid")(inputs))
    model.layers[-1].set_weights([np.full((1, 1, 1, 1), 400.0), np.array([-400.0 * cut / 255])])
    model.save(file)
    return file


def card(**known):
    config = TrialConfig.model_validate(TRIAL)
    return ModelCard(study="s", trial="trial-000", config=config, channels=1, data_digest="", **known)


class Cut:
    """A served model without its network: what is above the cut is a cell."""

    def __init__(self, cut, classes):
        self.cut, self.card = cut, card(name="cells", classes=classes)

    def segment(self, image):
        return np.where(image[..., 0] >= self.cut, 255, 0).astype(np.uint8)


class Desk:
    """A registered model, and studies whose models are given rather than trained."""

    def __init__(self, client, name, data, run_id):
        self.client, self.name, self.data, self.run_id = client, name, data, run_id
        self.served: dict[str, Cut] = {}
        client.create_registered_model(name)

    def register(self, cut, classes=("cell",), run_id=None, **tags):
        """Return a new version of a study; by default of the one that all tests share."""
        run_id = run_id or self.run_id
        made = self.client.create_model_version(
            self.name, "file:///nowhere", run_id, tags, await_creation_for=0, description=f"It cuts at {cut}."
        )
        self.served[f"models:/{self.name}/{made.version}"] = Cut(cut, classes)
        return int(made.version)

    def hold_out(self, version):
        """The content hash of the images that the version's study kept back."""
        known = origin(self.client, self.client.get_model_version(self.name, str(version)))
        return registry.hold_out_digest(hold_out(known, None).held)

    def promote(self, version, least=0.005, data=None):
        return promotion.promote(self.client, self.name, version, least, data, lambda done, total: None)

    @property
    def champion(self):
        return registry.champion(self.name)

    def tags(self, version):
        return self.client.get_model_version(self.name, str(version)).tags


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("promotion")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MICROSEG_HOME", str(folder / "home"))
        patch.chdir(folder)
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        yield store.connect()
    mlflow.set_tracking_uri(None)  # as if it had never been set


def study(client, name, data, holdout=0.6, metric="val/dice"):
    """Write what a study leaves of its images; return its run."""
    config = SearchConfig(space=TRIAL, trials=1, asha=None, folds=2, holdout=holdout, metric=metric)
    options = DataOptions(group_regex=r"^(g\d+)_", mask_kind="binary")
    request = studies.Request(name=name, data=data, options=options, config=config)
    prepared = studies.divide(request, parse_space(config.space, "test"))
    tags = {"study": name, "level": "study", "metric": metric, "mode": "max", "folds": "2"}
    tags = {f"microseg.{key}": value for key, value in tags.items()}
    run_id = client.create_run("0", tags=tags, run_name=name).info.run_id
    provenance.record(client, StudyRun(run_id, "0", name), prepared)
    return run_id


@pytest.fixture(scope="module")
def shared(client, tmp_path_factory):
    """The images of all tests and the run of a study of them; the uses of its hold-out go on from test to test."""
    data = write_images(tmp_path_factory.mktemp("cells"), 0)
    return data, study(client, "shared", data)


@pytest.fixture
def desk(client, shared, monkeypatch):
    desk = Desk(client, f"cells-{len(client.search_registered_models())}", *shared)
    monkeypatch.setattr(promotion, "load_segmenter", desk.served.__getitem__)
    return desk


def decision_files(desk, version):
    run_id = desk.client.get_model_version(desk.name, str(version)).run_id
    return Path(download_artifacts(run_id=run_id, artifact_path=f"decisions/{desk.name}-{version}"))


def test_first_against_otsu_then_against_the_champion_and_all_is_recorded(desk):
    first = desk.promote(desk.register(COARSE))
    assert (first.champion, first.outcome, first.level) == (None, "promoted", level(first.use))
    second = desk.promote(desk.register(FINE))
    assert (second.champion, second.use, second.outcome, desk.champion) == (1, first.use + 1, "promoted", 2)
    assert (second.groups, second.images, second.metric) == (6, 12, "dice")
    tags = desk.tags(2)
    assert tags["microseg.decision"] == "promoted"
    assert float(tags["microseg.estimate"]) == pytest.approx(second.estimate, rel=1e-4)
    assert float(tags["microseg.low"]) == pytest.approx(second.low, rel=1e-4) and second.low > 0
    document = json.loads((decision_files(desk, 2) / f"decision-{second.use}.json").read_text())
    means = [group["challenger"] - group["champion"] for group in document["groups"]]
    assert np.mean(means) == pytest.approx(second.estimate) and len(means) == 6
    assert len(document["images"]) == 12
    page = (decision_files(desk, 2) / f"decision-{second.use}.html").read_text()
    assert second.about == (f"Version 2: It cuts at {FINE}.", f"Version 1: It cuts at {COARSE}.")
    assert all(sentence in page for sentence in second.about)
    assert page.count("data:image/png;base64,") == 3 and "<svg" in page and 'src="http' not in page


def test_what_is_judged_is_what_is_served(desk, monkeypatch, tmp_path):
    """A real network, registered: the score is the Dice of the mask that the model answers."""
    monkeypatch.setattr(promotion, "load_segmenter", load_segmenter)
    member = network(tmp_path / "fold.keras", FINE)
    version = log_candidate(card(name=desk.name, classes=("cell",)), [member], desk.run_id).version
    use = desk.promote(version).use
    segmenter = load_segmenter(f"models:/{desk.name}/{version}")
    document = json.loads((decision_files(desk, version) / f"decision-{use}.json").read_text())
    for score in document["images"][:3]:
        mask = segmenter.segment(read_image([desk.data / "images" / f"{score['image']}.png"])) > 0
        truth = read_labels(desk.data / "masks" / f"{score['image']}.png") > 0
        assert score["challenger"] == pytest.approx(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))


def test_the_same_decision_costs_one_use_and_another_question_a_second(desk):
    registry.promote(desk.name, desk.register(FINE))
    version = desk.register(COARSE)
    kept = desk.promote(version)
    assert (kept.outcome, desk.champion) == ("kept", 1)
    assert desk.promote(version) == kept
    assert desk.promote(version, least=0.001).use == kept.use + 1


def test_an_equal_model_is_not_promoted(desk):
    registry.promote(desk.name, desk.register(FINE))
    equal = desk.promote(desk.register(FINE))
    assert (equal.outcome, equal.estimate, desk.champion) == ("kept", 0.0, 1)
    assert (
        "is not shown to be better than version 1; version 1 stays champion" in registry.sentences(equal)[0]
    )


def test_a_gain_below_the_least_is_not_promoted(desk):
    registry.promote(desk.name, desk.register(COARSE))
    assert desk.promote(desk.register(FINE), least=0.9).outcome == "kept"
    assert desk.champion == 1


def test_fewer_than_six_groups_cannot_decide(desk, tmp_path):
    few = study(desk.client, "few", write_images(tmp_path, 1), holdout=0.5)
    decision = desk.promote(desk.register(FINE, run_id=few))
    assert (decision.outcome, decision.groups, decision.low) == ("undecided", 5, None)
    assert "cannot be decided with 5 groups; there is still no champion" in registry.sentences(decision)[0]
    assert desk.champion is None


def test_two_who_share_a_server_share_the_count_wherever_their_folders_are(desk, monkeypatch, tmp_path):
    before = desk.promote(desk.register(FINE)).use
    version = desk.register(COARSE)
    monkeypatch.setenv("MICROSEG_HOME", str(tmp_path / "a colleague's"))
    assert desk.promote(version).use == before + 1


def test_a_store_that_knows_nothing_does_not_make_an_old_hold_out_new(desk, monkeypatch, tmp_path):
    registry.count_use(desk.client, "d" * 64, "here", tmp_path)
    monkeypatch.setattr(uses, "EXPERIMENT", "of another server")
    assert registry.count_use(desk.client, "d" * 64, "there", tmp_path) == 2


def test_deleting_what_was_counted_does_not_undo_it(desk, tmp_path):
    registry.count_use(desk.client, "c" * 64, "first", tmp_path / "a")
    desk.client.delete_experiment(desk.client.get_experiment_by_name("microseg.hold-outs").experiment_id)
    assert registry.count_use(desk.client, "c" * 64, "second", tmp_path / "b") == 2


def test_forcing_moves_the_alias_with_its_reason_and_uses_no_hold_out(desk):
    before = desk.promote(desk.register(FINE)).use
    version, why = desk.register(COARSE), "the microscope was replaced"
    registry.force(desk.client, desk.name, version, why)
    assert desk.champion == version
    assert desk.tags(version)["microseg.decision"] == "forced"
    assert registry.history(desk.name)[-1].why == desk.tags(version)["microseg.why"] == why
    assert registry.rollback(desk.name).version == desk.champion == 1
    assert desk.promote(version).use == before + 1


class Killed(BaseException):
    """As a kill: nothing catches it."""


@pytest.mark.parametrize(("step", "paid"), [("count_use", 1), ("decide", 2), ("record", 2), ("succeed", 1)])
def test_a_kill_at_any_step_leaves_a_use_or_a_decision_but_no_free_look(
    desk, monkeypatch, tmp_path, step, paid
):
    """Killed right before a step; both attempts together pay one use, or two where the first was not recorded."""
    version = desk.register(FINE)
    before = registry.count_use(desk.client, desk.hold_out(version), "the test", tmp_path)

    def killed(*_, **__):
        raise Killed

    with monkeypatch.context() as broken, pytest.raises(Killed):
        broken.setattr(registry, step, killed)
        desk.promote(version)
    assert desk.champion is None
    assert desk.promote(version).use == before + paid
    assert desk.champion == version


def test_a_champion_that_came_meanwhile_is_met_first(desk, monkeypatch):
    version, rival = desk.register(FINE), desk.register(COARSE)
    original = registry.record

    def slow(*arguments):
        original(*arguments)
        registry.promote(desk.name, rival)

    with monkeypatch.context() as raced:
        raced.setattr(registry, "record", slow)
        with pytest.raises(MicrosegError, match=r"got another champion meanwhile .*; promote again"):
            desk.promote(version)
    assert desk.champion == rival
    assert desk.promote(version).champion == rival


def test_a_model_that_was_trained_on_the_hold_out_is_refused(desk, tmp_path):
    """The same images in another folder have no hold-out here: that study saw them all."""
    copied = shutil.copytree(desk.data, tmp_path / "copied")
    greedy = desk.register(FINE, run_id=study(desk.client, "greedy", copied, holdout=0.0))
    registry.promote(desk.name, greedy, "for the test")
    with pytest.raises(MicrosegError, match=r"version 1 was trained on 12 of the 12 images of the hold-out"):
        desk.promote(desk.register(FINE))
    assert desk.champion == greedy


def test_an_imported_network_is_judged_with_a_note(desk):
    decision = desk.promote(desk.register(FINE, **{"microseg.candidate": "imported"}))
    assert decision.notes == ("What version 1 was trained on is not known: perhaps these very images",)
    assert registry.sentences(decision)[-1] == decision.notes[0]


def test_what_cannot_be_judged_is_one_line_and_no_use(desk, tmp_path):
    everything = study(desk.client, "everything", write_images(tmp_path / "all", 2), holdout=0.0)
    with pytest.raises(MicrosegError, match=r"kept no images back \(holdout: 0\).*--force --why"):
        desk.promote(desk.register(FINE, run_id=everything))
    data = write_images(tmp_path / "cells", 3)
    version = desk.register(FINE, run_id=study(desk.client, "moved", data))
    moved = data.rename(tmp_path / "moved")
    with pytest.raises(MicrosegError, match=r"are not there; say by --data where they are"):
        desk.promote(version)
    mask = next((moved / "masks").iterdir())
    original = mask.read_bytes()
    write_image(mask, np.ones((SIDE, SIDE), np.uint8))
    with pytest.raises(MicrosegError, match="images or masks have changed since study"):
        desk.promote(version, data=moved)
    mask.write_bytes(original)
    assert desk.promote(version, data=moved).use == 1
    bare = desk.client.create_model_version(desk.name, "file:///nowhere", await_creation_for=0).version
    with pytest.raises(MicrosegError, match="comes from no study with images"):
        desk.promote(int(bare))
    gone = desk.client.create_model_version(
        desk.name, "file:///nowhere", "f" * 32, await_creation_for=0
    ).version
    with pytest.raises(MicrosegError, match="comes from no study with images"):
        desk.promote(int(gone))


def test_a_champion_of_other_classes_is_refused(desk):
    registry.promote(desk.name, desk.register(FINE, classes=("background", "cell", "debris")), "for the test")
    with pytest.raises(MicrosegError, match="version 2 tells cell apart, version 1 background, cell, debris"):
        desk.promote(desk.register(FINE))


def test_two_clients_at_once_never_both_have_the_lower_number(desk, monkeypatch, tmp_path):
    original = MlflowClient.set_experiment_tag
    numbers = []

    def with_a_rival(self, *arguments):
        original(self, *arguments)
        monkeypatch.setattr(MlflowClient, "set_experiment_tag", original)
        numbers.append(registry.count_use(desk.client, "f" * 64, "the rival", tmp_path / "b"))

    monkeypatch.setattr(MlflowClient, "set_experiment_tag", with_a_rival)
    numbers.append(registry.count_use(desk.client, "f" * 64, "the first", tmp_path / "a"))
    assert numbers == [2, 2]
    assert registry.count_use(desk.client, "f" * 64, "later", tmp_path / "a") == 3
    assert registry.count_use(desk.client, "e" * 64, "another hold-out", tmp_path / "a") == 1


def test_the_command_says_what_was_decided_and_its_exit_code_whether_it_serves(desk, called):
    desk.register(FINE)
    code, said, _ = called("promote", "--model", desk.name, "--version", "1")
    assert code == 0
    assert f"{desk.name}: version 1 is better than Otsu's threshold on the hold-out" in said
    assert f"{desk.name}: version 1 is now champion, the first" in said
    assert f"artifact decisions/{desk.name}-1/decision-" in said
    desk.client.set_registered_model_alias(desk.name, "candidate", str(desk.register(COARSE)))
    code, said, _ = called("promote", "--model", desk.name)
    assert code == 1
    assert "version 2 is not shown to be better than version 1; version 1 stays champion" in said
    code, said, _ = called("promote", "--model", desk.name, "--force", "--why", "the camera is another")
    assert (code, desk.champion) == (0, 2)
    assert "version 2 is now champion, before it was version 1" in said
    code, said, _ = called("promote", "--model", desk.name, "--force", "--why", "again")
    assert code == 0 and "version 2 is champion already" in said
    assert desk.tags(2)["microseg.why"] == "the camera is another"


def report_of(desk):
    return Path(download_artifacts(run_id=desk.run_id, artifact_path="report.html")).read_text()


def test_the_report_of_the_study_tells_of_the_decision(desk, called):
    decided = f"version 1 of model {desk.name} has dice"
    desk.register(FINE)
    called("promote", "--model", desk.name, "--version", "1")
    assert decided in report_of(desk) and "No hold-out figure exists yet" not in report_of(desk)


def test_a_report_that_cannot_be_written_leaves_the_decision_and_says_what_to_do(desk, called, monkeypatch):
    desk.register(FINE)
    with monkeypatch.context() as broken:
        broken.setattr(report, "log_page", Mock(side_effect=OSError("no space left")))
        code, said, _ = called("promote", "--model", desk.name, "--version", "1")
    assert (code, desk.champion) == (0, 1)
    (line,) = (line for line in said.splitlines() if "no space left" in line)
    assert line.endswith("to write it again: microseg report shared --output report.html")


@pytest.mark.parametrize(
    ("metric", "compared"), [("val/iou", "iou"), ("val/pq", "dice"), ("val/dice", "dice")]
)
def test_the_metric_of_the_study_is_compared_where_it_has_a_value_per_image(desk, tmp_path, metric, compared):
    data = write_images(tmp_path, 5)
    asked = study(desk.client, metric, data, metric=metric)
    assert desk.promote(desk.register(FINE, run_id=asked)).metric == compared
