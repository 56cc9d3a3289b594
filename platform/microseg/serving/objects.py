"""Objects as users take them along: label images of 16 bits, and a table of measurements."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage import measure

from microseg.errors import MicrosegError
from microseg.instances import Labels

Table = dict[str, list[Any]]

MOST_LABELS = int(np.iinfo(np.uint16).max)
_MEASURED = {
    "label": "label",
    "area": "area_px",
    "centroid": "centroid",
    "equivalent_diameter_area": "equivalent_diameter_px",
    "eccentricity": "eccentricity",
    "intensity_mean": "mean_intensity",
}


def as_uint16(labels: Labels) -> NDArray[np.uint16]:
    """Return a label map as 16-bit numbers, which every image format and viewer takes.

    Raises
    ------
    MicrosegError
        If it has more than 65,535 objects.
    """
    if labels.max(initial=0) > MOST_LABELS:
        raise MicrosegError(
            f"{labels.max()} objects, but a 16-bit label image holds {MOST_LABELS}; cut the image up"
        )
    return labels.astype(np.uint16)


def measurements(labels: Labels, image: NDArray[np.generic], pixel_size_um: float | None = None) -> Table:
    """Measure every object.

    Parameters
    ----------
    labels : ndarray of int32, shape (height, width)
        The objects.
    image : ndarray, shape (height, width, channels)
        What the intensities are read from, as its file stores it.
    pixel_size_um : float, optional
        Side of a pixel in micrometres; areas and diameters are then given in micrometres too.

    Returns
    -------
    dict of str to list
        A column of one value per object each: ``label``, ``area_px``, ``centroid_y`` and ``centroid_x``
        (pixels from the upper left one's centre), ``equivalent_diameter_px``, ``eccentricity`` (0 a circle,
        towards 1 a line), ``mean_intensity`` (with the channel's number, from 1, where there are several);
        and ``area_um2`` and ``equivalent_diameter_um``.
    """
    table = measure.regionprops_table(
        labels, image[..., 0] if image.shape[-1] == 1 else image, properties=tuple(_MEASURED)
    )
    columns = {_column(name): values.tolist() for name, values in table.items()}
    if pixel_size_um:
        columns["area_um2"] = [area * pixel_size_um**2 for area in columns["area_px"]]
        diameters = columns["equivalent_diameter_px"]
        columns["equivalent_diameter_um"] = [diameter * pixel_size_um for diameter in diameters]
    return columns


def _column(name: str) -> str:
    """Turn scikit-image's ``centroid-0`` and ``intensity_mean-1`` into our names."""
    prop, _, number = name.partition("-")
    if prop == "centroid":
        return f"centroid_{'yx'[int(number)]}"
    return _MEASURED[prop] + (f"_{int(number) + 1}" if number else "")
