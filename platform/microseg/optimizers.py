"""Optimizers of Keras, by name; a clipping norm of None means no clipping."""

from __future__ import annotations

from typing import Annotated

import keras
from pydantic import Field

from microseg.components import Builder

Rate = Annotated[float, Field(gt=0.0, le=10.0)]
ClipNorm = Annotated[float, Field(gt=0.0)] | None


def adam(
    *, learning_rate: Rate = 1e-3, amsgrad: bool = False, clipnorm: ClipNorm = None
) -> keras.optimizers.Optimizer:
    """Adam (Kingma and Ba 2015, arXiv:1412.6980), or AMSGrad (Reddi et al. 2018, arXiv:1904.09237)."""
    return keras.optimizers.Adam(learning_rate, amsgrad=amsgrad, global_clipnorm=clipnorm)


def adamw(
    *,
    learning_rate: Rate = 1e-3,
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 1e-4,
    clipnorm: ClipNorm = None,
) -> keras.optimizers.Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101)."""
    return keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay, global_clipnorm=clipnorm)


def sgd(
    *,
    learning_rate: Rate = 1e-2,
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9,
    nesterov: bool = True,
    clipnorm: ClipNorm = None,
) -> keras.optimizers.Optimizer:
    """Stochastic gradient descent with (Nesterov) momentum."""
    return keras.optimizers.SGD(learning_rate, momentum, nesterov=nesterov, global_clipnorm=clipnorm)


OPTIMIZERS: dict[str, Builder] = {"adam": adam, "adamw": adamw, "sgd": sgd}
