"""The formats that a model can be exported to, each compared with the network that it came from."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from microseg.errors import MicrosegError, did_you_mean
from microseg.exporting import bioimage
from microseg.exporting.network import one_network, sample
from microseg.exporting.packages import needed
from microseg.exporting.source import Source
from microseg.runtime import hidden

TOLERANCE = 1e-4  # of a probability: other runtimes add in another order
SAVED_MODEL, ONNX, OPENVINO = "saved_model", "model.onnx", "model.xml"
DESCRIPTION = "microseg.json"
_TIMED = 5

Image = NDArray[np.float32]
Predict = Callable[[Image], Image]


class Exported(NamedTuple):
    """What was written: its files, the largest difference of a probability, and Keras' time over its own."""

    files: tuple[Path, ...]
    difference: float
    speed: float


def export(source: Source, format: str, output: Path) -> Exported:
    """Write a model in a format of other programs, checked against the networks that it came from.

    Beside it lies ``microseg.json``: what goes into the network (preprocessed how), what comes out, tile,
    halo and threshold.

    Parameters
    ----------
    source : Source
        The model.
    format : str
        A key of ``FORMATS``.
    output : Path
        A folder that does not exist; it appears as a whole or not at all.

    Returns
    -------
    Exported

    Raises
    ------
    MicrosegError
        If the format is unknown, a package for it is missing, the folder exists, or the answers differ by
        more than 1e-4.
    """
    if format not in FORMATS:
        raise MicrosegError(f"format '{format}' is not known; {did_you_mean(format, FORMATS)}")
    if output.exists():
        raise MicrosegError(f"{output}: exists already; give a folder that does not")
    network = one_network(source.members)
    image = sample(network, source.config.tile)
    expected = np.asarray(network(image, training=False))
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as scratch:
        folder = Path(scratch, "whole")
        folder.mkdir()
        predict = FORMATS[format](source, network, image, folder)
        difference = _compared(predict, image, expected, format)
        facts = json.dumps(_facts(source, network), indent=2)
        Path(folder, DESCRIPTION).write_text(facts + "\n", encoding="utf-8")
        shutil.move(folder, output)
        speed = _speed(network.predict_on_batch, image) / _speed(predict, image)
    return Exported(tuple(sorted(output.iterdir())), difference, speed)


def _compared(predict: Predict, image: Image, expected: Image, format: str) -> float:
    answer = predict(image)
    if answer.shape != expected.shape:
        raise MicrosegError(
            f"format {format}: its answers have the shape {answer.shape}, not {expected.shape}; nothing was "
            "written: take another format"
        )
    difference = float(np.abs(answer - expected).max())
    if not difference <= TOLERANCE:
        raise MicrosegError(
            f"format {format}: its answers differ by {difference:.2g} from those of the model, more than "
            f"{TOLERANCE:g}; nothing was written: take another format"
        )
    return difference


def _speed(predict: Predict, image: Image) -> float:
    """Return the least seconds of a few predictions."""
    seconds = []
    for _ in range(_TIMED):
        start = time.perf_counter()
        predict(image)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _facts(source: Source, network: keras.Model) -> dict[str, Any]:
    config, grid = source.config, source.grid
    return {
        "model": source.name,
        "version": source.version,
        "about": source.about,
        "input": {
            "axes": ["batch", "height", "width", "channel"],
            "shape": network.inputs[0].shape,
            "type": "float32",
            "multiple of (pixels)": grid.stride,
            "preprocessing of the whole image, before tiles": config.preprocess.model_dump(),
        },
        "output": {
            "axes": ["batch", "height", "width", "class"],
            "meaning": "probability",
            "maps": source.maps,
            "threshold": config.threshold if network.outputs[0].shape[-1] == 1 else None,
        },
        "tile (pixels)": grid.tile,
        "halo (pixels)": grid.halo,
        "pixel size (um)": source.pixel_size_um,
    }


def _saved_model(source: Source, network: keras.Model, image: Image, folder: Path) -> Predict:
    import tensorflow as tf

    network.export(folder / SAVED_MODEL, format="tf_saved_model", verbose=False)
    loaded = tf.saved_model.load(str(folder / SAVED_MODEL))
    return lambda batch: np.asarray(loaded.serve(batch))


def _onnx(source: Source, network: keras.Model, image: Image, folder: Path) -> Predict:
    runtime = needed("onnxruntime")
    needed("tf2onnx")
    with warnings.catch_warnings():
        # Where warnings are errors, one that is raised in a step of tf2onnx leaves the graph half rewritten.
        warnings.simplefilter("ignore")
        network.export(folder / ONNX, format="onnx", verbose=False)
    _name_output(folder / ONNX)
    session = runtime.InferenceSession(folder / ONNX, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda batch: np.asarray(session.run(None, {given.name: batch})[0])


def _name_output(path: Path) -> None:
    """Call the output of an ONNX file ``probability``; tf2onnx calls it ``Identity:0``."""
    onnx = needed("onnx")
    model = onnx.load(path)
    (output,) = model.graph.output
    for node in model.graph.node:
        node.output[:] = ["probability" if name == output.name else name for name in node.output]
    output.name = "probability"
    onnx.save(model, path)


def _openvino(source: Source, network: keras.Model, image: Image, folder: Path) -> Predict:
    with hidden("openvino_telemetry"):  # which reports every conversion to its maker, without asking
        openvino = needed("openvino")
    with tempfile.TemporaryDirectory(prefix="microseg-") as scratch:
        network.export(Path(scratch, SAVED_MODEL), format="tf_saved_model", verbose=False)
        converted = openvino.convert_model(Path(scratch, SAVED_MODEL))
    openvino.save_model(converted, folder / OPENVINO, compress_to_fp16=False)
    # By itself it computes in bfloat16 where the processor does, which is no proof of equality.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(folder / OPENVINO, "CPU", exact)
    return lambda batch: np.asarray(compiled(batch)[0])


def _bioimage(source: Source, network: keras.Model, image: Image, folder: Path) -> Predict:
    needed("bioimageio.spec")
    predict = _onnx(source, network, image, folder)
    bioimage.write(source, image, predict, folder / ONNX)
    return predict


FORMATS: dict[str, Callable[[Source, keras.Model, Image, Path], Predict]] = {
    "saved-model": _saved_model,
    "onnx": _onnx,
    "openvino": _openvino,
    "bioimageio": _bioimage,
}
