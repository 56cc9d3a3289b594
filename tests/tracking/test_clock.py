"""The time of MLflow's server, whatever this machine's clock says."""

import http.server
import threading
import time
from email.utils import formatdate

import pytest

from microseg.tracking import clock, tree


@pytest.fixture
def server(monkeypatch):
    """A server whose clock is ahead by its ``ahead`` seconds; None where it tells no time."""
    monkeypatch.setattr(clock, "_zero", clock._zero)

    class Server(http.server.BaseHTTPRequestHandler):
        ahead: float | None = 0.0

        def do_GET(self):
            self.send_response_only(200)
            if self.ahead is not None:
                self.send_header("Date", formatdate(time.time() + self.ahead, usegmt=True))
            self.end_headers()

        def log_message(self, *said):
            pass

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    Server.address = f"http://127.0.0.1:{listening.server_port}"
    yield Server
    listening.shutdown()
    listening.server_close()


@pytest.mark.parametrize("ahead", [3600.0, -3600.0])
def test_the_time_is_that_of_the_server(server, ahead):
    server.ahead = ahead
    clock.follow(server.address)
    assert clock.milliseconds() / 1000 - time.time() == pytest.approx(ahead, abs=2)
    assert clock.moment().timestamp() - time.time() == pytest.approx(ahead, abs=2)
    assert clock.days_ahead() * 86400 == pytest.approx(-ahead, abs=2)


def test_a_clock_that_is_set_while_a_study_runs_changes_nothing(server, monkeypatch):
    server.ahead = 3600.0
    clock.follow(server.address)
    before, now = clock.milliseconds(), time.time()
    monkeypatch.setattr(time, "time", lambda: now - 7200)
    assert 0 <= clock.milliseconds() - before < 5000


def test_whole_seconds_of_a_server_do_not_replace_a_right_clock(server):
    zero = clock._zero
    for server.ahead in (None, 2.0):
        clock.follow(server.address)
    clock.follow("sqlite:///mlflow.db")
    assert clock._zero == zero


def test_no_run_ends_before_it_began(client, monkeypatch):
    """A worker without such a server began it an hour ahead, or the clock was set back."""
    study = tree.open_study(client, "set-back")
    trial = tree.open_trial(client, study, "trial-000", {}, 0)
    monkeypatch.setattr(clock, "_zero", clock._zero - 3600)
    given = client.create_run(study.experiment_id).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    tree.end(client, trial.run_id, "pruned")
    tree.open_study(client, "set-back", former=study.run_id)
    for run in map(client.get_run, (trial.run_id, given)):
        assert run.info.end_time == run.info.start_time
