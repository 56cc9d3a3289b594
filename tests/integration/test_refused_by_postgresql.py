"""A PostgreSQL server that does not let us in: said at once, by whatever asks it; one that is away is waited for."""

import time

import mlflow
import pytest
from services import free_ports

from microseg.errors import MicrosegError
from microseg.tracking import garbage, store
from microseg.tracking.databases import refused

pytestmark = pytest.mark.slow
AT_ONCE = 30  # seconds, on a busy machine; MLflow asks for about a hundred


@pytest.fixture
def said(postgres):
    """Addresses that a server refuses, and what it says to each."""
    address = postgres.database("mlflow")
    return {
        address.replace(postgres.password, "pl4nted"): 'password authentication failed for user "lab"',
        address.replace("//lab:", "//nobody:"): 'password authentication failed for user "nobody"',
        address.replace("/mlflow", "/absent"): 'database "absent" does not exist',
    }


def test_the_reason_is_the_servers_own(said, postgres):
    for address, reason in said.items():
        assert refused(address) == reason
    assert refused(postgres.url("mlflow")) == ""


def test_a_server_that_is_away_refuses_nobody():
    (port,) = free_ports(1)
    assert refused(f"postgresql+psycopg://lab:pl4nted@127.0.0.1:{port}/mlflow") == ""


def test_deleted_runs_are_not_purged_and_the_command_ends_at_once(said, tmp_path):
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    for address, reason in said.items():
        began = time.monotonic()
        with pytest.raises(MicrosegError) as caught:
            garbage.purge(client, address, 30)
        text = f"MLflow's database refuses ({reason}); correct {garbage.BACKEND} and repeat this"
        assert str(caught.value) == text and time.monotonic() - began < AT_ONCE
        assert caught.value.__cause__ is None


def test_a_store_that_refuses_is_said_at_once(said, monkeypatch):
    monkeypatch.delenv("PGPASSWORD", raising=False)
    for address, reason in said.items():
        began = time.monotonic()
        with pytest.raises(MicrosegError) as caught:
            store.connect(address)
        assert f"refuses ({reason}); correct MLFLOW_TRACKING_URI" in str(caught.value)
        assert "pl4nted" not in str(caught.value) and time.monotonic() - began < AT_ONCE
