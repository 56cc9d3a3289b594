"""A table of the objects of an image of any size: sums of its blocks, merged where an object lies in several.

Moments are taken about each part's own mean and merged exactly (Chan, Golub and LeVeque 1983,
DOI 10.1080/00031305.1983.10483115): about the image's corner they would cancel where images are large.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microseg.instances.grid import Source, cores, read_window
from microseg.tiling import Sliced

Table = dict[str, list[Any]]
Labelled = NDArray[np.integer]
# A row is an object or a part of one: label, pixels, mean y and x, sums of squared deviations yy, xx and yx,
# and the mean of every channel.
Moments = NDArray[np.float64]

# Columns that a table has only where the pixel size is known.
IN_MICROMETRES = ("area_um2", "centroid_y_um", "centroid_x_um", "equivalent_diameter_um")

_LABEL, _AREA, _MEANS, _SQUARES, _CHANNELS = 0, 1, slice(2, 4), slice(4, 7), 7


def measurements(labels: Labelled, image: NDArray[np.generic], pixel_size_um: float | None = None) -> Table:
    """Measure every object of an image.

    Parameters
    ----------
    labels : ndarray of int, shape (height, width)
        The objects; 0 is background.
    image : ndarray, shape (height, width, channels)
        What the intensities are read from.
    pixel_size_um : float, optional
        Side of a pixel in micrometres; lengths and areas are then given in micrometres too.

    Returns
    -------
    dict of str to list
        A column of one value per object each, ascending by label: ``label``, ``area_px``, ``centroid_y`` and
        ``centroid_x`` (pixels from the centre of the upper left one), ``equivalent_diameter_px``,
        ``eccentricity`` (0 a circle, towards 1 a line), ``mean_intensity`` (with the channel's number, from
        1, where there are several); and ``area_um2``, ``centroid_y_um``, ``centroid_x_um`` and
        ``equivalent_diameter_um``. All are those of scikit-image's ``regionprops_table``.
    """
    return _columns(_moments(labels, image), pixel_size_um)


def measure_blocks(
    labels: Sliced, image: Source, *, block: int, pixel_size_um: float | None = None
) -> Iterator[Table]:
    """Measure every object of an image of any size, block by block.

    Parameters
    ----------
    labels : array-like of int, shape (height, width)
        The objects, each one connected piece; 0 is background.
    image : callable or array-like, (height, width, channels)
        What the intensities are read from, as `label_blocks` reads probabilities.
    block : int
        Side of a block, in pixels.
    pixel_size_um : float, optional
        See `measurements`.

    Yields
    ------
    dict of str to list
        Tables as `measurements` gives, one per block for the objects that lie in it as a whole, and a last
        one for those in several blocks: every object is in one of them. The last one may be empty, but it
        has all columns.

    Raises
    ------
    MicrosegError
        If the image has another size than the labels.
    """
    shared = []
    for core in cores((labels.shape[0], labels.shape[1]), block):
        inside = np.asarray(labels[core.window])
        parts = _moments(inside, read_window(image, core.window))
        parts[:, _MEANS] += core.rows.start, core.columns.start
        crossing = np.isin(parts[:, _LABEL], core.on_seams(inside))
        shared.append(parts[crossing])
        if not crossing.all():
            yield _columns(parts[~crossing], pixel_size_um)
    yield _columns(_merged(np.concatenate(shared)), pixel_size_um)


def _moments(labels: Labelled, image: NDArray[np.generic]) -> Moments:
    """Measure the objects of one array, ascending by label."""
    y, x = np.nonzero(labels)
    found, index = np.unique(labels[y, x], return_inverse=True)
    count = len(found)
    areas = np.bincount(index, minlength=count)

    def mean(values: NDArray[Any]) -> NDArray[np.float64]:
        return _totals(index, values, count) / areas

    mean_y, mean_x = mean(y), mean(x)
    dy, dx = y - mean_y[index], x - mean_x[index]
    squares = [_totals(index, product, count) for product in (dy * dy, dx * dx, dy * dx)]
    channels = [mean(image[y, x, channel]) for channel in range(image.shape[-1])]
    moments: Moments = np.column_stack([found, areas, mean_y, mean_x, *squares, *channels])
    return moments


def _merged(parts: Moments) -> Moments:
    """Merge the parts of the same objects."""
    found, index = np.unique(parts[:, _LABEL], return_inverse=True)
    areas = parts[:, _AREA]

    def total(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return _totals(index, values, len(found))

    merged = np.empty((len(found), parts.shape[1]))
    merged[:, _LABEL], merged[:, _AREA] = found, total(areas)
    for column in (2, 3, *range(_CHANNELS, parts.shape[1])):
        merged[:, column] = total(areas * parts[:, column]) / merged[:, _AREA]
    dy, dx = (parts[:, _MEANS] - merged[index, _MEANS]).T
    for column, product in zip((4, 5, 6), (dy * dy, dx * dx, dy * dx), strict=True):
        merged[:, column] = total(parts[:, column] + areas * product)
    return merged


def _totals(index: NDArray[np.intp], values: NDArray[Any], count: int) -> NDArray[np.float64]:
    return np.asarray(np.bincount(index, values, count), np.float64)


def _columns(moments: Moments, pixel_size_um: float | None) -> Table:
    """Return what users read of moments."""
    areas = moments[:, _AREA]
    mean_y, mean_x = moments[:, _MEANS].T
    diameters = np.sqrt(4.0 * areas / np.pi)
    columns = {
        "label": moments[:, _LABEL].astype(np.int64),
        "area_px": areas.astype(np.int64),
        "centroid_y": mean_y,
        "centroid_x": mean_x,
        "equivalent_diameter_px": diameters,
        "eccentricity": _eccentricity(*(moments[:, _SQUARES] / areas[:, None]).T),
    }
    intensities = moments[:, _CHANNELS:].T
    for number, values in enumerate(intensities, start=1):
        columns["mean_intensity" if len(intensities) == 1 else f"mean_intensity_{number}"] = values
    if pixel_size_um:
        lengths = (mean_y * pixel_size_um, mean_x * pixel_size_um, diameters * pixel_size_um)
        columns |= dict(zip(IN_MICROMETRES, (areas * pixel_size_um**2, *lengths), strict=True))
    return {name: values.tolist() for name, values in columns.items()}


def _eccentricity(
    yy: NDArray[np.float64], xx: NDArray[np.float64], yx: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the eccentricity of the ellipse with these second moments; a single pixel is a circle."""
    middle, half = (yy + xx) / 2, np.hypot((yy - xx) / 2, yx)
    longer, shorter = middle + half, np.maximum(middle - half, 0.0)
    return np.sqrt(1.0 - np.divide(shorter, longer, out=np.ones_like(longer), where=longer > 0))
