"""How long ``mlflow models serve`` takes to answer, and how much of that is not the network.

A U-Net with random weights is registered in a store of its own and served; PNG and NPY in base64 and nested
lists of numbers are sent in turn. What the network itself takes for the same image (the calls of
``predict_on_batch``) is measured in this process in the same rounds, while the server waits.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from measure import environment, terminal, write_json
from numpy.typing import NDArray
from rich.table import Table

from microseg.config import Component, TrialConfig
from microseg.data.images import write_image
from microseg.serving.client import Client

Image = NDArray[np.uint8]

ALONE, LISTS = "the network alone", "JSON lists of float32"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[512, 2048], help="sides of the images, pixels"
    )
    parser.add_argument("--repeats", type=int, default=20, help="requests of each kind and size")
    parser.add_argument("--depth", type=int, default=4, help="levels of the U-Net")
    parser.add_argument("--filters", type=int, default=16, help="filters of its first level")
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--networks", type=int, default=1, help="members of the ensemble")
    parser.add_argument("--clients", type=int, default=4, help="that ask at once")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args()


def register(given: argparse.Namespace, workdir: Path) -> Path:
    """Register a model in the store of a folder; return the folder of its card and networks."""
    import mlflow

    from microseg.models import build_model
    from microseg.serving.card import ModelCard
    from microseg.serving.packaging import log_candidate
    from microseg.serving.unlike import appearance

    component = Component(name="unet", params={"depth": given.depth, "filters": given.filters})
    card = ModelCard(
        name="bench", study="bench", trial="trial-000",
        config=TrialConfig(model=component, tile=given.tile, precision="float32"),
        channels=1, classes=("cell",), data_digest="", appearance=appearance([picture(512, 0)]),
    )  # fmt: skip
    folder = workdir / "model"
    folder.mkdir()
    for number in range(given.networks):
        build_model(component, 1, 1).save(folder / f"fold-{number}.keras")
    mlflow.set_tracking_uri(environment(workdir)["MLFLOW_TRACKING_URI"])
    client = mlflow.MlflowClient()
    experiment = client.create_experiment("bench", artifact_location=(workdir / "artifacts").as_uri())
    log_candidate(card, sorted(folder.glob("*.keras")), client.create_run(experiment).info.run_id)
    card.write(folder)
    return folder


def picture(side: int, seed: int) -> Image:
    """Return an image that compresses about as micrographs do."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    waves = 90 + 60 * np.sin(x / 17) * np.sin(y / 23)
    return (waves + rng.normal(0, 4, (side, side))).clip(0, 255).astype(np.uint8)[..., None]


@contextmanager
def served(workdir: Path) -> Iterator[tuple[str, Callable[[], float]]]:
    """Serve the model; yield its address and a function for the resident memory, MiB."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port = opened.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/bench@candidate"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    settings = environment(workdir) | {"PYTHONPATH": ""}
    settings["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{settings['PATH']}"
    with (workdir / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=settings, cwd=workdir, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield f"http://127.0.0.1:{port}", lambda: resident(process.pid)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def resident(session: int) -> float:
    """Return the MiB of all processes of a session."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            total += int(fields[21]) if int(fields[3]) == session else 0
        except (OSError, ValueError):  # it ended meanwhile
            continue
    return total * os.sysconf("SC_PAGE_SIZE") / 2**20


def first_answer(address: str, file: Path) -> None:
    """Ask until the server answers."""
    while True:
        try:
            urllib.request.urlopen(f"{address}/ping", timeout=1).close()
            break
        except OSError:
            time.sleep(0.05)
    Client(address).segment(file)


def seconds(call: Callable[[], Any]) -> Callable[[], float]:
    """Return a call that tells how long another takes."""

    def timed() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return timed


def nested(address: str, image: Image) -> Callable[[], None]:
    """Return a call that sends the image as lists, as float numbers; encoding them is counted as in a client."""
    values = image.astype(np.float32) / np.float32(255)

    def ask() -> None:
        body = json.dumps({"inputs": [{"tensor": values.tolist()}]}).encode()
        request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=120).read()

    return ask


def ways(address: str, image: Image, file: Path, segmenter: Any) -> dict[str, Callable[[], float]]:
    """Return the calls to compare for one image, each of which returns its seconds; the slow ones last."""
    client, floats = Client(address), image.astype(np.float32) / np.float32(255)
    return {
        ALONE: lambda: forward(segmenter, image),
        "PNG, base64": seconds(lambda: client.segment(file)),
        "NPY uint8, base64": seconds(lambda: client.segment(image)),
        "NPY float32, base64": seconds(lambda: client.segment(floats)),
        "PNG, with instances and table": seconds(lambda: client.segment(file, instances=True, table=True)),
        LISTS: seconds(nested(address, image)),
    }


def forward(segmenter: Any, image: Image) -> float:
    """Return what the network alone takes for an image."""
    import keras

    original, spent = keras.Model.predict_on_batch, []

    def counted(model: keras.Model, batch: Any) -> Any:
        start = time.perf_counter()
        found = original(model, batch)
        spent.append(time.perf_counter() - start)
        return found

    keras.Model.predict_on_batch = counted
    try:
        segmenter.probability(image)
    finally:
        keras.Model.predict_on_batch = original
    return sum(spent)


def rounds(calls: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Call all in turn, after a first round that is not counted; the lists of numbers only in every fifth."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(repeats + 1):
        for name, call in calls.items():
            if name != LISTS or number % 5 == 1:
                times[name].append(call())
    return {name: values if name == LISTS else values[1:] for name, values in times.items()}


def flood(address: str, file: Path, clients: int, requests: int) -> float:
    """Return the requests a second that several clients get answered."""
    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(lambda _: Client(address).segment(file), range(requests)))
    return requests / (time.perf_counter() - start)


def main() -> None:
    given, console = arguments(), terminal()
    with tempfile.TemporaryDirectory() as scratch:
        workdir = Path(scratch)
        folder = register(given, workdir)
        from microseg.serving.segmenter import Segmenter

        segmenter = Segmenter(folder)
        for side in given.sizes:
            write_image(workdir / f"{side}.png", picture(side, 1))
        start, times = time.perf_counter(), {}
        with served(workdir) as (address, memory):
            file = workdir / f"{given.sizes[0]}.png"
            first_answer(address, file)
            first, begin = time.perf_counter() - start, memory()
            for side in given.sizes:
                calls = ways(address, picture(side, 1), workdir / f"{side}.png", segmenter)
                times[side] = rounds(calls, given.repeats)
            rate = flood(address, file, given.clients, 4 * given.clients)
            end = memory()
    table = Table("side", "way", "p50, s", "p95, s", "share outside the network, median of rounds")
    for side, of_ways in times.items():
        for way, values in of_ways.items():
            middle, high = np.percentile(values, (50, 95))
            pairs = zip(of_ways[ALONE][:: 5 if way == LISTS else 1], values, strict=False)
            outside = np.median([1 - alone / answer for alone, answer in pairs])
            table.add_row(str(side), way, f"{middle:.3f}", f"{high:.3f}", f"{outside:.0%}")
    console.print(table)
    console.print(f"from the command to the first answer: {first:.1f} s", highlight=False)
    console.print(f"{given.clients} clients at once: {rate:.2f} requests a second", highlight=False)
    console.print(f"memory of the server: {begin:.0f} MiB after the first answer, {end:.0f} at the end")
    record = {"first": first, "seconds": times, "rate": rate, "memory": [begin, end]}
    write_json(given.json, record)


if __name__ == "__main__":
    main()
