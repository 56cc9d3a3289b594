"""From a trial's suggestion to its first training step, by phases; trials/hour one at a time and packed.

Studies of small trials with real Ray, training and MLflow, each in a process of its own. The phases are of the
second trial and later: the process of the first still loads when it is proposed. Seconds of the clock mean
something only on a machine that does nothing else; the seconds of the worker's processor beside them change
less.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from measure import spread, terminal, timed, write_json
from rich.table import Table

NAME = "small"
HEADS = ("seconds, median (range)", "of the processor")
PHASES = {
    "entered": "trial proposed, to the worker's function called",
    "loaded": "to MLflow, TensorFlow and the platform loaded",
    "connected": "to its run told where it is trained",
    "images": "to images loaded",
    "network": "to network built and compiled",
    "step": "to first training step done (traced)",
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=6, help="trials of each study")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of each trial")
    parser.add_argument("--packed", type=int, default=2, help="trials at once, beside one at a time")
    parser.add_argument("--repeats", type=int, default=2, help="studies of each kind, in turn")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--study", type=int, help=argparse.SUPPRESS)  # at that concurrency, in this process
    return parser.parse_args()


class Marks:
    """When a worker had done what: seconds since 1970 and seconds of its processor, the first time each."""

    def __init__(self, file: Path) -> None:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
        self._file = file
        self._found = {"process": (time.time() - age, time.process_time())}

    def __call__(self, name: str) -> None:
        self._found.setdefault(name, (time.time(), time.process_time()))

    def write(self) -> None:
        self._file.write_text(json.dumps(self._found), encoding="utf-8")

    def when(self, name: str, owner: Any, function: str) -> None:
        """Mark when a function of a module or class returns."""
        original = getattr(owner, function)

        def marked(*given: Any, **options: Any) -> Any:
            found = original(*given, **options)
            self(name)
            return found

        setattr(owner, function, marked)


def train(settings: dict[str, Any], job: Any) -> None:
    """Do what a worker does, and write when it had done what."""
    marks = Marks(job.workdir / f"{settings['trial']['name']}.json")
    marks("entered")
    from microseg import runtime
    from microseg.search import worker

    load = runtime.load_tensorflow

    def loaded() -> None:
        load()
        watch(marks)

    runtime.load_tensorflow = loaded
    worker.run(settings, job)


def watch(marks: Marks) -> None:
    """Mark what follows once TensorFlow is loaded; nobody may ask for these modules earlier."""
    import keras

    from microseg.tracking import recorder
    from microseg.training import fold

    marks("loaded")
    marks.when("connected", recorder.Recorder, "note_worker")
    marks.when("images", fold, "_pairs")
    marks.when("network", fold, "build_networks")
    fit = keras.Model.fit

    class First(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            marks("step")

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            marks.write()

    def watched(model: Any, *given: Any, callbacks: Any = (), **options: Any) -> Any:
        return fit(model, *given, callbacks=[First(), *callbacks], **options)

    keras.Model.fit = watched


def study(given: argparse.Namespace) -> None:
    """Run a study at ``given.study`` trials at once, without its report; write what each trial had done when."""
    from rich.console import Console

    from microseg.config import SearchConfig
    from microseg.search.runner import run_trials
    from microseg.search.session import ready
    from microseg.search.spending import Spending
    from microseg.search.trials import Trials
    from microseg.study import Request, prepare
    from microseg.study.run import job_of
    from microseg.tracking import store, tree

    space = {
        "model": {"name": "unet", "params": {"depth": 2, "filters": 4}},
        "optimizer": {"name": "adam", "params": {"learning_rate": {"log_uniform": [1e-4, 1e-2]}}},
        "augment": {"name": "none"},
        "tile": 64,
        "epochs": given.epochs,
        "patience": given.epochs,
    }
    several = {"trials": given.trials, "concurrency": given.study}
    config = SearchConfig(space=space, folds=1, asha=None, race=None, **several)
    prepared = prepare(Request(name=NAME, data=str(Path("../data").resolve()), config=config))
    client, job = store.connect(), job_of(prepared)
    job.workdir.mkdir(parents=True)
    run = tree.open_study(client, NAME)
    trials = Trials(job.workdir / "optuna.db", NAME, prepared.space, config)
    with ready(config):
        run_trials(config, trials, job, (client, run), (Spending(trials, None), Console(quiet=True)), train)
    done = []
    for trial in tree.children(client, run.experiment_id, run.run_id):
        marks = json.loads((job.workdir / f"{trial.info.run_name}.json").read_text(encoding="utf-8"))
        ends = {"proposed": trial.info.start_time, "ended": trial.info.end_time}
        before = marks["process"][1]  # the processor's seconds until the trial came
        done.append(marks | {name: (moment / 1000, before) for name, moment in ends.items()})
    Path("trials.json").write_text(json.dumps(done), encoding="utf-8")


def studied(given: argparse.Namespace, concurrency: int, workdir: Path) -> list[dict[str, list[float]]]:
    """Run a study in a process of its own; return what its trials had done when, in order."""
    workdir.mkdir()
    passed = [f"--{name}={getattr(given, name)}" for name in ("trials", "epochs")]
    timed([str(Path(__file__).resolve()), *passed, f"--study={concurrency}"], workdir)
    found: list[dict[str, list[float]]] = json.loads((workdir / "trials.json").read_text(encoding="utf-8"))
    return sorted(found, key=lambda marks: marks["proposed"])


def stood_by(trial: dict[str, list[float]]) -> bool:
    """Say whether a trial's process began before the trial was proposed."""
    return trial["process"][0] < trial["proposed"][0]


