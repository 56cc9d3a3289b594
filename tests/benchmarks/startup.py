"""How long one waits: for --help, for imports, and from the command to a trial's first epoch."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from measure import Search, search_once, spread, terminal, timed, write_json
from rich.table import Table

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
SPACE = {
    "trials": 1,
    "folds": 1,
    "asha": None,
    "space": {
        "model": {"name": "unet", "params": {"depth": 2, "filters": 4}},
        "augment": {"name": "none"},
        "tile": 64,
        "epochs": 2,
    },
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


def phases(run: Search) -> dict[str, float]:
    """Return the seconds of a search from one phase to the next."""
    times = run.measured
    marks = {
        "command to checked data set and open run": run.opened,
        "to the first trial proposed (Ray started)": run.proposed,
        "to its training begun (worker and TensorFlow loaded)": times.training,
        "to the end of its first epoch (network traced)": times.epochs[0],
        "to its fold trained and saved": times.saved,
        "to the end of the command (candidate registered)": times.end,
    }
    starts = [times.start, *marks.values()]
    return {label: mark - before for (label, mark), before in zip(marks.items(), starts, strict=False)}


def tiny_searches(count: int, workdir: Path) -> dict[str, list[float]]:
    from microseg.data.synthetic import write_demo

    space = workdir / "space.yaml"
    space.write_text(yaml.safe_dump(SPACE), encoding="utf-8")
    data = write_demo(workdir / "data", images=24, sessions=8)
    runs = [phases(search_once(data, space, f"startup-{number}", workdir)) for number in range(count)]
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
