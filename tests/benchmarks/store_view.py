"""Whether MLflow's own pages stay readable, and how large a store becomes: 200 trials of 5 folds, simulated.

Searcher, tracker, views and the policy of what is kept are the real ones; a training tells its curve at once
(see `simulation`) and leaves a small file in place of its network, and pictures. The store has several
studies, in one of which trials ended early. MLflow's server is started on the loopback address, the search
behind each page is timed, and a headless Chromium draws the pages, for somebody to look at.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from measure import PROJECT, environment, terminal, write_json
from rich.table import Table

SPACE = PROJECT / "search_spaces" / "unet_family.yaml"
LARGE, RACED = "nuclei-2026", "nuclei-raced"
EARLIER = ("astrocytes-height", "astrocytes-phase", "organoids")
EPOCHS = 3
NETWORK = 20_000  # bytes that stand for a network
LOCAL = "http://127.0.0.1:5000"  # where links say that the server of a local store is
SEARCHED = {  # what the pages ask of the server
    "newest runs": {"order_by": ["attributes.start_time DESC"]},
    "studies": {"filter": "tags.`microseg.level` = 'study'", "order_by": ["attributes.start_time DESC"]},
    "trials by rank": {
        "filter": f"tags.`microseg.level` = 'trial' and tags.`microseg.study` = '{LARGE}'",
        "order_by": ["metrics.`rank` ASC"],
    },
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True, help="new or empty folder; pages land there")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--keep", default="models", choices=("models", "all", "finalists", "best"))
    parser.add_argument("--look", action="store_true", help="only draw the pages of a workdir that is filled")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args()


def fill(given: argparse.Namespace) -> dict[str, Any]:
    """Simulate the studies; return what each took, what its end took and said, and the link to its view."""
    from microseg import runtime

    runtime.load_tensorflow()
    counts = dict.fromkeys(EARLIER, 12) | {RACED: 40, LARGE: given.trials}
    return {name: simulate(name, trials, given) for name, trials in counts.items()}


def settings(name: str, trials: int, given: argparse.Namespace) -> Any:
    from microseg.config import SearchConfig, parse, read_yaml

    values: dict[str, Any] = read_yaml(SPACE)
    values["space"] |= {"epochs": EPOCHS}
    values |= {"trials": trials, "folds": given.folds, "concurrency": 4, "curves": "brief"}
    values |= {"keep": given.keep} | ({} if name == RACED else {"asha": None, "race": None})
    return parse(SearchConfig, values, str(SPACE))


def simulate(name: str, count: int, given: argparse.Namespace) -> dict[str, Any]:
    import simulation
    from responses import Simulated

    from microseg.search.trials import Trials
    from microseg.space import parse_space
    from microseg.tracking import store, tree

    start, client, folder = time.time(), store.connect(), given.workdir / name
    config = settings(name, count, given)
    job = simulation.job(config, EPOCHS, folder, given.folds).model_copy(update={"keep": given.keep})
    folder.mkdir()
    with tree.study_run(client, name) as run:
        tags = {"mode": "max", "folds": str(given.folds), "metric": "val/dice", "data": "simulated"}
        tree.set_tags(client, run.run_id, {f"microseg.{key}": text for key, text in tags.items()})
        trials = Trials(folder / "optuna.db", name, parse_space(config.space), config)
        objective = Simulated(seed=len(name), epochs=EPOCHS, folds=given.folds)
        simulation.run(config, trials, pictured(job, objective), (client, run))
        searched = time.time()
        link, kept = end(client, run, config, folder)
    return {"link": link, "kept": kept, "seconds": searched - start, "end": time.time() - searched}


def pictured(job: Any, objective: Any) -> Any:
    """Return workers whose folds leave a network and report pictures, of the first epoch and at the end."""
    import numpy as np
    import simulation

    from microseg.training import Progress, Sample

    truth = np.zeros((64, 64), np.uint8)
    truth[16:40, 20:44] = 1
    noise = np.random.default_rng(0).normal(size=(64, 64, 1)).astype(np.float32) / 4
    image = noise + truth[..., None]
    samples = (Sample("cell-1", image, truth, np.clip(image, 0, 1)),)

    class Pictured(simulation.Workers):
        def _fold(self, config: Any, fold: Any) -> Iterator[Progress]:
            (job.workdir / "model.keras").write_bytes(os.urandom(NETWORK))
            for event in super()._fold(config, fold):
                shown = samples if event.epoch == 1 or event.result else ()
                yield Progress(event.fold, event.epoch, event.metrics, shown, event.result)

    return Pictured(job, objective)


def end(client: Any, run: Any, config: Any, folder: Path) -> tuple[str, str]:
    """Do what the end of a study does, but for its report and its candidate."""
    from microseg import report
    from microseg.study.keeping import tidy
    from microseg.tracking import views

    seen = report.view(client, client.get_run(run.run_id))
    report.mark(client, seen)
    link = views.share_view(client, run, "cv/dice", seen.varied, seen.shared)
    return link, tidy(client, seen, config, folder)


@contextmanager
def server(workdir: Path) -> Iterator[str]:
    """Run MLflow's server over the store, on a free port of the loopback address; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "ui", f"--port={port}", "--workers=1"]
    command += [f"--backend-store-uri=sqlite:///{workdir}/mlflow.db"]
    env = environment(workdir) | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    address = f"http://127.0.0.1:{port}"
    with (
        (workdir / "server.log").open("w") as log,
        subprocess.Popen(command, cwd=workdir, env=env, stdout=log, stderr=log) as process,
    ):
        try:
            while not answers(address):
                time.sleep(0.5)
            yield address
        finally:
            process.terminate()


