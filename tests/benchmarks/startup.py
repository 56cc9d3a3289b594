"""How long one waits: for --help, for imports, and from the command to a trial's first epoch."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import spread, terminal, timed, write_json
from rich.table import Table

from microseg.bench.start import start_once

HEAVY = ("tensorflow", "keras", "ray", "mlflow", "optuna")
IMPORT = """
import json, sys, time
start = time.perf_counter()
{statement}
seconds = time.perf_counter() - start
loaded = [name for name in {heavy!r} if name in sys.modules]
open({output!r}, "w").write(json.dumps({{"seconds": seconds, "loaded": loaded}}))
"""
STATEMENTS = {
    "import microseg": "import microseg",
    "import microseg.cli": "import microseg.cli",
    "import tensorflow": "import tensorflow",
    "tensorflow, as the platform loads it": "from microseg import runtime; runtime.load_tensorflow()",
    "import ray": "import ray",
    "import mlflow": "import mlflow",
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="how often --help and the imports are timed")
    parser.add_argument("--searches", type=int, default=1, help="how many tiny searches are timed by phase")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args()


def help_seconds(workdir: Path) -> float:
    start, end = timed(["-m", "microseg", "--help"], workdir)
    return end - start


def import_once(statement: str, workdir: Path) -> dict[str, Any]:
    output = workdir / "import.json"
    timed(["-c", IMPORT.format(statement=statement, heavy=HEAVY, output=str(output))], workdir)
    found: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    return found


def tiny_searches(count: int, workdir: Path) -> dict[str, list[float]]:
    runs = [start_once(workdir, f"startup-{number}").phases for number in range(count)]
    return {label: [run[label] for run in runs] for label in runs[0]}


def main() -> None:
    given, console = arguments(), terminal()
    seconds: dict[str, list[float]] = {}
    loaded: dict[str, list[str]] = {}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        workdir = Path(scratch)
        seconds["microseg --help, whole process"] = [help_seconds(workdir) for _ in range(given.repeats)]
        for label, statement in STATEMENTS.items():
            found = [import_once(statement, workdir) for _ in range(given.repeats)]
            seconds[label] = [one["seconds"] for one in found]
            loaded[label] = found[0]["loaded"]
        trial = tiny_searches(given.searches, workdir) if given.searches else {}
    table = Table("what", "seconds, median (range)", f"loads, of {', '.join(HEAVY)}")
    for label, values in (seconds | trial).items():
        table.add_row(label, spread(values, 2), ", ".join(loaded.get(label, [])) or "-")
    console.print(table)
    console.print(f"measured in {time.monotonic() - began:.0f} s", highlight=False)
    write_json(given.json, {"seconds": seconds | trial, "loaded": loaded})


if __name__ == "__main__":
    main()
