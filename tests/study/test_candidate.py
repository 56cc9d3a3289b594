"""What a study registers of its best trial: which networks, and what the card says they are."""

import json
from types import SimpleNamespace

import pytest
import yaml
from mlflow import MlflowClient

from microseg import cli, report
from microseg.checks import check_space
from microseg.config import SearchConfig, TrialConfig, parse
from microseg.data.options import DataOptions
from microseg.data.synthetic import write_demo
from microseg.errors import MicrosegError
from microseg.folds import Fold
from microseg.search.records import TrialRecord
from microseg.serving.card import MEANING, Tiling
from microseg.study import Request, candidate, prepare
from microseg.training.results import FoldResult, write_result

SPACE = {"model": {"name": "unet", "params": {"depth": 2}}, "tile": 64}
OPTIONS = DataOptions(mask_kind="instance")
SCORES, BEST_EPOCHS = (0.81, 0.86, 0.84), (3, 9, 4)


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("desk")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MICROSEG_HOME", str(folder / "home"))
        write_demo(folder / "cells", images=8, sessions=8, size=64)
        yield folder


def search(**changes):
    return parse(SearchConfig, {"space": SPACE, "folds": 3} | changes, "test")


@pytest.fixture
def registered(desk, monkeypatch):
    """Return a function from a kind of candidate to the card and networks that are registered, and what was trained."""
    best = TrialRecord(
        number=0, name="trial-000", state="completed", config=TrialConfig.model_validate(SPACE), scores=SCORES,
        score=sum(SCORES) / 3,
    )  # fmt: skip
    seen = SimpleNamespace(trained=[])

    def retrain(config, data, fold, epochs, workdir):
        seen.trained.append((fold, epochs))
        return workdir / "retrained.keras"

    def measure_tiling(prepared, config, members):
        return Tiling(halo=len(members), seam_mean=0.0, seam_worst=0.0)

    def log_candidate(card, members, run_id):
        seen.card, seen.names = (
            card,
            [str(path.relative_to(desk / "home/studies/s/trial-000")) for path in members],
        )
        return SimpleNamespace(version=7)

    monkeypatch.setattr(candidate, "search_objects", lambda *_: (None, float("nan")))
    monkeypatch.setattr(candidate, "retrain", retrain)
    monkeypatch.setattr(candidate, "measure_tiling", measure_tiling)
    monkeypatch.setattr(candidate, "log_candidate", log_candidate)

    def register(**changes):
        seen.prepared = prepare(
            Request(name="s", data=desk / "cells", options=OPTIONS, config=search(**changes))
        )
        for fold, epoch in enumerate(BEST_EPOCHS):
            folder = desk / f"home/studies/s/trial-000/fold-{fold}"
            result = FoldResult(
                fold=fold, state="completed", best_epoch=epoch, epochs=10, metrics={}, per_image={}, seconds=1,
                parameters=1, peak_memory_mib=1, model=folder / "model.keras", history=[], fingerprint="",
            )  # fmt: skip
            write_result(result, folder)
        run = SimpleNamespace(name="s", run_id="r")
        assert candidate.package(MlflowClient(), run, seen.prepared, best, "cells") == 7
        return seen

    return register


FOLDS = [f"fold-{index}/model.keras" for index in range(3)]


@pytest.mark.parametrize(
    ("changes", "names", "said"),
    [
        ({}, FOLDS, "the networks of all folds, whose probabilities are averaged"),
        ({"candidate": "ensemble"}, FOLDS, "averaged"),
        ({"candidate": "best_fold"}, [FOLDS[1]], "the network of the fold with the best score"),
        (
            {"candidate": "best_fold", "mode": "min", "metric": "val/loss"},
            [FOLDS[0]],
            "the network of the fold with the best score",
        ),
        ({"candidate": "retrained"}, ["retrained.keras"], "no validation score of this very network exists"),
    ],
)
def test_each_kind_is_what_its_card_says(registered, changes, names, said):
    seen = registered(**changes)
    assert seen.names == names
    assert seen.card.kind == changes.get("candidate", "ensemble")
    assert said in seen.card.description and "study s, trial-000" in seen.card.description
    assert seen.card.tiling.halo == len(names)  # measured with these very networks
    assert len(seen.trained) == (seen.card.kind == "retrained")


@pytest.mark.parametrize("kind", ["ensemble", "best_fold", "retrained"])
def test_the_note_of_a_study_says_what_its_candidate_is(kind):
    row = report.Row(1, "trial-000", "completed", "", 0.87, 0.01, (0.86, 0.88), 9.0, {}, "r", ())
    view = report.StudyView(None, "val/dice", "max", 2, "", (row,))
    said = candidate.note(view, "cells", 7, kind)
    assert "Best: **trial-000**, val/dice 0.8700 ± 0.0100 over 2 folds." in said
    assert f"version 7 of model *cells*, alias *candidate*: {MEANING[kind]}." in said


def test_retraining_takes_all_development_images_and_the_median_best_epoch(registered):
    seen = registered(candidate="retrained")
    ((fold, epochs),) = seen.trained
    assert epochs == 4
    development = tuple(sorted(item.name for item in seen.prepared.development.items))
    assert fold == Fold(index=3, train=development, valid=())
    assert set(fold.train) < {item.name for item in seen.prepared.manifest.items}


def test_a_schedule_that_waits_for_a_validation_score_cannot_be_retrained():
    schedules = {"one_of": [{"name": "constant"}, {"name": "plateau"}]}
    config = search(space=SPACE | {"schedule": schedules}, candidate="retrained")
    with pytest.raises(MicrosegError, match=r"'plateau' waits for a validation score.*candidate: ensemble"):
        candidate.check_candidate(config, check_space(config, "test"), "test")
    free = config.model_copy(update={"candidate": "best_fold"})
    candidate.check_candidate(free, check_space(free, "test"), "test")


def test_an_unknown_candidate_is_refused_in_one_line():
    with pytest.raises(MicrosegError, match=r"test: candidate: .*'ensemble', 'best_fold' or 'retrained'"):
        search(candidate="latest")


def test_a_card_that_an_earlier_version_wrote_is_of_an_ensemble(registered, tmp_path):
    card = registered().card
    text = json.loads(card.model_dump_json())
    del text["kind"]
    (tmp_path / "card.json").write_text(json.dumps(text))
    assert type(card).read(tmp_path) == card


@pytest.mark.parametrize(("given", "kind"), [((), "ensemble"), (("--candidate", "best_fold"), "best_fold")])
def test_crossval_registers_what_it_is_told(called, monkeypatch, tmp_path, given, kind):
    (tmp_path / "best.yaml").write_text(yaml.safe_dump(SPACE))
    asked = []
    monkeypatch.setattr(cli.studies, "_run", asked.append)
    code, _, _ = called("crossval", "--config", tmp_path / "best.yaml", "--data", tmp_path, *given)
    assert (code, asked[0].config.candidate) == (0, kind)


def test_crossval_refuses_an_unknown_candidate_in_one_line(called, tmp_path):
    (tmp_path / "best.yaml").write_text(yaml.safe_dump(SPACE))
    code, _, said = called("crossval", "--config", tmp_path / "best.yaml", "--candidate", "latest")
    assert code == 2 and len(said.splitlines()) == 1
    assert "best.yaml: candidate: Input should be 'ensemble', 'best_fold' or 'retrained'" in said


def test_the_card_knows_how_the_images_of_the_folds_look(registered):
    seen = registered()
    assert seen.card.appearance.images == len(seen.prepared.development.items) > 0
    assert 0 < seen.card.appearance.dark.least < seen.card.appearance.bright.most < 2**16