def answers(address: str) -> bool:
    try:
        return requests.get(f"{address}/health", timeout=2).ok
    except requests.ConnectionError:
        return False


def search_seconds(address: str, asked: dict[str, Any], times: int = 5) -> float:
    """Return the median seconds of the search behind a page: the first hundred runs."""
    body, taken = {"experiment_ids": ["1"], "max_results": 100} | asked, []
    for _ in range(times):
        start = time.perf_counter()
        requests.post(f"{address}/ajax-api/2.0/mlflow/runs/search", json=body).raise_for_status()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def draw(browser: str, page: str, file: Path) -> None:
    """Draw a page as a visitor sees it."""
    with tempfile.TemporaryDirectory() as profile:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1900,900"]
        patience = ["--virtual-time-budget=45000", "--timeout=50000", f"--user-data-dir={profile}"]
        command = [browser, *options, *patience, f"--screenshot={file}", page]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def pages(address: str, found: dict[str, Any]) -> dict[str, str]:
    """Return the pages to look at: as MLflow opens, all studies, and two studies' trials and charts."""
    study, raced = (found[name]["link"].replace(LOCAL, address) for name in (LARGE, RACED))
    runs, _, key = study.partition("viewStateShareKey=")
    return {
        "default": f"{address}/#/experiments/1/runs",
        "experiments": f"{address}/#/experiments",
        "studies": f"{runs}viewStateShareKey=microseg-studies",
        "study": f"{runs}viewStateShareKey={key}",
        "charts": f"{runs}viewStateShareKey={key}&compareRunsMode=CHART",
        "raced": raced,
    }


def main() -> None:
    given, console = arguments(), terminal()
    given.workdir = given.workdir.resolve()
    given.workdir.mkdir(parents=True, exist_ok=True)
    os.environ |= environment(given.workdir)
    os.chdir(given.workdir)
    filled = given.workdir / "studies.json"
    if not given.look:
        write_json(filled, fill(given))
    found = json.loads(filled.read_text(encoding="utf-8"))
    table = Table("study", "s simulated", "s at its end", "kept")
    for name, one in found.items():
        table.add_row(name, f"{one['seconds']:.1f}", f"{one['end']:.1f}", one["kept"])
    console.print(table)
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    with server(given.workdir) as address:
        seconds = {page: search_seconds(address, asked) for page, asked in SEARCHED.items()}
        for page, link in pages(address, found).items() if browser else ():
            draw(browser, link, given.workdir / f"{page}.png")
    for page, taken in seconds.items():
        console.print(f"search for {page:<15} {taken:.3f} s", highlight=False)
    console.print(f"pages drawn in {given.workdir}" if browser else "no Chromium here: no page was drawn")
    write_json(given.json, {"studies": found, "searches": seconds})


if __name__ == "__main__":
    main()
