"""A model description by the bioimage.io specification 0.5, which ilastik, napari and QuPath read.

https://github.com/bioimage-io/spec-bioimage-io; the packages that check it come with the extra ``export``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from microseg.components import create
from microseg.config import Component
from microseg.data.preprocess import PREPROCESSING
from microseg.errors import MicrosegError
from microseg.exporting.packages import needed
from microseg.exporting.source import Source

INPUT, OUTPUT, DOCUMENTATION, DESCRIPTION = "input.npy", "output.npy", "documentation.md", "rdf.yaml"
_SPACE = ("y", "x")
_EPS = 1e-12  # the least that the specification takes in place of 0

Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def preprocessing(component: Component) -> list[dict[str, Any]] | None:
    """Return the specification's steps that do what a preprocessing does; None where none do.

    Parameters
    ----------
    component : Component
        An entry of ``PREPROCESSING``: each channel of a whole image is normalised, which the specification
        knows; it knows neither channels to select nor colour spaces, CLAHE and gamma.
    """
    params = dict(component.params)
    if component.name == "percentile" and params.keys() <= {"low", "high", "clip"}:
        limits = {"min_percentile": params.get("low", 1.0), "max_percentile": params.get("high", 99.8)}
        stretch = {"id": "scale_range", "kwargs": {"axes": [*_SPACE], "eps": _EPS, **limits}}
        clip = {"id": "clip", "kwargs": {"min": 0.0, "max": 1.0}}
        return [stretch, clip] if params.get("clip", True) else [stretch]
    if component.name == "zscore" and not params:
        return [{"id": "zero_mean_unit_variance", "kwargs": {"axes": [*_SPACE], "eps": _EPS}}]
    if component.name == "scale" and params.keys() == {"maximum"}:
        return [{"id": "scale_linear", "kwargs": {"gain": 1 / params["maximum"]}}]
    return None


def write(source: Source, image: NDArray[np.float32], predict: Predict, weights: Path) -> None:
    """Write ``rdf.yaml``, the documentation and a pair of test tensors beside ONNX weights, and check them.

    Parameters
    ----------
    source : Source
        The model.
    image : ndarray of float32, shape (1, height, width, channels)
        What the test tensors are made of: an image in 0..1.
    predict : callable
        The exported network, from preprocessed images to probabilities.
    weights : Path
        The ``.onnx`` file; all others are written into its folder.

    Raises
    ------
    MicrosegError
        If the specification's own check finds something.
    """
    spec, folder = needed("bioimageio.spec"), weights.parent
    steps = preprocessing(source.config.preprocess)
    given = image if steps is None else image * np.float32(255)
    prepared = given
    if steps is not None:
        prepared = create(source.config.preprocess, PREPROCESSING, "preprocess", given[0])[None]
    np.save(folder / INPUT, given)
    np.save(folder / OUTPUT, predict(prepared))
    (folder / DOCUMENTATION).write_text(_documentation(source, steps), encoding="utf-8")
    described = _description(source, image.shape, steps or [], weights)
    plain = json.loads(json.dumps(described))  # or YAML would say by reference what occurs twice
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    (folder / DESCRIPTION).write_text(text, encoding="utf-8")
    loaded = spec.load_description(folder / DESCRIPTION, perform_io_checks=True)
    if loaded.validation_summary.status == "failed":
        problem = loaded.validation_summary.errors[0]
        where = ".".join(str(part) for part in problem.loc)
        raise MicrosegError(f"bioimage.io does not take the description: {where}: {problem.msg}")


def _description(
    source: Source, shape: tuple[int, ...], steps: list[dict[str, Any]], weights: Path
) -> dict[str, Any]:
    """Return the description as plain values."""
    fixed = source.members[0].inputs[0].shape[1:3]
    grid, channels = source.grid, [f"channel{n + 1}" for n in range(shape[-1])]
    free = {"min": grid.tile, "step": grid.stride}
    sizes = dict(zip(_SPACE, (size or free for size in fixed), strict=True))
    scale = {"unit": "micrometer", "scale": source.pixel_size_um} if source.pixel_size_um else {}
    plane = [{"type": "space", "id": axis, "size": sizes[axis], **scale} for axis in _SPACE]
    same = [axis | {"size": {"tensor_id": "image", "axis_id": axis["id"]}} for axis in plane]
    described = {
        "format_version": "0.5.4",
        "type": "model",
        "name": re.sub(r"[^\w ()+-]", "-", f"{source.name} {source.version}"),
        "description": source.about[:1024],
        "authors": [{"name": source.author}],
        "documentation": DOCUMENTATION,
        "tags": ["segmentation", "microseg"],
        "inputs": [
            {
                "id": "image",
                "axes": [{"type": "batch"}, *plane, {"type": "channel", "channel_names": channels}],
                "test_tensor": {"source": INPUT},
                "data": {"type": "float32"},
                "preprocessing": steps,
            }
        ],
        "outputs": [
            {
                "id": "probability",
                "axes": [{"type": "batch"}, *same, {"type": "channel", "channel_names": list(source.maps)}],
                "test_tensor": {"source": OUTPUT},
                "data": {"type": "float32", "range": [0.0, 1.0]},
            }
        ],
        "weights": {"onnx": {"source": weights.name, "opset_version": opset(weights)}},
    }
    return described | ({"license": source.license} if source.license else {})


def opset(weights: Path) -> int:
    """Return the version of the operators that an ONNX file is written in."""
    file = needed("onnx").load(weights, load_external_data=False)
    return max(int(one.version) for one in file.opset_import if one.domain in ("", "ai.onnx"))


def _documentation(source: Source, steps: list[dict[str, Any]] | None) -> str:
    grid, scores = source.grid, ", ".join(f"{name} {score:.4f}" for name, score in source.scores.items())
    way = source.config.preprocess
    before = "The description names all that is done to an image before the network."
    if steps is None:
        before = (
            f"Before the network, a whole image goes through microseg's `{way.name}` with "
            f"{json.dumps(way.params)}: the description has no step that does the same."
        )
    return (
        f"# {source.name}, version {source.version}\n\n{source.about}\n\n{before}\n\n"
        f"Probabilities of: {', '.join(source.maps)}. Tiles of {grid.tile} pixels, of which {grid.halo} at "
        f"each border are discarded, in steps of {grid.stride} pixels. "
        f"Threshold {source.config.threshold:g}.\n\n"
        f"# Validation\n\nSelection scores of cross-validation, which chose the model: {scores or 'none'}.\n"
    )
