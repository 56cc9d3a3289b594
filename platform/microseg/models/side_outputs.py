"""Outputs of the coarser levels of a network at full resolution, for deep supervision."""

from __future__ import annotations

from keras import layers

from microseg.models.blocks import Tensor


def side_output(x: Tensor, classes: int, factor: int) -> Tensor:
    """Map the features of a level to logits at full resolution, in float32.

    Parameters
    ----------
    x : tensor, shape (batch, h, w, any)
        Features.
    classes : int
        Number of maps.
    factor : int
        How much coarser the features are than the image, per side.

    Returns
    -------
    tensor of float32, shape (batch, factor h, factor w, classes)
        A 3 x 3 convolution, interpolated bilinearly.
    """
    x = layers.Conv2D(classes, 3, padding="same", dtype="float32")(x)
    return layers.UpSampling2D(factor, interpolation="bilinear", dtype="float32")(x) if factor > 1 else x


def probability(logits: Tensor, name: str) -> Tensor:
    """Turn logits into probabilities in [0, 1]: sigmoid for one map, softmax for several."""
    activation = "sigmoid" if logits.shape[-1] == 1 else "softmax"
    return layers.Activation(activation, dtype="float32", name=name)(logits)
