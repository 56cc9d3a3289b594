"""Images and masks of any size, read and written in windows; memory does not grow with the image.

OME-Zarr (Zarr formats 2 and 3) and TIFF are read; masks are written as OME-Zarr, and from it as OME-TIFF.
"""

from microseg.data.streams.array import stream_of
from microseg.data.streams.image import ImageStream, Plane, all_planes
from microseg.data.streams.levels import CHUNK, blocks, frugal
from microseg.data.streams.ome_tiff import write_ome_tiff
from microseg.data.streams.omezarr import ZARR_MARKS
from microseg.data.streams.opening import is_streamed, open_stream
from microseg.data.streams.store import MaskStore

__all__ = [
    "CHUNK",
    "ZARR_MARKS",
    "ImageStream",
    "MaskStore",
    "Plane",
    "all_planes",
    "blocks",
    "frugal",
    "is_streamed",
    "open_stream",
    "stream_of",
    "write_ome_tiff",
]
