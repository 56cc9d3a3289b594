"""What a study keeps: the policy over a table, what is removed where, what is fetched back, and refusals."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from microseg import report
from microseg.config import Component, SearchConfig, TrialConfig
from microseg.errors import MicrosegError
from microseg.folds import Fold
from microseg.search.records import TrialRecord
from microseg.study.keeping import bound, chosen, restore, tidy, to_remove
from microseg.tracking import store, tree
from microseg.tracking.fold import HAS_PICTURES, MODEL
from microseg.tracking.keeping import NETWORK, PICTURES, REMOVED
from microseg.training.results import MODEL as FILE

# Name, state and score of each trial; the last one is a repeat of trial-002.
TRIALS = [
    ("trial-000", "completed", 0.80),
    ("trial-001", "completed", 0.85),
    ("trial-002", "completed", 0.90),
    ("trial-003", "raced_out", 0.70),
    ("trial-004", "interrupted", 0.60),
    ("trial-002-seed-1", "completed", 0.88),
]
FILES = (MODEL, f"{PICTURES}/a.png", "result.json")  # of a fold, in MLflow
BOTH = (NETWORK, PICTURES)
# The parts that are removed of a completed fold of each of these trials, with two finalists.
POLICY = {
    "all": [(), (), (), (), (), ()],
    "models": [(PICTURES,), (), (), (PICTURES,), (), ()],
    "finalists": [BOTH, (), (), BOTH, (), ()],
    "best": [BOTH, BOTH, (), BOTH, (), ()],
}


def search(keep, **changes):
    return SearchConfig(space={}, folds=2, keep=keep, **{"finalists": 2} | changes)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keeping")
    client = store.connect(f"sqlite:///{folder}/mlflow.db")
    client.create_experiment(store.EXPERIMENT, artifact_location=str(folder / "artifacts"))
    return client


@pytest.fixture
def study(client, tmp_path):
    """A study of one fold, with a network and a picture in MLflow and the network in its folder too."""
    run = tree.open_study(client, tmp_path.name)
    tree.set_tags(
        client, run.run_id, {"microseg.metric": "val/dice", "microseg.mode": "max", "microseg.folds": "1"}
    )
    for number, (name, state, score) in enumerate(TRIALS):
        origin = 2 if "seed" in name else None
        trial = tree.open_trial(client, run, name, {}, number, origin)
        client.log_metric(trial.run_id, "cv/dice_mean", score)
        fold = tree.open_fold(client, trial, 0)
        artifacts, copies = Path(fold.info.artifact_uri), tmp_path / name / "fold-0"
        for file in (*(artifacts / path for path in FILES), copies / FILE, copies / "result.json"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("weights")
        client.set_tag(fold.info.run_id, HAS_PICTURES, "True")
        tree.end(client, fold.info.run_id, "completed")
        tree.end(client, trial.run_id, state)

    def seen():
        return report.view(client, client.get_run(run.run_id))

    return SimpleNamespace(run=run, seen=seen, folder=tmp_path)


def left(client, study):
    """Return what the fold of each trial has in MLflow."""
    seen = study.seen()
    return {
        row.name: {file.path for file in client.list_artifacts(row.fold_runs[0])}
        for row in (*seen.rows, *seen.replicates)
    }


def row(name, state, rank=None):
    origin = "trial-002" if "seed" in name else ""
    return SimpleNamespace(name=name, state=state, rank=rank, replicate_of=origin)


@pytest.mark.parametrize("keep", POLICY)
def test_the_policy_over_trials_in_all_states(keep):
    rows = [row(name, state) for name, state, _ in TRIALS]
    seen = SimpleNamespace(rows=rows[:-1], ranked=[rows[2], rows[1], rows[0]])
    whole = chosen(search(keep), seen)
    assert [to_remove(search(keep), whole, one, "completed") for one in rows] == POLICY[keep]


@pytest.mark.parametrize(("keep", "removed"), [("models", BOTH), ("all", ()), ("best", BOTH)])
def test_the_network_of_a_fold_that_collapsed_is_no_completed_one(keep, removed):
    assert to_remove(search(keep), {"trial-000"}, row("trial-007", "collapsed"), "collapsed") == removed


@pytest.mark.parametrize("keep", ["models", "best"])
def test_mlflow_keeps_what_the_policy_says_and_results_in_any_case(keep, study, client):
    said = tidy(client, study.seen(), search(keep), study.folder)
    removed = {name: set(parts) for (name, _, _), parts in zip(TRIALS, POLICY[keep], strict=True)}
    assert left(client, study) == {
        name: {NETWORK, PICTURES, "result.json"} - parts for name, parts in removed.items()
    }
    assert f"(keep: {keep}), tracking store mlflow.db" in said


def test_the_folder_keeps_networks_of_finalists_and_of_what_may_go_on(study, client):
    tidy(client, study.seen(), search("models"), study.folder)
    kept = {path.parts[-3] for path in study.folder.glob(f"*/*/{FILE}")}
    assert kept == {"trial-001", "trial-002", "trial-002-seed-1", "trial-004"}
    assert len(list(study.folder.glob("*/*/result.json"))) == len(TRIALS)


def test_tidying_again_after_more_trials_only_goes_further(study, client):
    tidy(client, study.seen(), search("finalists"), study.folder)
    tidy(client, study.seen(), search("best"), study.folder)
    assert NETWORK not in left(client, study)["trial-001"]
    tidy(client, study.seen(), search("models"), study.folder)  # what is gone stays gone, and says since when
    (fold,) = next(row for row in study.seen().rows if row.name == "trial-000").fold_runs
    assert client.get_run(fold).data.tags[REMOVED + NETWORK] == "keep: finalists"


def test_a_store_that_refuses_ends_nothing_and_is_one_line(study, client, monkeypatch):
    asked = []

    def refuse(self, path):
        asked.append(path)
        raise PermissionError("no permission")

    monkeypatch.setattr(LocalArtifactRepository, "delete_artifacts", refuse)
    said = tidy(client, study.seen(), search("best"), study.folder)
    assert "keep: best leaves out could be removed" in said and "no permission" in said and "\n" not in said
    assert len(asked) == 1  # not once for each of a thousand folds
    assert all(NETWORK in parts for parts in left(client, study).values())
    assert (study.folder / "trial-000/fold-0" / FILE).is_file()


def best(study, name):
    row = next(row for row in study.seen().rows if row.name == name)
    config = TrialConfig(model=Component(name="unet"))
    return TrialRecord(number=0, name=name, state="completed", config=config, run_id=row.run_id)


FOLDS = [Fold(index=0, train=("a",), valid=("b",))]


def test_networks_that_the_folder_no_longer_has_come_back_from_mlflow(study, client):
    tidy(client, study.seen(), search("models"), study.folder)
    network = study.folder / "trial-000/fold-0" / FILE
    assert not network.exists()
    restore(client, study.run, best(study, "trial-000"), FOLDS, study.folder / "trial-000")
    assert network.read_text() == "weights"


def test_networks_that_nobody_has_are_one_line_that_says_what_to_do(study, client):
    tidy(client, study.seen(), search("best"), study.folder)
    with pytest.raises(MicrosegError, match=r"trial-000/fold-1, .* is gone \(keep: best\); train it again: "):
        restore(client, study.run, best(study, "trial-000"), FOLDS, study.folder / "trial-000")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            search("models", trials=200),
            "at most 1000 networks, and pictures of the best 2 trials (keep: models)",
        ),
        (search("all", trials=200), "at most 1000 networks, and pictures of all trials (keep: all)"),
        (
            search("all", trials=9, replicates=3),
            "at most 75 networks, and pictures of all trials (keep: all)",
        ),
        (
            search("finalists", replicates=3),
            "at most 40 networks, and pictures of the best 2 trials (keep: finalists)",
        ),
        (
            search("finalists", trials=1),
            "at most 5 networks, and pictures of the best trial (keep: finalists)",
        ),
        (search("best", replicates=1), "at most 10 networks, and pictures of the best trial (keep: best)"),
    ],
)
def test_what_a_search_will_keep_is_said_before_it_starts(config, said):
    assert bound(config, 5).endswith(said)
