"""Images and masks of any size, read and written in windows; memory does not grow with the image.

OME-Zarr (Zarr formats 2 and 3) and TIFF are read; masks are written as OME-Zarr, and from it as OME-TIFF.
"""

import zarr

from microseg.data.streams.array import stream_of
from microseg.data.streams.image import ImageStream, Plane
from microseg.data.streams.levels import CHUNK
from microseg.data.streams.ome_tiff import write_ome_tiff
from microseg.data.streams.omezarr import ZARR_MARKS
from microseg.data.streams.opening import is_streamed, open_stream
from microseg.data.streams.store import MaskStore

# Each thread in which zarr decodes keeps memory of its own: with its 6 threads and 10 chunks under way, the
# objects of 12288 x 12288 pixels took 371 MiB and those of 4096 x 4096 300 MiB; with one, 231 and 230.
zarr.config.set({"threading.max_workers": 1, "async.concurrency": 1})

__all__ = [
    "CHUNK",
    "ZARR_MARKS",
    "ImageStream",
    "MaskStore",
    "Plane",
    "is_streamed",
    "open_stream",
    "stream_of",
    "write_ome_tiff",
]
