"""How close two objects are at each pixel: what the border weights of the U-Net paper are made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FARTHEST = 63.75  # pixels; kept as quarters of a pixel in 8 bits
QUARTERS = 4.0


def border_distance(objects: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Return d1 + d2, the distances to the nearest and the second nearest object, in quarters of a pixel.

    Parameters
    ----------
    objects : ndarray of int, shape (height, width)
        A number per object, 0 is background.

    Returns
    -------
    ndarray of uint8, shape (height, width)
        255 (63.75 pixels) also stands for all that is farther, or where there is no second object.

    References
    ----------
    Ronneberger, Fischer and Brox 2015, DOI 10.1007/978-3-319-24574-4_28, equation 2.
    """
    nearest, second = (np.full(objects.shape, FARTHEST, np.float32) for _ in range(2))
    reach = int(np.ceil(FARTHEST))
    for number, box in enumerate(ndimage.find_objects(objects), start=1):
        if box is None:
            continue
        place = tuple(slice(max(part.start - reach, 0), part.stop + reach) for part in box)
        distance = ndimage.distance_transform_edt(objects[place] != number)
        second[place] = np.minimum(second[place], np.maximum(nearest[place], distance))
        nearest[place] = np.minimum(nearest[place], distance)
    rounded: NDArray[np.uint8] = np.rint(np.minimum(nearest + second, FARTHEST) * QUARTERS).astype(np.uint8)
    return rounded


def separate(target: NDArray[np.uint8], ignore: int) -> NDArray[np.int32]:
    """Give each connected region of a foreground class (4 neighbours) a number, where masks have none."""
    objects = np.zeros(target.shape, np.int32)
    for value in np.setdiff1d(target, [0, ignore]):
        regions, _ = ndimage.label(target == value)
        objects[regions > 0] = regions[regions > 0] + objects.max()
    return objects