def phases(trials: list[dict[str, list[float]]]) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of each phase of the trials, of the clock and of the worker's processor."""
    found: dict[str, dict[str, list[float]]] = {}
    for before, name in pairwise(["proposed", *PHASES]):
        gaps = [[end - start for start, end in zip(t[before], t[name], strict=True)] for t in trials]
        found[PHASES[name]] = {"clock": [gap[0] for gap in gaps], "processor": [gap[1] for gap in gaps]}
    whole = [[end - start for start, end in zip(t["proposed"], t["step"], strict=True)] for t in trials]
    found["(its process, prepared before)"] = {
        "clock": [t["entered"][0] - t["process"][0] for t in trials if stood_by(t)],
        "processor": [t["process"][1] for t in trials],
    }
    found["proposed to first step"] = {
        "clock": [one[0] for one in whole], "processor": [one[1] for one in whole]
    }  # fmt: skip
    return found


def an_hour(trials: list[dict[str, list[float]]]) -> float:
    """Return trials an hour of a study, from its first trial's work begun: Ray's own start is before it."""
    seconds = max(trial["ended"][0] for trial in trials) - trials[0]["proposed"][0]
    return 3600 * len(trials) / seconds


def packing(rates: dict[int, list[float]], given: argparse.Namespace) -> Table:
    """Return how many trials an hour were made at each concurrency, and their ratio by repeat."""
    alone = rates[1]
    table = Table(f"{given.trials} trials of {given.epochs} epochs", "trials/hour", "of one at a time")
    for concurrency, found in rates.items():
        ratios = [rate / one for rate, one in zip(found, alone, strict=True)]
        table.add_row(f"{concurrency} at once", spread(found, 0), spread(ratios, 2))
    return table


def main() -> None:
    given, console = arguments(), terminal()
    if given.study:
        study(given)
        return
    from microseg.data.synthetic import write_demo

    first: list[dict[str, list[float]]] = []
    rates: dict[int, list[float]] = {1: [], given.packed: []}
    with tempfile.TemporaryDirectory() as scratch:
        write_demo(Path(scratch) / "data", images=24, sessions=8)
        for repeat in range(given.repeats):
            for concurrency, found in rates.items():
                trials = studied(given, concurrency, Path(scratch) / f"{repeat}-{concurrency}")
                found.append(an_hour(trials))
                first += trials[1:] if concurrency == 1 else []
    table = Table("from its suggestion to a trial's first training step", *HEADS)
    for label, seconds in phases(first).items():
        table.add_row(label, *(spread(values, 2) for values in seconds.values()))
    console.print(table)
    console.print(packing(rates, given))
    console.print(f"{os.cpu_count()} cores, load {os.getloadavg()[1]:.1f}", highlight=False)
    write_json(given.json, {"phases": phases(first), "trials_an_hour": rates, "load": os.getloadavg()})


if __name__ == "__main__":
    main()
