"""Training and prediction on a CUDA GPU: precisions, XLA, and the backends of Keras, with the share of its peak.

Each backend runs in a process of its own, which builds the same U-Net, loss and metrics (they hold no TensorFlow
call) and takes turns: bare steps on batches in memory, steps as `train_fold` takes them (patches are drawn and
augmented on the processor by tf.data), and tiled prediction beside the bare network, by precision, with and without
XLA. "Of peak" is the share of what the product of two large matrices reaches in the same precision. Where there is
no GPU nothing is measured; ``--device cpu`` tries the script itself with a small network.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import terminal, write_json
from rich.table import Table

from microseg.bench.turns import ratio, spread, take_turns

BACKENDS = ("tensorflow", "jax", "torch")
PRECISIONS = ("float32", "float16", "bfloat16")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--filters", type=int, default=32)
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--turn", type=float, default=3.0, help="seconds of a turn of bare steps, about")
    parser.add_argument("--part", help=argparse.SUPPRESS)  # in a process of its own: the file to write
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args()


def gpus() -> list[str]:
    """Return the names of the CUDA GPUs, as the driver tells them."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in said.splitlines() if line.strip()]


def xla_of(backend: str) -> tuple[bool, ...]:
    """Return whether to measure with and without compilation; JAX is nothing without, eager PyTorch is usual."""
    return {"tensorflow": (False, True), "jax": (True,), "torch": (False,)}[backend]


def measure(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure a backend in this process."""
    from microseg import runtime

    runtime.load_tensorflow()
    import keras
    import tensorflow as tf

    if keras.backend.backend() != "tensorflow" or given.device == "cpu":
        tf.config.set_visible_devices([], "GPU")  # tf.data stays on the processor
    from microseg.bench.machine import product
    from microseg.bench.networks import cells

    pairs, rows = cells(2 * given.tile), []
    for precision in given.precisions:
        with runtime.fresh_session(precision, 0):
            multiply, operations = product(precision)
            peak = operations / min(multiply() for _ in range(5))
        for xla in xla_of(keras.backend.backend()):
            names = {"backend": keras.backend.backend(), "precision": precision, "xla": xla}
            rows.append(names | {"peak": peak / 1e9} | one(given, precision, xla, pairs))
    return rows


def one(given: argparse.Namespace, precision: Any, xla: bool, pairs: Any) -> dict[str, Any]:
    """Return images a second, in training and in prediction, of the platform and of the bare network."""
    from microseg import runtime
    from microseg.bench.inference import Prediction, saved
    from microseg.bench.networks import timed_config
    from microseg.bench.training import Trainer

    config = timed_config(precision, given.batch, given.tile, given.depth, given.filters)
    with runtime.fresh_session(precision, 0):
        trainer = Trainer(config, pairs, given.turn, jit_compile=xla)
        training = take_turns(trainer.ways, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        segmenter = saved(config, Path(folder) / "model")
    segmenter.networks[0].jit_compile = xla
    prediction = Prediction(segmenter, 8 * given.tile if given.device == "gpu" else 2 * given.tile)
    predicting = take_turns(prediction.ways, 0.0)
    return {
        "training": [trainer.images / seconds for seconds in training["fold"]],
        "training share": ratio(training["bare"], training["fold"]).median,
        "prediction": [prediction.tiles / seconds for seconds in predicting["tiled"]],
        "prediction share": ratio(predicting["bare"], predicting["tiled"]).median,
    }


def in_process(given: argparse.Namespace, backend: str, folder: Path) -> list[dict[str, Any]]:
    """Measure a backend in a process of its own; of one that fails, its last line is the row."""
    output = folder / f"{backend}.json"
    sizes = [
        f"--{name}={getattr(given, name)}" for name in ("device", "depth", "filters", "tile", "batch", "turn")
    ]
    command = [sys.executable, __file__, f"--part={output}", *sizes, "--precisions", *given.precisions]
    settings = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2"}
    settings |= {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"} if given.device == "cpu" else {}
    ended = subprocess.run(command, env=os.environ | settings, stderr=subprocess.PIPE, text=True)
    if ended.returncode:
        said = ended.stderr.strip().splitlines() or ["nothing"]
        return [{"backend": backend, "failed": said[-1][:200]}]
    rows: list[dict[str, Any]] = json.loads(output.read_text(encoding="utf-8"))
    return rows


def operations(given: argparse.Namespace) -> float:
    """Return the 10^9 operations of a prediction of a tile, which TensorFlow counts."""
    from microseg import runtime

    runtime.load_tensorflow()
    from microseg.bench.networks import timed_config
    from microseg.models import build_model

    model = timed_config(depth=given.depth, filters=given.filters).model
    return runtime.operations(build_model(model, 1, 1), (1, given.tile, given.tile, 1)) / 1e9


def table(rows: list[dict[str, Any]], gflop: float, title: str) -> Table:
    shown = Table(title=title, title_justify="left")
    columns = ("training, images/s", "of bare", "of peak", "prediction, tiles/s", "of bare", "of peak")
    for column in ("backend", "precision", "XLA", *columns):
        shown.add_column(column)
    for row in rows:
        if "failed" in row:
            shown.add_row(row["backend"], "not measured:", "", row["failed"])
            continue
        cells = [row["backend"], row["precision"], "yes" if row["xla"] else "no"]
        for part, factor in (("training", 3.0), ("prediction", 1.0)):
            speed = spread(row[part])
            share = f"{factor * gflop * speed.median / row['peak']:.0%}"
            cells += [str(speed), f"{row[f'{part} share']:.2f}", share]
        shown.add_row(*cells)
    return shown


def main() -> None:
    given, console = arguments(), terminal()
    if given.part:
        Path(given.part).write_text(json.dumps(measure(given)), encoding="utf-8")
        return
    found = gpus()
    if given.device == "gpu" and not found:
        console.print("skipped: nvidia-smi names no CUDA GPU here; --device cpu tries the script itself")
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for backend in given.backends for row in in_process(given, backend, Path(folder))]
    gflop, device = operations(given), ", ".join(found) if given.device == "gpu" else "processor"
    console.print(
        table(rows, gflop, f"{device}: {gflop:.1f} GFLOP a tile of {given.tile}, batches of {given.batch}")
    )
    write_json(given.json, {"device": device, "gflop": gflop, "rows": rows})


if __name__ == "__main__":
    main()
