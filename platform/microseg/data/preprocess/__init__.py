"""Preprocessing: one function of a whole image, applied alike in training, validation, batch and serving.

Every entry takes an image of shape (height, width, channels), never a tile of it, and does three steps in
this order: it selects channels and their colour space, normalises the intensities (which is what the entries
differ in), and adjusts the contrast. The same component on the same image gives the same float32 values
wherever it runs.

A step measures its constants on an image given in bands of rows, and returns a function of any window of
that image. A whole image is one band and one window; of an image that does not fit in memory, `fit` measures
many bands, with results equal to the bit.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable
from typing import Any

import numpy as np

from microseg.components import Builder, check, create
from microseg.config import Component
from microseg.data.preprocess import normalise
from microseg.data.preprocess.bands import Array, Bands, Transform, strips
from microseg.data.preprocess.channels import select
from microseg.data.preprocess.contrast import adjust, undivided

__all__ = [
    "PREPROCESSING",
    "Preprocessing",
    "Transform",
    "divisible",
    "fit",
    "output_channels",
    "percentile",
    "scale",
    "zscore",
]


class Preprocessing:
    """Select, a normalisation and adjust as one function that takes the keyword arguments of all three.

    Parameters
    ----------
    normalisation : callable
        A step: of bands and keyword arguments, it returns a function of any window.
    """

    def __init__(self, normalisation: Builder) -> None:
        functools.update_wrapper(self, normalisation)
        self._keywords = {step: _keywords(step) for step in (select, normalisation, adjust)}
        merged = {name: parameter for own in self._keywords.values() for name, parameter in own.items()}
        image = inspect.Parameter("image", inspect.Parameter.POSITIONAL_ONLY)
        # What `components.check` reads, and what `inspect.signature` returns.
        self.__annotations__ = {name: parameter.annotation for name, parameter in merged.items()}
        self.__signature__ = inspect.Signature([image, *merged.values()])

    def __call__(self, image: Array, **params: Any) -> Array:
        """Return a whole image preprocessed, (height, width, channels) float32."""
        for step, own in self._steps(params):
            image = step(lambda image=image: [image], **own)(image)
        return image

    def fit(self, bands: Bands, **params: Any) -> Transform:
        """Return the preprocessing of the image that the bands make up, see `fit`."""
        if not divisible(params):
            return undivided(functools.partial(self, **params), bands)
        transforms: list[Transform] = []
        for step, own in self._steps(params):
            transforms.append(step(functools.partial(_transformed, bands, tuple(transforms)), **own))
        return functools.partial(_in_strips, transforms=transforms)

    def _steps(self, params: dict[str, Any]) -> list[tuple[Builder, dict[str, Any]]]:
        self.__signature__.bind(None, **params)  # refuses what no step takes
        return [
            (step, {name: params[name] for name in keywords if name in params})
            for step, keywords in self._keywords.items()
        ]


def _keywords(step: Builder) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(step, eval_str=True).parameters
    return {
        name: parameter for name, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY
    }


def _transformed(bands: Bands, transforms: tuple[Transform, ...]) -> Iterable[Array]:
    return (_in_turn(strip, transforms=transforms) for strip in strips(bands))


def _in_strips(window: Array, *, transforms: Iterable[Transform]) -> Array:
    return np.concatenate([_in_turn(strip, transforms=transforms) for strip in strips(lambda: [window])])


def _in_turn(image: Array, *, transforms: Iterable[Transform]) -> Array:
    for transform in transforms:
        image = transform(image)
    return image


percentile = Preprocessing(normalise.percentile)
scale = Preprocessing(normalise.scale)
zscore = Preprocessing(normalise.zscore)

PREPROCESSING: dict[str, Preprocessing] = {"percentile": percentile, "scale": scale, "zscore": zscore}


def fit(component: Component, bands: Bands) -> Transform:
    """Measure an image in bands of rows and return its preprocessing as a function of any window of it.

    ``fit(component, bands)(window)`` equals that window of the whole image preprocessed, bit for bit,
    however the image is divided.

    Parameters
    ----------
    component : Component
        An entry of ``PREPROCESSING`` and its parameters.
    bands : callable
        Each call starts anew and returns the image's bands, top to bottom: whole rows, (rows, width,
        channels), of any heights. Only what is needed is read: nothing for ``scale``; all of it once
        (and its first band before) for 8 and 16 bits, twice for float32, once more for a gamma.

    Returns
    -------
    callable
        Of a window, (height, width, channels) as in the bands; it returns float32. Beside its result
        and a copy of that, its memory does not depend on the window's height.

    Raises
    ------
    MicrosegError
        If the component does not fit its table, or CLAHE is asked for and there are several bands. As
        the whole image would be refused: in the pass, or when a window is preprocessed.
    """
    params = check(component, PREPROCESSING, "preprocess")
    return PREPROCESSING[component.name].fit(bands, **params)


def divisible(params: dict[str, Any]) -> bool:
    """Say whether windows of an image can be preprocessed; CLAHE needs all of it."""
    return params.get("clahe") is None


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
