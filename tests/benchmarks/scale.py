"""What the platform itself costs, without training: a large study in one process, its resume, and real Ray.

Searcher, race, Optuna's storage and MLflow's are the real ones; a training tells its curve at once (see
`simulation`). The process that runs the study is killed with SIGKILL on the way, and a new one goes on: its
time to the first proposal counts from its start, imports included. Beside it, trials through real Ray whose
workers do nothing but report their folds.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from measure import PROJECT, environment, terminal, write_json
from rich.table import Table

SPACE = PROJECT / "search_spaces" / "unet_family.yaml"
NAME = "scale"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True, help="new or empty folder")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument(
        "--whole", action="store_true", help="neither ASHA nor race: every fold of every trial"
    )
    parser.add_argument(
        "--kill-at", type=int, default=900, help="trial at which the process is killed; 0: never"
    )
    parser.add_argument("--every", type=int, default=50, help="trials between two lines of the table")
    parser.add_argument("--ray", type=int, default=20, help="trials through real Ray; 0: none")
    parser.add_argument("--part", choices=("study", "ray"), help=argparse.SUPPRESS)  # in a process of its own
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args()


def settings(given: argparse.Namespace) -> Any:
    from microseg.config import SearchConfig, parse, read_yaml

    values: dict[str, Any] = read_yaml(SPACE)
    values["space"] |= {"epochs": given.epochs}
    values |= {
        "trials": given.trials,
        "folds": given.folds,
        "concurrency": given.concurrency,
        "curves": "brief",
    }
    return parse(SearchConfig, values | ({"asha": None, "race": None} if given.whole else {}), str(SPACE))


def say(event: str, **figures: Any) -> None:
    """Tell the parent process, in a line."""
    sys.stdout.write(json.dumps({"event": event, "clock": time.time()} | figures) + "\n")
    sys.stdout.flush()


def used() -> dict[str, float]:
    """Return seconds of processor time, and memory and files in MiB, now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    sizes = {name: Path(f"{name}.db").stat().st_size / 2**20 for name in ("mlflow", "optuna")}
    return {"cpu": time.process_time(), "memory": pages * os.sysconf("SC_PAGE_SIZE") / 2**20} | sizes


def run_study(given: argparse.Namespace) -> None:
    """Run the study, or go on with it; says when a trial is proposed and what was used until then."""
    from microseg import runtime

    runtime.load_tensorflow()
    import simulation
    from responses import Simulated

    from microseg.search.records import TrialRecord
    from microseg.search.trials import Trials
    from microseg.space import parse_space
    from microseg.tracking import store, tree

    class Watched(Trials):
        def propose(self) -> TrialRecord:
            record = super().propose()
            say("proposed", number=record.number, **used())
            return record

    config, folder, former = settings(given), Path.cwd(), Path("run_id")
    client = store.connect()
    study = tree.open_study(client, NAME, former.read_text() if former.exists() else None)
    former.write_text(study.run_id)
    trials = Watched(folder / "optuna.db", NAME, parse_space(config.space), config)
    objective = Simulated(seed=0, epochs=given.epochs, folds=given.folds)
    workers = simulation.Workers(simulation.job(config, given.epochs, folder, given.folds), objective)
    simulation.run(config, trials, workers, (client, study))
    states = [record.state for record in trials.records()]
    folds = sum(len(record.scores) for record in trials.records())
    say("ended", folds=folds, states={state: states.count(state) for state in sorted(set(states))}, **used())


def report_folds(settings: dict[str, Any], job: Any) -> None:
    """Report all folds of a trial at once: what a worker does, without training and without TensorFlow."""
    from microseg.search.worker import Reporter
    from microseg.tracking.tree import TrialRun

    reporter = Reporter(job, TrialRun.model_validate(settings["trial"]))
    for fold in job.folds:
        values = {
            "epochs": 1,
            "seconds": 0.0,
            "peak_memory_mib": 400.0,
            "gpu_memory_mib": 0.0,
            "parameters": 1,
        }
        reporter.fold(SimpleNamespace(fold=fold.index, metrics={job.metric: 0.5}, **values))


