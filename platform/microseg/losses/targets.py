"""What targets and probabilities hold: the labelled foreground, and the mean over what is labelled."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from keras import ops
from pydantic import Field

Tensor = Any
Reduction = Literal["image", "batch"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Smooth = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]

EPSILON = 1e-7  # keeps a logarithm, a root and their gradients finite where a probability is 0 or 1
AXES: dict[Reduction, tuple[int, ...]] = {"image": (1, 2), "batch": (0, 1, 2)}


def labelled_foreground(y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return truth, probability and which pixels are labelled, of the foreground maps.

    Returns
    -------
    tuple of tensor, each float32, shape (batch, height, width, foreground maps)
        The truth is 0 where nothing is labelled, and so is the third, elsewhere 1.
    """
    first = 1 if y_pred.shape[-1] > 1 else 0
    truth = ops.cast(y_true[..., first:], "float32")
    labelled = ops.cast(truth >= 0, "float32")
    return truth * labelled, ops.cast(y_pred[..., first:], "float32"), labelled


def mean_where_labelled(loss: Tensor, labelled: Tensor, reduction: Reduction) -> Tensor:
    """Average losses, one per map and image (or batch); an image without any label has no say."""
    seen = ops.cast(ops.any(labelled > 0, axis=AXES[reduction]), "float32")
    return ops.sum(loss * seen) / ops.maximum(ops.sum(seen), 1.0)
