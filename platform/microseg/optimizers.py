"""Optimizers of Keras, by name; a clipping limit of None means no clipping.

``clipnorm`` limits the norm of all gradients together, ``clipvalue`` each single value; give one of them.
"""

from __future__ import annotations

from typing import Annotated, Any

import keras
from pydantic import Field

from microseg.components import Builder
from microseg.errors import MicrosegError

Rate = Annotated[float, Field(gt=0.0, le=10.0)]
Clip = Annotated[float, Field(gt=0.0)] | None


def _clipping(clipnorm: float | None, clipvalue: float | None) -> dict[str, Any]:
    if clipnorm is not None and clipvalue is not None:
        raise MicrosegError(
            f"optimizer: clipnorm {clipnorm} and clipvalue {clipvalue} are given; choose one of them"
        )
    return {"global_clipnorm": clipnorm, "clipvalue": clipvalue}


def adam(
    *, learning_rate: Rate = 1e-3, amsgrad: bool = False, clipnorm: Clip = None, clipvalue: Clip = None
) -> keras.optimizers.Optimizer:
    """Adam (Kingma and Ba 2015, arXiv:1412.6980), or AMSGrad (Reddi et al. 2018, arXiv:1904.09237)."""
    return keras.optimizers.Adam(learning_rate, amsgrad=amsgrad, **_clipping(clipnorm, clipvalue))


def adamw(
    *,
    learning_rate: Rate = 1e-3,
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 1e-4,
    clipnorm: Clip = None,
    clipvalue: Clip = None,
) -> keras.optimizers.Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101)."""
    clipping = _clipping(clipnorm, clipvalue)
    return keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay, **clipping)


def sgd(
    *,
    learning_rate: Rate = 1e-2,
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9,
    nesterov: bool = True,
    clipnorm: Clip = None,
    clipvalue: Clip = None,
) -> keras.optimizers.Optimizer:
    """Stochastic gradient descent with (Nesterov) momentum."""
    clipping = _clipping(clipnorm, clipvalue)
    return keras.optimizers.SGD(learning_rate, momentum, nesterov=nesterov, **clipping)


OPTIMIZERS: dict[str, Builder] = {"adam": adam, "adamw": adamw, "sgd": sgd}