def run_ray(given: argparse.Namespace) -> None:
    """Run trials that only report through Ray Tune, one at a time; says when Ray is up and when all ended."""
    import simulation
    from rich.console import Console

    from microseg.search.runner import run_trials
    from microseg.search.spending import Spending
    from microseg.search.trials import Trials
    from microseg.space import parse_space
    from microseg.tracking import store, tree

    config = settings(given).model_copy(
        update={"trials": given.ray, "concurrency": 1, "asha": None, "race": None}
    )
    client, folder = store.connect(), Path.cwd()
    trials = Trials(folder / "optuna.db", NAME, parse_space(config.space), config)
    job = simulation.job(config, 1, folder, given.folds)
    runs = client, tree.open_study(client, NAME)
    say("ready", **used())
    run_trials(config, trials, job, runs, (Spending(trials, None), Console(quiet=True)), report_folds)
    found = client.search_runs([runs[1].experiment_id], "tags.`microseg.level` = 'trial'", max_results=1000)
    ends = sorted(run.info.end_time / 1000 for run in found)
    say("ended", trials=len(ends), first=ends[0], last=ends[-1], **used())


def told(given: argparse.Namespace, part: str, kill_at: int = 0) -> Iterator[dict[str, Any]]:
    """Start a process for a part and yield what it says; kill it once it has proposed so many trials."""
    passed = [
        f"--{name}={getattr(given, name)}" for name in ("trials", "folds", "epochs", "concurrency", "ray")
    ]
    command = [sys.executable, __file__, f"--part={part}", f"--workdir={given.workdir}", *passed]
    command += ["--whole"] if given.whole else []
    folder = given.workdir / part
    folder.mkdir(parents=True, exist_ok=True)
    yield {"event": "started", "clock": time.time()}
    with subprocess.Popen(
        command, cwd=folder, env=environment(folder), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in filter(lambda line: line.startswith("{"), process.stdout):
            event = json.loads(line)
            yield event
            if kill_at and event.get("number") == kill_at:
                process.send_signal(signal.SIGKILL)
                return
    if process.returncode:
        sys.exit(f"{part} ended with {process.returncode}")


def figures(events: list[dict[str, Any]], every: int) -> dict[str, Any]:
    """Return what the study cost over all its processes, and how it grew from trial to trial."""
    starts = [place for place, event in enumerate(events) if event["event"] == "started"]
    processes = [events[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]
    growth = [event for event in events if event.get("number", -1) >= 0 and event["number"] % every == 0]
    end = events[-1]
    again = processes[-1]
    found = {
        "seconds": sum(process[-1]["clock"] - process[0]["clock"] for process in processes),
        "cpu_seconds": sum(process[-1]["cpu"] for process in processes),
        "resume_seconds": again[1]["clock"] - again[0]["clock"] if len(processes) > 1 else None,
        "states": end["states"],
        "folds": end["folds"],
        "mlflow_mib": end["mlflow"],
        "optuna_mib": end["optuna"],
        "load": os.getloadavg(),
    }
    return found | {"growth": growth}


def ray_figures(events: list[dict[str, Any]]) -> dict[str, Any]:
    ready, end = events[1], events[-1]
    return {
        "trials": end["trials"],
        "first_seconds": end["first"] - ready["clock"],
        "each_seconds": (end["last"] - end["first"]) / max(1, end["trials"] - 1),
        "cpu_seconds_driver": end["cpu"],
        "load": os.getloadavg(),
    }


def grown(found: dict[str, Any], start: float) -> Table:
    """Return how the study went on: time, memory and files by trial."""
    table = Table(title="the study as it grows")
    for name in (
        "trial",
        "s since start",
        "CPU s of its process",
        "memory MiB",
        "mlflow.db MiB",
        "optuna.db MiB",
    ):
        table.add_column(name, justify="right")
    for event in found["growth"]:
        numbers = [event["clock"] - start, *(event[name] for name in ("cpu", "memory", "mlflow", "optuna"))]
        table.add_row(str(event["number"]), *(f"{number:.1f}" for number in numbers))
    return table


def main() -> None:
    given, console = arguments(), terminal()
    given.workdir = given.workdir.resolve()
    if given.part:
        {"study": run_study, "ray": run_ray}[given.part](given)
        return
    found: dict[str, Any] = {}
    events = list(told(given, "study", given.kill_at))
    if events[-1]["event"] != "ended":
        events += told(given, "study")
    found["study"] = figures(events, given.every)
    console.print(grown(found["study"], events[0]["clock"]))
    if given.ray:
        found["ray"] = ray_figures(list(told(given, "ray")))
    for part, values in found.items():
        for name, value in values.items():
            if name != "growth":
                console.print(f"{part:<6} {name:<20} {value}", highlight=False, markup=False, soft_wrap=True)
    write_json(given.json, found)


if __name__ == "__main__":
    main()
