"""Losses of single pixels: cross-entropy, with weights of the classes, the hard pixels and the borders."""

from __future__ import annotations

from typing import Annotated

from keras import ops
from pydantic import Field

from microseg.errors import MicrosegError
from microseg.losses.targets import EPSILON, Fraction, Tensor
from microseg.losses.weights import ClassWeights, per_class

Focus = Annotated[float, Field(ge=0.0, le=5.0)]


def _cross_entropy(y_true: Tensor, y_pred: Tensor, weights: Tensor, gamma: float = 0.0) -> Tensor:
    """Return the weighted sum over the labelled pixels, divided by their number.

    ``weights``, one per class with the background first, may differ from pixel to pixel.
    """
    truth, p = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
    labelled = ops.cast(truth[..., :1] >= 0, "float32")
    if p.shape[-1] == 1:
        truth, p = (ops.concatenate([1.0 - x, x], axis=-1) for x in (truth, p))
    p = ops.clip(p, EPSILON, 1.0 - EPSILON)
    surprise = -labelled * truth * weights * ops.log(p)
    if gamma:
        surprise *= ops.power(1.0 - p, gamma)
    return ops.sum(surprise) / ops.maximum(ops.sum(labelled), 1.0)


def bce(y_true: Tensor, y_pred: Tensor, *, class_weights: ClassWeights = None) -> Tensor:
    """Cross-entropy, mean over the pixels: binary for one map, categorical for several (nats).

    Parameters
    ----------
    y_true, y_pred : tensor, shape (batch, height, width, maps)
        Targets and probabilities.
    class_weights : sequence of float or ``balanced``, optional
        Factor on the pixels of each class, background first, also for one map. The sum is divided by the
        number of pixels, not by their weights: what a pixel weighs does not depend on the rest of its
        batch. ``balanced`` is resolved by `microseg.losses.balance` before training.

    Raises
    ------
    MicrosegError
        If the number of weights is not that of the classes.
    """
    return _cross_entropy(y_true, y_pred, per_class(class_weights, y_pred))


def focal(
    y_true: Tensor,
    y_pred: Tensor,
    *,
    gamma: Focus = 2.0,
    alpha: Fraction | None = None,
    class_weights: ClassWeights = None,
) -> Tensor:
    """Focal loss: cross-entropy times (1 - p) ** gamma, p the probability of the true class.

    Parameters
    ----------
    y_true, y_pred, class_weights
        As in `bce`.
    gamma : float
        How much the well classified pixels are left out; 0 is the cross-entropy.
    alpha : float, optional
        Further factor on the foreground; 1 - alpha on the background. Published with gamma 2: 0.25.

    References
    ----------
    Lin et al. 2017, DOI 10.1109/ICCV.2017.324.
    """
    weights = per_class(class_weights, y_pred)
    if alpha is not None:
        weights *= ops.convert_to_tensor((1.0 - alpha, *(weights.shape[0] - 1) * (alpha,)), "float32")
    return _cross_entropy(y_true, y_pred, weights, gamma)


def bce_border(
    y_true: Tensor,
    y_pred: Tensor,
    *,
    w0: Annotated[float, Field(ge=0.0, le=1000.0)] = 10.0,
    sigma: Annotated[float, Field(gt=0.0, le=15.0)] = 5.0,
    class_weights: ClassWeights = None,
) -> Tensor:
    """Cross-entropy whose pixels between touching objects weigh more, as in the U-Net paper.

    The weight of a pixel is ``class weight + w0 exp(-(d1 + d2) ** 2 / (2 sigma ** 2))``, where d1 and d2
    are its distances to the nearest and the second nearest object.

    Parameters
    ----------
    y_true : tensor, shape (batch, height, width, maps + 1)
        Targets as in `bce`, and as last channel d1 + d2 in pixels, large where an object is alone.
    y_pred, class_weights
        As in `bce`.
    w0 : float
        Weight between two objects that touch, on top of the class weight.
    sigma : float
        In pixels; distances are recorded up to some 60 pixels, which is 4 sigma at most.

    Raises
    ------
    MicrosegError
        If the targets have no channel of distances, or as `bce`.

    References
    ----------
    Ronneberger, Fischer and Brox 2015, DOI 10.1007/978-3-319-24574-4_28.
    """
    maps = y_pred.shape[-1]
    if y_true.shape[-1] == maps:
        raise MicrosegError(
            f"bce_border was given {maps} maps of targets and no distances; append d1 + d2 in pixels as the"
            " last channel of the targets"
        )
    distance = ops.cast(y_true[..., maps:], "float32")
    border = w0 * ops.exp(-ops.square(distance / sigma) / 2.0)
    return _cross_entropy(y_true[..., :maps], y_pred, per_class(class_weights, y_pred) + border)
