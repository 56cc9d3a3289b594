"""Run a command that ends when whoever started it does, also by a signal that nobody can catch.

A file of its own, run by its path and with the standard library alone, so that it starts at once and takes
few megabytes. It must lead a process group, which the command and all its children are in, and its standard
input must be a pipe that only the parent holds open: at its end, orderly or not, the group ends. That holds
on every POSIX system; a signal at the parent's death is Linux's alone.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading


def main() -> None:
    """Run a command, the second and further arguments; the first is where its temporary files go."""
    _, folder, *arguments = sys.argv
    os.mkdir(folder, 0o700)  # noqa: PTH102 - pathlib would triple the time to start
    command = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, env=os.environ | {"TMPDIR": folder})
    threading.Thread(target=_end_with_the_parent, args=(folder,), daemon=True).start()
    code = command.wait()
    sys.stderr.write(f"ended with exit code {code}\n")
    sys.stderr.flush()
    _end(folder)


def _end_with_the_parent(folder: str) -> None:
    sys.stdin.buffer.read()
    _end(folder)


def _end(folder: str) -> None:
    """Remove what MLflow fetched, which it leaves behind itself, and end the group, this process with it."""
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main()
