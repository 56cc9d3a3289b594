"""The two transforms of our own: one that warps image and mask by a field, one that changes pixel values.

albumentations' own warps state their strength in numbers that mean different displacements in different
libraries, and fill at most four channels beyond the border; its intensity transforms cut float images to
0..1, which z-scored images exceed. Its composition, probabilities and random state are used as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from microseg.augment.fields import Field, coordinates
from microseg.data.masks import IGNORE

Image = NDArray[np.float32]
Mask = NDArray[np.uint8]
Border = Literal["reflect", "wrap", "constant", "nearest"]
Change = Callable[[Image, np.random.Generator], NDArray[Any]]

_BORDERS = {
    "reflect": cv2.BORDER_REFLECT_101,
    "wrap": cv2.BORDER_WRAP,
    "constant": cv2.BORDER_REPLICATE,  # replaced by the constant afterwards
    "nearest": cv2.BORDER_REPLICATE,
}


class Warp(A.DualTransform):  # type: ignore[misc] # albumentations has no types
    """Sample the image (bilinear) and the mask (nearest) at the same places of the original tile.

    Parameters
    ----------
    field : callable
        See `microseg.augment.fields`.
    border : {"reflect", "wrap", "constant", "nearest"}
        What lies beyond the tile, for image and mask alike. ``constant`` is 0 in the image and
        ``IGNORE`` in the mask: nothing is known of those pixels, so the loss leaves them out.
    p : float
        Share of the tiles that are warped.
    """

    def __init__(self, field: Field, border: Border = "reflect", p: float = 1.0) -> None:
        super().__init__(p=p)
        self.field, self.border = field, border

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw where to sample, once for image and mask."""
        shape = params["shape"][:2]
        return {"places": coordinates(shape) + self.field(shape, self.random_generator)}

    def apply(self, img: Image, places: NDArray[np.float32], **params: Any) -> Image:
        """Return the warped image."""
        warped: Image = self._sample(img, places, cv2.INTER_LINEAR, 0)
        return warped

    def apply_to_mask(self, mask: Mask, places: NDArray[np.float32], **params: Any) -> Mask:
        """Return the warped mask, (height, width) or with planes behind."""
        warped: Mask = self._sample(mask, places, cv2.INTER_NEAREST, IGNORE)
        return warped

    def _sample(self, array: Any, places: NDArray[np.float32], interpolation: int, fill: int) -> Any:
        rows, columns = places
        sampled = cv2.remap(array, columns, rows, interpolation, borderMode=_BORDERS[self.border])
        sampled = sampled.reshape(array.shape)  # OpenCV drops the axis of a single channel
        if self.border == "constant":
            sampled[_outside(rows, array.shape[0]) | _outside(columns, array.shape[1])] = fill
        return sampled


def _outside(coordinate: NDArray[np.float32], size: int) -> NDArray[np.bool_]:
    return (coordinate < -0.5) | (coordinate > size - 0.5)


class Recolour(A.ImageOnlyTransform):  # type: ignore[misc] # albumentations has no types
    """Change the image's values by a function of it and a random generator; the mask stays.

    Parameters
    ----------
    change : callable
        ``f(image, rng) -> image`` of the same shape.
    p : float
        Share of the images that are changed.
    """

    def __init__(self, change: Change, p: float = 1.0) -> None:
        super().__init__(p=p)
        self.change = change

    def apply(self, img: Image, **params: Any) -> Image:
        """Return the changed image."""
        changed: Image = self.change(img, self.random_generator).astype(np.float32, copy=False)
        return changed
