"""Open an image that can be read in windows."""

from __future__ import annotations

from pathlib import Path

from microseg.data.images import DAMAGE
from microseg.data.streams.image import Blocks, ImageStream
from microseg.data.streams.omezarr import ZarrBlocks, is_zarr
from microseg.data.streams.tiff import TiffBlocks
from microseg.data.tiff import TIFF_MAGIC
from microseg.errors import MicrosegError, one_line


def is_streamed(path: Path) -> bool:
    """Say whether an image can be read in windows: a TIFF file, or a folder of Zarr.

    How much memory it takes is said by `ImageStream.chunk_bytes`: a TIFF compressed as one strip is decoded
    as a whole.
    """
    if path.is_dir():
        return is_zarr(path)
    try:
        with path.open("rb") as file:
            return file.read(4) in TIFF_MAGIC
    except OSError:
        return False


def open_stream(path: Path, axes: str | None = None) -> ImageStream:
    """Open an image for reading in windows; a context manager.

    The full resolution of a pyramid is read. A channel of a TIFF that is marked as transparency is dropped.

    Parameters
    ----------
    path : Path
        A TIFF file, or the folder of an OME-Zarr image (Zarr 2 with NGFF up to 0.4, Zarr 3 with NGFF 0.5,
        https://ngff.openmicroscopy.org) or of a plain Zarr array.
    axes : str, optional
        Order of the axes, in the letters T, Z, C, Y and X, of a multi-page TIFF or a Zarr array that does not
        say it.

    Returns
    -------
    ImageStream

    Raises
    ------
    MicrosegError
        If it is neither, damaged, holds several images, or its axes are not known.
    """
    if not is_streamed(path):
        wanted = "a TIFF file or the folder of an OME-Zarr image"
        raise MicrosegError(
            f"{path}: {f'not {wanted}' if path.exists() else 'no such file'}; give the path of {wanted}"
        )
    try:
        blocks: Blocks = ZarrBlocks(path, axes) if path.is_dir() else TiffBlocks(path, axes)
    except DAMAGE as error:
        raise MicrosegError(f"{path}: damaged or not supported ({one_line(error)}); save it again") from error
    try:
        return ImageStream(str(path), blocks)
    except MicrosegError:
        blocks.close()
        raise
