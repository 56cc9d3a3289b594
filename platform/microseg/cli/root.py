"""The program itself: its root command, its output, and how it ends."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from rich.console import Console

from microseg import __version__
from microseg.errors import MicrosegError

app = typer.Typer(
    help="Find, prove and serve the best segmentation network for your own microscopy images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console() if sys.stdout.isatty() else Console(width=160)  # a log file has no width to wrap at
INTERRUPTED = 128 + 2  # as a shell reports what SIGINT ended
USAGE_ERROR: Any = typer.BadParameter.__base__  # Typer exports no more of the exceptions of its parser


def main() -> None:
    """Run the command line: a user's mistake is one line on standard error and exit code 2."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        code = app(standalone_mode=False)
    except USAGE_ERROR as error:
        command = error.ctx.command_path if error.ctx else "microseg"
        _end(2, f"{error.format_message().rstrip('.')}; see {command} --help")
    except MicrosegError as error:
        _end(2, str(error))
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:  # Typer too makes this of Ctrl-C, without a word
        _end(INTERRUPTED, "interrupted")
    sys.exit(code if isinstance(code, int) else 0)


def _end(code: int, text: str) -> None:
    sys.stderr.write(f"microseg: {' '.join(text.split())}\n")
    sys.exit(code)


def say(text: str) -> None:
    """Print a line as it is: not wrapped, not highlighted."""
    out.print(text, soft_wrap=True, highlight=False, markup=False)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"microseg {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass
