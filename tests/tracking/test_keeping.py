"""Files that are removed from runs: once, with a tag that says so, and one line where the store refuses."""

import numpy as np
import pytest
from botocore.exceptions import ClientError
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from microseg.errors import MicrosegError
from microseg.tracking import store, tree
from microseg.tracking.fold import HAS_PICTURES, FoldRun
from microseg.tracking.keeping import NETWORK, PICTURES, REMOVED, artifact_bytes, remove, size, store_size


@pytest.fixture
def fold(client, told):
    """A finished fold's run, read again by calling it."""
    study = tree.open_study(client, "kept")
    trial = tree.open_trial(client, study, "trial-000", {}, 0)
    run = FoldRun(client, tree.open_fold(client, trial, 0))
    run.show({"final/a": np.zeros((8, 8, 3), np.uint8)}, 1)
    run.close(told(1)[-1].result, {})
    (found,) = tree.children(client, study.experiment_id, trial.run_id)
    return lambda: client.get_run(found.info.run_id)


def files(client, run):
    return {file.path for file in client.list_artifacts(run.info.run_id)}


def test_a_folder_is_deleted_with_a_tag_and_what_else_the_run_has_stays(client, fold):
    before, whole = files(client, fold()), artifact_bytes(client, fold())
    assert {NETWORK, PICTURES, "result.json"} <= before
    remove(client, fold(), [PICTURES], "keep: models")
    assert files(client, fold()) == before - {PICTURES}
    assert fold().data.tags[REMOVED + PICTURES] == "keep: models"
    assert HAS_PICTURES not in fold().data.tags  # or MLflow would show where they were
    assert REMOVED + NETWORK not in fold().data.tags
    remove(client, fold(), [NETWORK, PICTURES], "keep: best")
    assert files(client, fold()) == before - {NETWORK, PICTURES}
    assert fold().data.tags[REMOVED + PICTURES] == "keep: models"  # that is when they went
    assert 0 < artifact_bytes(client, fold()) < whole


def test_the_size_is_that_of_all_files_in_all_folders(client):
    run = client.create_run(store.experiment_for(client, None))
    client.log_text(run.info.run_id, "12345", "a.txt")
    client.log_text(run.info.run_id, "123", "deep/er/b.txt")
    assert artifact_bytes(client, run) == 8


def refused(*arguments):
    raise PermissionError("read-only file system")


def denied(*arguments):
    raise ClientError({"Error": {"Code": "AccessDenied", "Message": "denied"}}, "DeleteObjects")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (refused, "read-only file system"),
        (denied, "AccessDenied"),
        (lambda *_: None, "'model' is still there after its deletion"),  # as S3 answers for a single object
    ],
)
def test_a_store_that_refuses_is_one_line_and_no_tag(client, fold, monkeypatch, answer, said):
    monkeypatch.setattr(LocalArtifactRepository, "delete_artifacts", answer)
    with pytest.raises(MicrosegError, match=said) as error:
        remove(client, fold(), [NETWORK], "keep: best")
    assert "\n" not in str(error.value)
    assert REMOVED + NETWORK not in fold().data.tags


def test_a_local_store_has_a_size_and_a_server_does_not_tell(client):
    assert store_size(client).startswith("mlflow.db ") and store_size(client).endswith(" MiB")
    assert store_size(type(client)("http://127.0.0.1:9")) == "on a server"


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 MiB"), (2**20, "1 MiB"), (158_300_000, "151 MiB"), (999 * 2**20, "999 MiB"),
        (1010 * 2**20, "0.99 GiB"), (2**30, "1 GiB"), (5 * 2**30 // 4, "1.25 GiB"), (123 * 2**30, "123 GiB"),
    ],
)  # fmt: skip
def test_sizes_are_said_in_the_unit_that_suits_them(count, said):
    assert size(count) == said


@pytest.mark.slow
def test_a_server_deletes_what_it_keeps_for_its_clients(tracking_server, tmp_path):
    server = tracking_server(tmp_path)
    try:
        client = store.connect(server.address)
        run = client.create_run(client.create_experiment("served"))
        client.log_text(run.info.run_id, "weights", "model/model.keras")
        remove(client, run, [NETWORK], "keep: best")
        assert not client.list_artifacts(run.info.run_id)
        assert artifact_bytes(client, run) == 0
    finally:
        server.kill()
