"""Weights of the classes, against the imbalance of their pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import numpy as np
from keras import ops
from pydantic import Field

from microseg.config import Component
from microseg.errors import MicrosegError
from microseg.losses.targets import Tensor

Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
ClassWeights = tuple[Weight, ...] | Literal["balanced"] | None


def per_class(weights: ClassWeights, y_pred: Tensor) -> Tensor:
    """Return the weight of every class, background first, float32; None weighs all classes 1.

    Raises
    ------
    MicrosegError
        If their number is not that of the classes, or if ``balanced`` was not resolved by `balance`.
    """
    classes = max(y_pred.shape[-1], 2)
    if weights == "balanced":
        raise MicrosegError(
            "class_weights is 'balanced', but no class frequencies were given; give one number per class,"
            " background first, or resolve it with microseg.losses.balance"
        )
    if weights is not None and len(weights) != classes:
        raise MicrosegError(
            f"class_weights has {len(weights)} numbers, but there are {classes} classes with the background;"
            f" give {classes}, background first"
        )
    return ops.convert_to_tensor(weights or (1.0,) * classes, "float32")


def balance(component: Component, frequency: Callable[[], Sequence[float]]) -> Component:
    """Replace ``class_weights: balanced`` of a loss by numbers; other components are returned as they are.

    A class that makes up the share f of the labelled pixels weighs 1 / (n f), where n classes occur:
    every class weighs alike in the sum over all pixels, and the mean weight of a pixel is 1. A class that
    does not occur weighs 0.

    Parameters
    ----------
    component : Component
        A loss.
    frequency : callable
        Returns the pixels of each class in the training data, background first: counts or shares. It is asked
        only where they are needed, as it reads all masks.

    Raises
    ------
    MicrosegError
        If no class has a pixel, or a frequency is negative or no number.
    """
    if component.params.get("class_weights") != "balanced":
        return component
    given = frequency()
    share = np.asarray(given, dtype=np.float64)
    if not (np.all(np.isfinite(share)) and np.all(share >= 0) and share.sum() > 0):
        raise MicrosegError(
            f"class frequencies are {list(given)}; balanced class_weights need labelled pixels, counted"
            " per class; check the masks of the training images"
        )
    occurs = share > 0
    weights = np.zeros_like(share)
    weights[occurs] = share.sum() / (np.count_nonzero(occurs) * share[occurs])
    return component.model_copy(
        update={"params": component.params | {"class_weights": tuple(weights.tolist())}}
    )
