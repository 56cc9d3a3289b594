"""The store: refused at once where it is not there, waited for once it has answered."""

import os

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import UNAUTHENTICATED

from microseg.errors import MicrosegError
from microseg.tracking import store

ASKED_AGAIN = (0, 2, 4, 8, 16, 32, 64, 120)  # seconds before each retry of MLflow's client, at a factor of 1


@pytest.fixture
def unset(monkeypatch):
    for name in store.SETTINGS:
        monkeypatch.setenv(name, "")  # so that it is restored afterwards
        monkeypatch.delenv(name)


def test_a_server_that_is_not_there_is_given_up_soon_and_one_that_was_there_is_waited_for(
    client, unset, monkeypatch
):
    tried = []
    original = MlflowClient.search_experiments

    def search_experiments(self, *args, **kwargs):
        tried.append(os.environ[store.RETRIES])
        return original(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "search_experiments", search_experiments)
    store.connect(client.tracking_uri)
    store.connect(client.tracking_uri)
    assert tried == ["3", "3"]
    assert sum(ASKED_AGAIN[: int(os.environ[store.RETRIES])]) >= 120
    assert os.environ["MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"] == "1"


def test_the_wait_is_what_mlflow_makes_of_the_settings(unset):
    """The formula is urllib3's: no wait before the first retry, then doubled, at most two minutes."""
    from urllib3.util import Retry

    store.patient()
    retry = Retry(total=8, backoff_factor=int(os.environ["MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"]))
    waits = []
    for _ in range(int(os.environ[store.RETRIES])):
        retry = retry.increment("GET", "/", error=OSError())
        waits.append(retry.get_backoff_time())
    assert tuple(waits) == ASKED_AGAIN


def test_what_the_environment_says_holds(client, unset, monkeypatch):
    monkeypatch.setenv(store.RETRIES, "5")
    store.connect(client.tracking_uri)
    assert os.environ[store.RETRIES] == "5"


def test_after_a_server_that_is_not_there_the_settings_are_as_before(unset, monkeypatch):
    monkeypatch.setattr(MlflowClient, "search_experiments", refused)
    with pytest.raises(MicrosegError, match="does not answer"):
        store.connect("http://127.0.0.1:9")
    assert os.environ[store.RETRIES] == "8"


def refused(*args, **kwargs):
    raise ConnectionError("refused")


@pytest.fixture
def nobody(monkeypatch):
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "PGPASSWORD"):
        monkeypatch.setenv(name, "")  # so that it is restored afterwards
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("given", "address", "variables"),
    [
        (
            "https://anna:p%40ss@lab.org:5000/mlflow",
            "https://lab.org:5000/mlflow",
            {"MLFLOW_TRACKING_USERNAME": "anna", "MLFLOW_TRACKING_PASSWORD": "p@ss"},
        ),
        ("postgresql+psycopg://anna:p%40ss@db/x", "postgresql+psycopg://anna@db/x", {"PGPASSWORD": "p@ss"}),
        ("postgresql://anna@db/x", "postgresql://anna@db/x", {}),
        ("http://lab.org:5000", "http://lab.org:5000", {}),
        ("sqlite:////data/a@b/mlflow.db", "sqlite:////data/a@b/mlflow.db", {}),
    ],
)
def test_an_address_is_kept_without_its_password(nobody, given, address, variables):
    assert store.apart(given) == address
    found = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "PGPASSWORD")
    assert {name: os.environ[name] for name in found if name in os.environ} == variables


def test_who_is_logged_in_already_stays(nobody, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "bert")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "other")
    store.apart("http://anna:pass@lab.org")
    assert [os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]] == [
        "bert",
        "other",
    ]


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        (
            "http://anna:pl4nted@127.0.0.1:9",
            r"http://127.0.0.1:9 does not let 'anna' in; set MLFLOW_TRACKING_US",
        ),
        ("http://127.0.0.1:9", "http://127.0.0.1:9 asks who you are; set MLFLOW_TRACKING_USERNAME"),
    ],
)
def test_a_user_that_the_server_does_not_know_is_one_line(nobody, unset, monkeypatch, uri, words):
    def unknown(*args, **kwargs):
        raise MlflowException("You are not authenticated", error_code=UNAUTHENTICATED)

    monkeypatch.setattr(MlflowClient, "search_experiments", unknown)
    with pytest.raises(MicrosegError, match=words) as caught:
        store.connect(uri)
    assert "pl4nted" not in str(caught.value)
