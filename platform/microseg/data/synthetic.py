"""A demo data set: cells under a fluorescence microscope, drawn, not photographed."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from microseg.data.files import replacing
from microseg.data.images import write_image
from microseg.errors import MicrosegError

Array = np.ndarray[Any, np.dtype[Any]]

_README = """Demo data set of microseg: synthetic cells in fluorescence

{images} images of {size} x {size} pixels in {sessions} sessions (seed {seed}): 16-bit TIFF images, 16-bit
PNG masks with one number per object, and the session of each image in manifest.csv (column 'group').
Drawn by a program: cells that touch, uneven illumination, blur, background haze, Poisson and read noise. Each
session has an illumination, exposure, focus and cell size of its own. Free to use for anything (CC0).
"""
_MARGIN = 6  # pixels of cell outside the field of view


class _Session(NamedTuple):
    """What stays the same for the images of one session: the instrument and the culture."""

    photons: float  # expected count of a bright cell
    haze: float  # background, as a share of a cell's brightness
    blur: float  # standard deviation of the point spread function in pixels
    radius: float  # mean radius of a cell in pixels
    tilt: tuple[float, float]  # where the illumination is brightest, in image sizes from the centre
    gain: float  # grey values per photon
    offset: float  # grey value of no light


def write_demo(folder: Path, *, images: int = 36, sessions: int = 12, size: int = 128, seed: int = 0) -> Path:
    """Write paired folders of synthetic cell images and instance masks.

    Parameters
    ----------
    folder : Path
        Where ``images/``, ``masks/``, ``manifest.csv`` and a README go; it must be empty or missing.
    images : int
        Number of images, dealt evenly over the sessions.
    sessions : int
        Number of sessions, at most 26; they are named ``sessionA``, ``sessionB``, ... Of 12 a search holds
        six out, the fewest that decide a promotion.
    size : int
        Height and width in pixels, at least 32.
    seed : int
        The same seed gives the same pixels.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    MicrosegError
        If a number is out of range or the folder holds something already.
    """
    if not 1 <= sessions <= 26 or images < sessions or size < 32 or seed < 0:
        raise MicrosegError(
            f"demo data: {images} images of {size} pixels in {sessions} sessions, seed {seed}; allowed are 1"
            " to 26 sessions,"
            " at least one image each, at least 32 pixels, and a seed from 0 on"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MicrosegError(f"{folder}: not an empty folder; name a new one for the demo data")
    rows = [_write_pair(folder, index, sessions, size, seed) for index in range(images)]
    _write_text(folder / "manifest.csv", _csv(rows))
    _write_text(folder / "README.txt", _README.format(images=images, size=size, sessions=sessions, seed=seed))
    return folder


def draw_cells(size: int, session: int, image: int, seed: int) -> tuple[Array, Array]:
    """Draw one field of view.

    Parameters
    ----------
    size : int
        Height and width in pixels.
    session, image, seed : int
        Which of the sessions and of its images; the same numbers give the same pixels.

    Returns
    -------
    image : ndarray of uint16, shape (size, size)
    labels : ndarray of uint16, shape (size, size)
        0 is background, the objects are numbered 1, 2, ... without gaps.
    """
    setup = _session(np.random.default_rng([seed, session]))
    rng = np.random.default_rng([seed, session, image + 1])
    labels, light = _grow_cells(rng, size + 2 * _MARGIN, setup.radius)
    inside = slice(_MARGIN, -_MARGIN)
    photons = setup.photons * _illumination(size, setup.tilt) * _optics(rng, light, setup)[inside, inside]
    noisy = rng.poisson(photons) * setup.gain + rng.normal(setup.offset, 3.0, (size, size))
    return np.clip(np.rint(noisy), 0, 65535).astype(np.uint16), _renumbered(labels[inside, inside])


def _session(rng: np.random.Generator) -> _Session:
    return _Session(
        photons=float(np.exp(rng.uniform(np.log(25.0), np.log(120.0)))),
        haze=float(rng.uniform(0.08, 0.25)),
        blur=float(rng.uniform(0.9, 1.7)),
        radius=float(rng.uniform(7.0, 10.0)),
        tilt=(float(rng.uniform(-0.5, 0.5)), float(rng.uniform(-0.5, 0.5))),
        gain=float(rng.uniform(4.0, 16.0)),
        offset=float(rng.uniform(80.0, 140.0)),
    )


def _grow_cells(rng: np.random.Generator, size: int, radius: float) -> tuple[Array, Array]:
    """Place cells, many against a neighbour; return label map and light (1 = a bright cell)."""
    labels, light = np.zeros((size, size), np.int32), np.zeros((size, size))
    count = int(rng.integers(10, 19) * (size / 140) ** 2) + 2
    centres: list[Array] = []
    for number in range(1, count + 1):
        reach = radius * rng.uniform(0.75, 1.25)
        centre = _place(rng, centres, size, reach)
        centres.append(centre)
        depth = _cell_depth(rng, centre, reach, size)
        cell = (depth > 0) & (labels == 0)
        labels[cell] = number
        light[cell] = (
            rng.uniform(0.35, 1.0) * _texture(rng, size)[cell] * (0.55 + 0.45 * np.sqrt(depth[cell]))
        )
    return labels, light


def _place(rng: np.random.Generator, centres: list[Array], size: int, reach: float) -> Array:
    """Choose a centre at random or, half of the time, so that the cell touches an earlier one."""
    if centres and rng.random() < 0.5:
        angle = rng.uniform(0.0, 2.0 * np.pi)
        step = reach * rng.uniform(1.7, 2.1) * np.array([np.sin(angle), np.cos(angle)])
        return np.asarray(centres[rng.integers(len(centres))] + step)
    return np.asarray(rng.uniform(0.0, size, 2))


def _cell_depth(rng: np.random.Generator, centre: Array, reach: float, size: int) -> Array:
    """Return how deep inside an irregular ellipse each pixel is: 1 in the middle, 0 and below outside."""
    y, x = np.mgrid[:size, :size]
    y, x = y - centre[0], x - centre[1]
    angle = np.arctan2(y, x)
    stretch, turn = rng.uniform(1.0, 1.35), rng.uniform(0.0, np.pi)
    outline = 1.0 / np.hypot(np.cos(angle - turn) / stretch, np.sin(angle - turn) * stretch)
    for waves in (2, 3, 5):
        outline += rng.uniform(0.0, 0.16 / waves) * np.cos(waves * angle + rng.uniform(0.0, 2.0 * np.pi))
    return np.asarray(1.0 - (np.hypot(y, x) / (reach * outline)) ** 2)


def _texture(rng: np.random.Generator, size: int) -> Array:
    """Return smooth random brightness around 1: chromatin is not flat."""
    grain = ndimage.gaussian_filter(rng.normal(size=(size, size)), 1.6)
    return np.asarray(np.clip(1.0 + 0.28 * grain / grain.std(), 0.2, None))


def _optics(rng: np.random.Generator, light: Array, setup: _Session) -> Array:
    """Blur by the point spread function and add haze: a constant, light from out of focus, and debris."""
    size = light.shape[0]
    debris = (rng.random((size, size)) < 12 / size**2) * rng.uniform(1.0, 5.0, (size, size))
    sharp = ndimage.gaussian_filter(light + debris, setup.blur)
    stray = ndimage.gaussian_filter(light, 12.0)
    clouds = ndimage.gaussian_filter(rng.normal(size=(size, size)), 14.0)
    return np.asarray(sharp + setup.haze * (1.0 + 0.35 * clouds / np.abs(clouds).max()) + 0.25 * stray)


def _illumination(size: int, tilt: tuple[float, float]) -> Array:
    """Return a smooth field that falls from 1 at its brightest to about a half at the far corner."""
    axis = np.linspace(-0.5, 0.5, size)
    distance = (axis[:, None] - tilt[0]) ** 2 + (axis[None, :] - tilt[1]) ** 2
    return np.asarray(np.exp(-0.45 * distance))


def _renumbered(labels: Array) -> Array:
    """Give the visible objects the numbers 1, 2, ...; slivers below 12 pixels become background."""
    counts = np.bincount(labels.ravel())
    kept = np.flatnonzero(counts >= 12)
    kept = kept[kept > 0]
    lookup = np.zeros(counts.size, np.uint16)
    lookup[kept] = np.arange(1, kept.size + 1)
    return np.asarray(lookup[labels])


def _write_pair(folder: Path, index: int, sessions: int, size: int, seed: int) -> dict[str, str]:
    session = index % sessions
    group = f"session{chr(ord('A') + session)}"
    name = f"{group}_{index // sessions + 1:03d}"
    image, labels = draw_cells(size, session, index // sessions, seed)
    write_image(folder / "images" / f"{name}.tif", image)
    write_image(folder / "masks" / f"{name}.png", labels)
    return {"file": f"{name}.tif", "group": group, "objects": str(labels.max())}


def _csv(rows: list[dict[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as handle:
        handle.write(text.encode())
