"""Preprocessing: one function of a whole image, applied alike in training, validation, batch and serving.

Every entry takes an image of shape (height, width, channels), never a tile of it, and does three things in
this order: it selects channels and their colour space, normalises the intensities (which is what the entries
differ in), and adjusts the contrast. The same component on the same image gives the same float32 values
wherever it runs.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any, get_type_hints

import numpy as np

from microseg.components import Builder, create
from microseg.config import Component
from microseg.data.preprocess.channels import Array, select
from microseg.data.preprocess.contrast import adjust
from microseg.data.preprocess.normalise import percentile, scale, zscore

__all__ = ["PREPROCESSING", "output_channels", "percentile", "scale", "zscore"]


def _sequence(normalise: Builder) -> Builder:
    """Return select, normalise and adjust as one function that takes the keyword arguments of all three."""
    steps = (select, normalise, adjust)
    keywords = {
        step: {name: p for name, p in inspect.signature(step).parameters.items() if p.kind is p.KEYWORD_ONLY}
        for step in steps
    }
    merged = {name: parameter for step in steps for name, parameter in keywords[step].items()}
    own = inspect.signature(normalise)
    signature = own.replace(parameters=[own.parameters["image"], *merged.values()])

    @functools.wraps(normalise)
    def preprocess(image: Array, **params: Any) -> Array:
        signature.bind(image, **params)  # refuses what no step takes
        result = image
        for step in steps:
            result = step(result, **{name: params[name] for name in keywords[step] if name in params})
        return result

    hints = {name: hint for step in steps for name, hint in get_type_hints(step, include_extras=True).items()}
    preprocess.__annotations__ = hints  # what `components.check` reads
    preprocess.__signature__ = signature  # type: ignore[attr-defined] # what `inspect.signature` returns
    return preprocess


PREPROCESSING: dict[str, Builder] = {
    "percentile": _sequence(percentile),
    "scale": _sequence(scale),
    "zscore": _sequence(zscore),
}


def output_channels(component: Component, channels: int) -> int:
    """Return how many channels an image of so many has after its preprocessing.

    Parameters
    ----------
    component : Component
        An entry of ``PREPROCESSING`` and its parameters.
    channels : int
        Channels of the image as it is read.

    Raises
    ------
    MicrosegError
        If the component does not fit its table, its parameters exclude each other, or it selects channels
        or colours that such an image lacks.
    """
    pixel = np.zeros((1, 1, channels), np.uint8)
    return int(create(component, PREPROCESSING, "preprocess", pixel).shape[-1])
