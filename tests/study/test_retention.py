"""What goes and what stays: by age, by what a model is used for, and never more than was listed."""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest
from mlflow.entities import ViewType

from microseg import registry
from microseg.config import SearchConfig
from microseg.errors import MicrosegError
from microseg.registry.decision import OUTCOME
from microseg.study import leftovers, retention
from microseg.study.request import Request, StudyState, folder, state_file
from microseg.tracking import garbage, store, tree

DAY = 24 * 3600


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A client of one store for all tests: making its tables takes seconds."""
    place = tmp_path_factory.mktemp("retention")
    uri = f"sqlite:///{place}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    client = store.connect(uri)
    client.create_experiment(store.EXPERIMENT, artifact_location=str(place / "artifacts"))
    yield client
    mlflow.set_tracking_uri(None)  # as if it had never been set


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("MICROSEG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return tmp_path / "home"


@pytest.fixture
def study(client, tmp_path):
    """Return a function that makes a study of one trial and one fold, which ended some days ago."""

    def make(age, name=tmp_path.name[:40], versions=0, here=True):
        run = tree.open_study(client, name)
        trial = tree.open_trial(client, run, "trial-000", {"epochs": "3"}, 0)
        fold = tree.open_fold(client, trial, 0).info.run_id
        client.log_text(fold, "x" * 1000, "model/network.keras")
        ended = datetime.now(UTC) - timedelta(days=age)
        for run_id in (fold, trial.run_id, run.run_id):
            tree.end(client, run_id, "completed")
            client.set_terminated(run_id, end_time=int(ended.timestamp() * 1000))
        for _ in range(versions):
            version(client, name, run)
        if here:
            request = Request(name=name, data="/data", config=SearchConfig(space={}))
            state_file(name).parent.mkdir(parents=True)
            state = StudyState(request=request, digest="0", run_id=run.run_id)
            state_file(name).write_text(state.model_dump_json())
        return SimpleNamespace(name=name, run=run, ids={fold, trial.run_id, run.run_id})

    yield make
    for run in client.search_runs(["1"], run_view_type=ViewType.ACTIVE_ONLY):
        client.delete_run(run.info.run_id)
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)


def version(client, name, run):
    model = client.create_logged_model(run.experiment_id, "network", source_run_id=run.run_id)
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    client.create_model_version(name, model.artifact_location, run.run_id, model_id=model.model_id)


def active(client):
    return {run.info.run_id for run in client.search_runs(["1"])}


def test_an_old_study_goes_with_its_runs_its_unused_version_and_its_folder(client, study):
    old = study(100, versions=1)
    (expired,), kept = retention.look(client, 90)
    assert kept == []
    assert (expired.study.info.run_id, {run.info.run_id for run in expired.runs}) == (old.run.run_id, old.ids)
    assert expired.size == 1000
    assert retention.deleted_here(client) == []
    retention.delete(client, expired)
    assert not active(client) & old.ids
    assert client.search_model_versions(f"name = '{old.name}'") == []
    assert retention.deleted_here(client) == [old.name]
    retention.forget(old.name)
    assert not folder(old.name).exists()
    assert retention.look(client, 90) == ([], [])


def test_the_state_that_trials_have_on_a_store_goes_with_the_folder(study, monkeypatch):
    old, forgotten = study(100), []
    monkeypatch.setenv("MICROSEG_STORE", "s3://lab/state")
    monkeypatch.setattr(retention.state, "forget", forgotten.append)
    retention.forget(old.name)
    assert forgotten == [f"s3://lab/state/studies/{old.name}-{old.run.run_id[:8]}"]


def test_a_study_that_ended_lately_stays(client, study):
    study(89)
    assert retention.look(client, 90) == ([], [])


def test_a_study_that_runs_stays_whatever_its_age(client, study):
    old = study(100)
    client.update_run(old.run.run_id, status="RUNNING")
    assert retention.look(client, 90) == ([], [])
    began = int((time.time() - 100 * DAY) * 1000)
    killed = client.create_run("1", began, {tree.LEVEL: "study", tree.STUDY: "killed"}, "killed")
    expired, (kept,) = retention.look(client, 90)
    assert (expired, kept.study.info.run_id) == ([], killed.info.run_id)
    assert "it runs" in kept.reason


@pytest.mark.parametrize("alias", ["candidate", "of-my-own"])
def test_a_study_of_a_version_with_an_alias_stays(client, study, alias):
    old = study(100, versions=2)
    client.set_registered_model_alias(old.name, alias, "1")
    expired, (kept,) = retention.look(client, 90)
    assert (expired, kept.reason) == ([], f"{old.name} version 1 is {alias}")


def test_a_study_whose_version_was_champion_stays_for_a_rollback(client, study):
    old, new = study(100, versions=1), study(10, "new")
    version(client, old.name, new.run)
    for number in (1, 2):
        registry.promote(old.name, number)
    expired, (kept,) = retention.look(client, 90)
    assert (expired, kept.study.info.run_id) == ([], old.run.run_id)
    assert "version 1 was champion" in kept.reason


def test_the_record_of_a_hold_out_stays(client, study):
    old = study(100, versions=1)
    client.set_model_version_tag(old.name, "1", OUTCOME, "kept")
    expired, (kept,) = retention.look(client, 90)
    assert expired == []
    assert "the record of a hold-out" in kept.reason


def test_a_version_that_came_into_use_after_it_was_listed_is_not_deleted(client, study):
    old = study(100, versions=1)
    (expired,), _ = retention.look(client, 90)
    registry.promote(old.name, 1)
    with pytest.raises(
        MicrosegError, match=r"nothing of its study was deleted: .* version 1 is champion by now"
    ):
        retention.delete(client, expired)
    assert old.ids <= active(client)


def test_another_study_of_the_same_name_stays(client, study):
    study(100, "twin")
    young = study(1, "twin", here=False)
    (expired,), _ = retention.look(client, 90)
    retention.delete(client, expired)
    assert active(client) == young.ids


def test_a_deletion_that_was_interrupted_is_done_again(client, study, monkeypatch):
    old = study(100)
    (expired,), _ = retention.look(client, 90)
    retention.delete(client, expired._replace(runs=expired.runs[:1]))  # and then the process was killed
    (again,), _ = retention.look(client, 90)
    retention.delete(client, again)
    assert not active(client) & old.ids


def test_a_folder_of_another_tracking_store_stays(client, study):
    old = study(1)
    state = StudyState.model_validate_json(state_file(old.name).read_bytes())
    state_file(old.name).write_text(state.model_copy(update={"run_id": "f" * 32}).model_dump_json())
    assert retention.deleted_here(client) == []


def test_a_folder_in_which_a_process_works_is_not_removed(client, study):
    old = study(100)
    with retention.alone(old.name), pytest.raises(MicrosegError, match="is being run by another process"):
        retention.forget(old.name)
    assert state_file(old.name).is_file()


@pytest.mark.slow
def test_what_was_deleted_long_ago_is_purged_with_its_files_and_what_was_lately_is_not(
    client, study, tmp_path
):
    old = study(100, versions=1)
    (expired,), _ = retention.look(client, 90)
    files = [client.get_run(run).info.artifact_uri for run in old.ids]
    retention.delete(client, expired)
    uri = garbage.database_of(client)
    assert uri == client.tracking_uri
    assert garbage.purge(client, uri, 30) == 0
    client.restore_run(old.run.run_id)  # so it can be had back
    client.delete_run(old.run.run_id)
    assert garbage.purge(client, uri, 0) >= len(old.ids)  # and what other tests left
    assert not any(Path(file).exists() for file in files)
    with pytest.raises(mlflow.MlflowException, match="not found"):
        client.get_run(old.run.run_id)


def test_a_database_that_cannot_be_used_is_one_line_without_its_password(client, monkeypatch):
    monkeypatch.setattr("mlflow.store.db.utils.MAX_RETRY_COUNT", 1)  # else it is asked for two minutes
    uri = "postgresql://lab:hush-hush@127.0.0.1:1/mlflow"
    with pytest.raises(
        MicrosegError, match=r"mlflow gc ended with: .*; check MLFLOW_BACKEND_STORE_URI"
    ) as caught:
        garbage.purge(client, uri, 30)
    assert "hush-hush" not in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_database_of_a_server_is_only_known_if_the_environment_says_it(monkeypatch):
    server = SimpleNamespace(tracking_uri="http://127.0.0.1:5000")
    monkeypatch.delenv(garbage.BACKEND, raising=False)
    assert garbage.database_of(server) == ""
    monkeypatch.setenv(garbage.BACKEND, "sqlite:///x.db")
    assert garbage.database_of(server) == "sqlite:///x.db"


def made(path, age, size=10):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    then = time.time() - age * DAY
    os.utime(path, (then, then))
    for parent in (path.parent, path.parent.parent):
        os.utime(parent, (then, then))
    return path


def test_files_that_nobody_used_for_long_are_found_and_removed(home, tmp_path):
    old = [
        made(home / "cache" / "arrays" / "a.npy", 100),
        made(home / "cache" / "a.tif", 100),
        made(home / "cache" / "remote" / "0123" / "objects.json", 100),
        made(home / "predictions" / "0123" / "strip.part", 100),
        made(home / "splits" / f".cells.yaml.{'0' * 32}", 100),
        made(tmp_path / "tmp" / "microseg-abc" / "network.keras", 100),
    ]
    young = [
        made(home / "splits" / "0123.uses", 100),
        made(home / "splits" / "cells.yaml", 100),
        made(home / "studies" / "cells" / "optuna.db", 100),
        made(tmp_path / "tmp" / "other-abc" / "x", 100),
        made(home / "cache" / "arrays" / "b.npy", 1),
        made(home / "predictions" / "4567" / "strip.part", 1),
    ]
    read = made(home / "cache" / "arrays" / "c.npy", 100)
    os.utime(read, (time.time(), read.stat().st_mtime))  # read today, written long ago
    found = leftovers.find(90)
    assert [(one.kind, len(one.paths)) for one in found] == [
        ("decoded and copied images", 3),
        ("unfinished predictions", 1),
        ("unfinished files", 1),
        ("temporary folders", 1),
    ]
    for one in found:
        leftovers.remove(one)
        leftovers.remove(one)  # as if two did at once
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in [*young, read])
    assert leftovers.find(90) == []


def test_a_link_out_of_the_cache_is_removed_and_what_it_points_to_is_not(home, tmp_path):
    precious = made(tmp_path / "precious" / "data.tif", 100)
    (home / "cache").mkdir(parents=True)
    link = home / "cache" / "link"
    link.symlink_to(precious.parent)
    os.utime(link, (1, 1), follow_symlinks=False)
    (found,) = leftovers.find(90)
    leftovers.remove(found)
    assert precious.is_file() and not link.is_symlink()


def test_the_command_lists_first_and_removes_when_told(client, study, home, called, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
    kept, old = study(100, "kept", versions=1), study(100, "old", versions=1)
    client.set_registered_model_alias("kept", "champion", "1")
    image = made(home / "cache" / "arrays" / "a.npy", 100, 2**20)
    code, said, _ = called("clean", "--days", 90)
    assert code == 0
    assert "stays   study kept: kept version 1 is champion" in said
    assert "goes    study old, ended " in said and "3 runs, 0.000954 MiB, old version 1" in said
    assert "goes    decoded and copied images: 1 file or folder, 1 MiB" in said
    assert "nothing was removed; to remove what goes: --yes" in said
    assert kept.ids | old.ids <= active(client) and image.is_file() and folder("old").is_dir()
    code, said, _ = called("clean", "--days", 90, "--yes")
    assert code == 0
    assert "removed the folder of study old" in said and "purged  0 deleted runs and models" in said
    assert active(client) == kept.ids
    assert not image.exists() and not folder("old").exists() and folder("kept").is_dir()
    code, said, _ = called("clean")
    assert (code, said.splitlines()[-1]) == (0, "nothing is old enough to go")


@pytest.mark.parametrize("days", ["0", "-1", "soon"])
def test_an_age_that_is_none_is_one_line(called, days):
    code, _, said = called("clean", "--days", days)
    assert code == 2 and said.count("\n") == 1
