"""Label an image of any size in blocks; memory grows with a block and with the borders, not with the image.

Every block is labelled together with a margin, and its core is kept. A piece of foreground that touches the
core, is no larger than the halo and lies, with all that its division depends on, within the margin is divided
as in the whole image, by every block that it touches. So objects of two blocks are one where both call the
same pixels theirs. A second pass numbers the objects from 1 to n.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from microseg.errors import MicrosegError
from microseg.instances.grid import Core, Source, Writable, cores, crop, read_window
from microseg.instances.methods import Labels, Method
from microseg.instances.seams import Ids, Seams

BLOCK = 1024
HALO = 128


class Stitched(NamedTuple):
    """What labelling in blocks gave.

    Attributes
    ----------
    objects : int
        How many there are; their labels are 1 to ``objects``.
    larger : ndarray of int64
        Ascending labels of the objects in pieces of foreground that reach further than the halo beyond a
        block. Where a method divides pieces, these may be divided otherwise than in the whole image.
    """

    objects: int
    larger: Ids


def label_blocks(
    probability: Source, labels: Writable, method: Method, *, block: int = BLOCK, halo: int = HALO
) -> Stitched:
    """Label an image of any size, block by block, as `label_objects` labels it in one piece.

    Parameters
    ----------
    probability : callable or array-like, (height, width, maps)
        The network's output in [0, 1]. A callable is given two slices, rows and columns of the image, and
        answers with that window; an array, a memory map or a Zarr array is sliced.
    labels : array-like of int, shape (height, width)
        Where the labels go, whole blocks at a time; it is read again for the final numbers.
    method : Method
        See `method_of`.
    block : int
        Side of a block, in pixels. A block is read with a margin of ``halo`` and the method's reach.
    halo : int
        Height and width, in pixels, up to which a connected piece of foreground is divided as in the whole
        image; the objects of larger ones are reported.

    Returns
    -------
    Stitched
        How many objects there are, and which of them are in pieces larger than the halo; all others are
        the whole image's, up to their numbers.

    Raises
    ------
    MicrosegError
        If sizes do not fit, or the type of ``labels`` cannot hold that many objects.
    """
    if halo < 0:
        raise MicrosegError(f"halo is {halo}; give the size of the largest object in pixels, at least 0")
    height, width = labels.shape
    seams, blocks = Seams(divides=method.reach > 0), []
    for core in cores((height, width), block):
        divided = _divide(core, probability, method, halo)
        _check_room(labels, divided.objects)
        labels[core.window] = crop(divided.labels, core.grown(1), core.window).astype(labels.dtype)
        seams.add(core, divided.labels, divided.on_seams, divided.areas)
        blocks.append(_Block(core, divided.objects, divided.on_seams, divided.larger))
    return _number(labels, blocks, *seams.numbers(method.min_size))


class _Divided(NamedTuple):
    """The objects of one block, numbered from 1 in its core."""

    labels: Labels  # in the core and one pixel around it
    objects: int
    on_seams: NDArray[np.integer]
    areas: Ids  # of those on the seams
    larger: Ids


class _Block(NamedTuple):
    """What the second pass needs to know about a block."""

    core: Core
    objects: int
    on_seams: NDArray[np.integer]
    larger: Ids


def _divide(core: Core, probability: Source, method: Method, halo: int) -> _Divided:
    """Label a block within its margin; what lies in it as a whole and is too small is dropped."""
    margin = halo + max(method.reach, 1)
    window = core.grown(margin)
    found = method.label(read_window(probability, window))
    inner = crop(found, window, core.window)
    areas = np.bincount(inner.ravel(), minlength=int(found.max(initial=0)) + 1)
    kept = areas >= max(method.min_size, 1)
    on_seams = core.on_seams(inner)
    kept[on_seams] = True
    kept[0] = False
    numbers = (np.cumsum(kept) * kept).astype(np.int32)
    return _Divided(
        numbers[crop(found, window, core.grown(1))],
        int(kept.sum()),
        numbers[on_seams],
        areas[on_seams],
        np.flatnonzero(_in_larger(found, core.rim(margin, max(method.reach, 1)))[kept]) + 1,
    )


def _in_larger(labels: Labels, rim: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return, by label from 0, which objects are in a piece of foreground that reaches the margin's rim."""
    pieces, count = ndimage.label(labels > 0, np.ones((3, 3), bool))
    cut = np.zeros(count + 1, bool)
    cut[pieces[rim]] = True
    larger = np.zeros(int(labels.max(initial=0)) + 1, bool)
    larger[labels[cut[pieces]]] = True
    return larger


def _check_room(labels: Writable, count: int) -> None:
    most = np.iinfo(labels.dtype).max
    if count > most:
        raise MicrosegError(f"{count} objects, but labels of type {labels.dtype} end at {most}; give int32")


def _number(labels: Writable, blocks: list[_Block], on_seams: Ids, count: int) -> Stitched:
    """Replace the blocks' own numbers: first come the objects on seams, then all others."""
    total = count + sum(block.objects - len(block.on_seams) for block in blocks)
    _check_room(labels, total)
    larger, first = [np.zeros(0, np.int64)], 0
    for block in blocks:
        numbers = np.zeros(block.objects + 1, np.int64)
        inside = np.ones(block.objects + 1, bool)
        inside[0] = inside[block.on_seams] = False
        numbers[inside] = count + 1 + np.arange(inside.sum())
        count += int(inside.sum())
        numbers[block.on_seams] = on_seams[first : first + len(block.on_seams)]
        first += len(block.on_seams)
        labels[block.core.window] = numbers[np.asarray(labels[block.core.window])].astype(labels.dtype)
        larger.append(numbers[block.larger])
    found = np.unique(np.concatenate(larger))
    return Stitched(count, found[found > 0])
