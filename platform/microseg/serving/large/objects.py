"""The objects of a large image, told apart and measured in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from microseg.data.streams import MaskStore, Plane
from microseg.instances import BLOCK, Method, Table, label_blocks, measure_blocks
from microseg.serving.large.planes import CheckedPlane


class Found(NamedTuple):
    """The objects of one plane: how many, how many in pieces larger than the halo, and their tables."""

    objects: int
    larger: int
    tables: Iterator[Table]


def label_and_measure(
    predicted: MaskStore,
    labels: MaskStore,
    method: Method,
    plane: CheckedPlane,
    index: Plane,
    pixel_size_um: float | None,
) -> Found:
    """Tell the objects of a plane apart, and measure them.

    Parameters
    ----------
    predicted : MaskStore
        The foreground's probability, or the mask where each piece of it is an object.
    labels : MaskStore
        Takes the numbered objects.
    method : Method
        See `Segmenter.method`.
    plane : CheckedPlane
        What the intensities are read from.
    index : tuple of int
        Which plane of the stores.
    pixel_size_um : float, optional
        See `microseg.instances.measurements`.
    """
    values, numbers = predicted.plane_array(index), labels.plane_array(index)
    stitched = label_blocks(lambda rows, columns: values[rows, columns][..., None], numbers, method)
    tables = measure_blocks(numbers, plane, block=BLOCK, pixel_size_um=pixel_size_um)
    return Found(stitched.objects, len(stitched.larger), tables)
