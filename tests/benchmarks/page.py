"""Run the benchmarks that the project's promises are measured by, one after the other, and put them on one page.

Each is a process of its own, on a machine that does nothing else; its table goes on the page as it was printed,
its figures into ``--workdir``. ``--only`` runs some of them and leaves the others on the page as they are.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from measure import PROJECT, terminal

PAGE = Path(__file__).with_name("PERFORMANCE.md")


class Part(NamedTuple):
    """A section of the page: what it shows, and the command without its output options."""

    title: str
    promise: str
    command: tuple[str, ...]


PARTS = {
    "machine": Part(
        "This machine", "What `microseg bench` tells a user.", ("-m", "microseg", "bench")
    ),
    "steps": Part(
        "Training steps",
        "At least 0.95 of a bare loop without a pipeline; at least 1.4 x the published ways where the CPU has "
        "bfloat16, else 1.0 x.",
        ("steps.py",),
    ),
    "data": Part(
        "10,000 images of 1024²",
        "A second trial trains in less than 30 s; memory is bounded.",
        ("many_images.py", "--workdir={workdir}/many"),
    ),
    "trials": Part(
        "Trials",
        "From suggestion to the first training step in less than 8 s on 2 cores; several trials packed.",
        ("trials.py",),
    ),
    "search": Part(
        "Search efficiency",
        "Best score against fold trainings, GPU-hours and wall time, with regret.",
        ("search_efficiency.py",),
    ),
    "replay": Part(
        "Search on published scores", "The winner of 44 configurations x 5 folds, with fewer trainings.", ("replay.py",)
    ),
    "tiling": Part(
        "Inference",
        "At least 0.9 of the bare network per tile; bfloat16 1.4 x float32; 2 x MONAI, 3.5 x one `predict()` per "
        "tile.",
        ("tiling.py",),
    ),
    "rest": Part("Serving", "`mlflow models serve` on loopback.", ("rest.py",)),
    "scale": Part(
        "Scale", "A study of 10,000 trials x 5 folds, 1,000 workers, extrapolated.", ("driver.py",)
    ),
    "gpu": Part("GPU", "Skipped with a line where there is none.", ("gpu.py",)),
}  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--workdir", type=Path, required=True, help="for the figures, and what is made meanwhile"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--page", type=Path, default=PAGE)
    return parser.parse_args()


def section(name: str, workdir: Path) -> str:
    """Run a part and return its section; of one that fails, with what it said."""
    part, started = PARTS[name], time.monotonic()
    passed = [argument.format(workdir=workdir) for argument in part.command]
    command = [sys.executable, *passed, f"--json={workdir / name}.json"]
    ended = subprocess.run(command, cwd=PAGE.parent, capture_output=True, text=True)
    said = ended.stdout if ended.returncode == 0 else ended.stdout + ended.stderr[-2000:]
    told = " ".join(["python", *part.command]).replace("={workdir}", "=FOLDER")
    took = f"{(time.monotonic() - started) / 60:.0f} min, {time.strftime('%Y-%m-%d')}, version {commit()}"
    lines = "\n".join(line.rstrip() for line in said.strip().splitlines())
    return f"## {part.title}\n\n{part.promise}\n\n`{told}` ({took})\n\n```text\n{lines}\n```\n"


def commit() -> str:
    said = subprocess.run(["git", "describe", "--always"], cwd=PROJECT, capture_output=True, text=True)
    return said.stdout.strip() or "unknown"


def sections(page: Path) -> dict[str, str]:
    """Return the sections of an earlier page, by part."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    found = re.split(r"^(?=## )", text, flags=re.MULTILINE)[1:]
    titles = {part.title: name for name, part in PARTS.items()}
    return {titles[one.splitlines()[0][3:]]: one.rstrip() + "\n" for one in found}


def main() -> None:
    given, console = arguments(), terminal()
    given.workdir = given.workdir.resolve()
    given.workdir.mkdir(parents=True, exist_ok=True)
    for name in given.only:
        console.print(f"{PARTS[name].title} ...", highlight=False)
        known = sections(given.page) | {name: section(name, given.workdir)}
        head = f"# What was measured\n\nWritten by `{Path(__file__).name}`; see README.md for what each part does.\n"
        text = "\n".join([head, *(known[one] for one in PARTS if one in known)])
        given.page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
