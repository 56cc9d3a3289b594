"""Whether an image fits a model; numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from microseg.errors import MicrosegError
from microseg.serving.card import ModelCard

Image = NDArray[np.generic]


def checked(image: Image, card: ModelCard) -> Image:
    """Return an image with the channels of a model, or refuse it.

    Parameters
    ----------
    image : ndarray, shape (height, width, channels)
        As the file stores it. A grey image is repeated for a colour model; a colour image with equal
        channels is taken as grey.
    card : ModelCard
        Says how many channels the model takes.

    Raises
    ------
    MicrosegError
        If the image is empty, not finite or has the wrong number of channels.
    """
    if image.ndim != 3 or 0 in image.shape:
        raise MicrosegError(
            f"image of shape {image.shape}; give (height, width, channels), none of them zero"
        )
    if image.dtype.kind not in "uif":
        raise MicrosegError(f"image of type {image.dtype}; give whole numbers or floats")
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise MicrosegError("image with NaN or infinite values; replace them, by the background for instance")
    return _with_channels(image, card)


def _with_channels(image: Image, card: ModelCard) -> Image:
    given, wanted = image.shape[-1], card.channels
    if given == wanted:
        return image
    if given == 1 and wanted == 3:
        return image.repeat(3, axis=-1)
    if given == 3 and wanted == 1 and (image == image[..., :1]).all():
        return image[..., :1]
    raise MicrosegError(
        f"image with {given} channel(s); the model '{card.name}' takes {wanted}: convert it first"
    )
