"""The end of a front, asked for or not, leaves no process and no folder behind."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from microseg.config import parse
from microseg.errors import MicrosegError
from microseg.serving.front import FrontOptions, guard, running

CHILD = "import os, time; print(os.environ['TMPDIR'], os.getpid(), flush=True); time.sleep(60)"
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-I", "-S", *sys.argv[1:]], stdin=subprocess.PIPE, start_new_session=True)
time.sleep(60)
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A folder of this test alone for temporary files."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def gone(pid):
    """Say whether a process has ended; the system may still list it until its parent asks."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return not found.strip() or found.strip().startswith("Z")


def test_a_killed_parent_takes_the_command_and_its_folder_along(temporary, asked):
    own = temporary / "own"
    command = [sys.executable, "-c", PARENT, guard.__file__, str(own), sys.executable, "-c", CHILD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        folder, pid = parent.stdout.readline().split()
        assert Path(folder) == own
        assert not gone(pid)
        parent.kill()
        asked.wait_for(lambda: gone(pid))
        asked.wait_for(lambda: not own.exists())


def test_a_command_that_ends_takes_its_children_along(temporary, asked):
    child = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {CHILD!r}]); sys.exit(7)"
    own = temporary / "own"
    command = [sys.executable, "-I", "-S", guard.__file__, str(own), sys.executable, "-c", child]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as started:  # fmt: skip
        output, errors = started.stdout.read(), started.stderr.read()
    assert "ended with exit code 7" in errors
    pids = [line.split()[1] for line in output.splitlines()]  # none, where the child ended before it wrote
    asked.wait_for(lambda: all(map(gone, pids)))
    assert list(temporary.iterdir()) == []


def test_a_guard_that_is_killed_alone_leaves_no_server(temporary, asked, front_of, events):
    with front_of(asked.Stored()) as front:
        front.serving("1")
        port = front.post().body["predictions"][0]["port"]
        found = subprocess.run(["pgrep", "-f", f"guard.py .* {port}$"], capture_output=True, text=True).stdout
        (pid,) = map(int, found.split())
        os.kill(pid, signal.SIGKILL)
        asked.wait_for(lambda: not asked.listens(port))
        asked.wait_for(lambda: events("server_ended"))
        front.serving("1")
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_front_when_its_requests_are_answered(temporary, asked, front_of, number):
    """The signal goes to this process, as the front runs in its main thread here."""
    with asked.free_port() as port:
        options = parse(FrontOptions, {"model": "models:/cells@champion", "port": port}, "test")
    front, answers, ports = asked.Asked(port), [], []

    def client():
        asked.wait_for(lambda: asked.listens(port))
        front.serving("1")
        slow = threading.Thread(target=lambda: answers.append(front.post(sleep=0.3)))
        slow.start()
        asked.wait_for(lambda: front.metric("microseg_requests_in_flight") == 1)
        os.kill(os.getpid(), number)
        asked.wait_for(lambda: not asked.listens(port))
        slow.join()

    asking = threading.Thread(target=client)
    asking.start()
    asyncio.run(running.until_a_signal(asked.Stored(), options))
    asking.join()
    assert [answer.status for answer in answers] == [200]
    ports = [answer.body["predictions"][0]["port"] for answer in answers]
    assert not asked.listens(ports[0])
    assert list(temporary.iterdir()) == []


def test_a_front_that_ends_while_a_server_starts_leaves_none(temporary, asked, front_of):
    with front_of(asked.Stored("mute")):
        asked.wait_for(lambda: list(temporary.iterdir()))
    assert list(temporary.iterdir()) == []


def test_a_taken_port_is_one_line(asked):
    with asked.free_port(taken=True) as port:
        options = parse(FrontOptions, {"model": "models:/cells@champion", "port": port}, "test")
        with pytest.raises(
            MicrosegError, match=f"cannot listen at 127.0.0.1:{port} .*another --host or --port"
        ):
            asyncio.run(running.run(asked.Stored(), options, asyncio.Event()))


def test_other_machines_are_let_in_with_a_warning(asked, front_of, events):
    with front_of(asked.Stored(None), host="0.0.0.0"):
        assert "authenticating proxy" in events("no_authentication")[0]["reason"]
