"""Read and write images and label maps: PNG, TIFF and JPEG, and nothing that needs a guess."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from microseg.data.files import read_bytes, replacing
from microseg.data.tiff import TIFF_MAGIC, decode_tiff, has_jpeg
from microseg.errors import MicrosegError, one_line

Array = np.ndarray[Any, np.dtype[Any]]

READABLE = frozenset({".png", ".tif", ".tiff", ".jpg", ".jpeg"})
PROPRIETARY = frozenset({".czi", ".nd2", ".lif", ".oib", ".oif", ".vsi", ".lsm", ".svs", ".ndpi", ".mrxs"})
OTHER_IMAGES = frozenset({".bmp", ".gif", ".webp", ".jp2", ".npy", ".h5", ".dcm", ".zarr"})

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# What the decoders raise on damaged files, found by truncating and corrupting real ones.
DAMAGE = (
    MemoryError,
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    RuntimeError,
    SystemError,  # of numcodecs, for a header of Blosc with a negative size
    TypeError,
    ArithmeticError,
    struct.error,
    tifffile.TiffFileError,
    Image.DecompressionBombError,
)


def check_suffix(path: Path) -> bool:
    """Say whether a file is an image that can be read; False for what is no image at all.

    Raises
    ------
    MicrosegError
        For an image of a format that has to be converted first.
    """
    suffix = path.suffix.lower()
    if suffix in PROPRIETARY:
        raise MicrosegError(
            f"{path}: {suffix[1:].upper()} is not read directly; convert it to TIFF first, one plane per"
            " file:"
            f" bfconvert '{path.name}' '{path.stem}_z%z_t%t.tif' (Bio-Formats), or Fiji: File > Save As >"
            " Tiff"
        )
    if suffix in OTHER_IMAGES:
        raise MicrosegError(f"{path}: {suffix} files are not read; save it as PNG or TIFF (8 or 16 bit)")
    return suffix in READABLE and not path.name.startswith(".")


def read_image(paths: Sequence[Path], axes: str | None = None) -> Array:
    """Read one image from one file, or from one file per channel.

    Parameters
    ----------
    paths : sequence of Path
        One file with all channels, or one file per channel in channel order.
    axes : str, optional
        Axis order of multi-page TIFF files, in the letters T, Z, C, Y and X.

    Returns
    -------
    ndarray, shape (height, width, channels)
        uint8 or uint16 as in the file; any other type as float32.

    Raises
    ------
    MicrosegError
        As `decode_image`, or if the files of the channels differ in size or type.
    """
    return join_channels([decode_image(read_bytes(path), str(path), axes) for path in paths], paths)


def join_channels(parts: Sequence[Array], paths: Sequence[Path]) -> Array:
    """Stack the files of one image along the channel axis; all must agree in size and type."""
    for part, path in zip(parts, paths, strict=True):
        if part.shape[:2] != parts[0].shape[:2] or part.dtype != parts[0].dtype:
            raise MicrosegError(
                f"{path}: this channel is {_size(part)} {part.dtype}, but {paths[0].name} is"
                f" {_size(parts[0])}"
                f" {parts[0].dtype}; the channels of one image must agree"
            )
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)


def decode_image(data: bytes, name: str, axes: str | None = None) -> Array:
    """Decode the bytes of a PNG, TIFF or JPEG file.

    An alpha channel that is the same everywhere is dropped. Signed, 32-bit and 64-bit values become
    float32.

    Parameters
    ----------
    data : bytes
        The file's content; its first bytes tell the format, not its name.
    name : str
        What to call it in an error.
    axes : str, optional
        Axis order if this is a multi-page TIFF.

    Returns
    -------
    ndarray, shape (height, width, channels)
        uint8, uint16 or float32.

    Raises
    ------
    MicrosegError
        If the data is damaged, of another format, transparent, or not finite; if a multi-page
        file's axes are not stated, or it has more than one plane.
    """
    array, alpha = _decode(data, name, axes, labels=False)
    if alpha:
        array = without_alpha(array, name)
    return supported(array, name)


def read_labels(path: Path) -> Array:
    """Read a label map.

    Returns
    -------
    ndarray of int, shape (height, width)
        The values as stored; a palette image gives its indices.

    Raises
    ------
    MicrosegError
        As `decode_labels`.
    """
    return decode_labels(read_bytes(path), str(path))


def decode_labels(data: bytes, name: str) -> Array:
    """Decode the bytes of a label map, see `read_labels`.

    Raises
    ------
    MicrosegError
        If the data is damaged, coloured, has several planes, or holds fractions or negative values.
    """
    array, alpha = _decode(data, name, None, labels=True)
    if alpha:
        array = without_alpha(array, name)
    if array.shape[2] > 1 and (array != array[..., :1]).any():
        raise MicrosegError(f"{name}: a mask in colour; save it with one number per pixel (grey or palette)")
    labels = array[..., 0]
    if labels.dtype.kind == "f":
        if not np.array_equal(labels, np.rint(labels)) or np.abs(labels).max() >= 2**31:  # NaN is not itself
            raise MicrosegError(f"{name}: mask values are not whole numbers; save it as integer labels")
        labels = labels.astype(np.int64)
    if labels.min() < 0:
        raise MicrosegError(f"{name}: mask values reach {labels.min()}; labels start at 0 (background)")
    return labels


def is_lossy(data: bytes) -> bool:
    """Say whether the format changes pixel values (JPEG, also within TIFF)."""
    return has_jpeg(data) if data.startswith(TIFF_MAGIC) else data.startswith(_JPEG)


def write_image(path: Path, array: Array) -> None:
    """Write an image or label map as PNG or TIFF, by the suffix, and only as a whole.

    Parameters
    ----------
    path : Path
        ``.png``: uint8 or uint16 with 1 or 3 channels. ``.tif``: any number type and channels.
    array : ndarray, shape (height, width) or (height, width, channels)
        Integer labels of other types are stored in 16 bits where they fit.

    Raises
    ------
    MicrosegError
        If the format cannot hold the array.
    """
    array = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    if array.dtype.kind in "iu" and array.dtype.itemsize > 2 and array.min() >= 0 and array.max() < 2**16:
        array = array.astype(np.uint16)
    with replacing(path) as handle:
        handle.write(_encode(path, array))


def _encode(path: Path, array: Array) -> bytes:
    suffix = path.suffix.lower()
    if suffix in {".tif", ".tiff"}:
        buffer = io.BytesIO()
        rgb = array.ndim == 3 and array.shape[2] == 3
        layout: dict[str, Any] = {"planarconfig": "contig"} if array.ndim == 3 else {}
        photometric = "rgb" if rgb else "minisblack"
        # No software tag, date or description: equal pixels give equal bytes.
        tifffile.imwrite(buffer, array, photometric=photometric, metadata=None, software=False, **layout)
        return buffer.getvalue()
    if suffix != ".png":
        raise MicrosegError(f"{path}: cannot write '{suffix}'; use .png or .tif")
    if array.dtype not in (np.uint8, np.uint16) or (array.ndim == 3 and array.shape[2] != 3):
        raise MicrosegError(f"{path}: PNG cannot hold {array.dtype} of shape {array.shape}; use .tif")
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(array)))


def _decode(data: bytes, name: str, axes: str | None, *, labels: bool) -> tuple[Array, bool]:
    try:
        if data.startswith(TIFF_MAGIC):
            array, alpha = decode_tiff(data, name, axes)
        elif data.startswith((_PNG, _JPEG)):
            array, alpha = _decode_simple(data, labels=labels)
        else:
            raise MicrosegError(f"{name}: not a PNG, TIFF or JPEG file; save it as PNG or TIFF")
    except DAMAGE as error:
        raise MicrosegError(f"{name}: damaged or incomplete file ({one_line(error)}); replace it") from error
    if array.size == 0:
        raise MicrosegError(f"{name}: the image has no pixels; replace it")
    return array, alpha


def _decode_simple(data: bytes, *, labels: bool) -> tuple[Array, bool]:
    """Decode PNG or JPEG to (height, width, channels), and whether the last channel is alpha."""
    if data.startswith(_PNG) and data[24:25] == b"\x10" and data[25:26] in (b"\x02", b"\x06"):
        # Pillow silently reduces 16-bit colour to 8 bits.
        array = imagecodecs.png_decode(data)
        return array, array.shape[2] == 4
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        if image.mode in {"P", "PA", "CMYK", "YCbCr", "LAB", "HSV"} and not labels:
            array = np.asarray(image.convert("RGBA" if "transparency" in image.info else "RGB"))
        else:
            array = np.asarray(image)
    if array.dtype.kind == "b":
        array = array.astype(np.uint8) * (1 if labels else 255)
    array = array if array.ndim == 3 else array[..., None]
    return array, array.shape[2] in (2, 4)


def without_alpha(array: Array, name: str) -> Array:
    """Drop the last channel, which is marked as transparency.

    Raises
    ------
    MicrosegError
        If it varies: what lies behind would be lost.
    """
    alpha = array[..., -1]
    if alpha.size and (alpha != alpha.flat[0]).any():
        raise MicrosegError(f"{name}: transparency varies over the image; flatten it (save without alpha)")
    return array[..., :-1]


def supported(array: Array, name: str) -> Array:
    """Return uint8 and uint16 as they are, in native byte order, and any other numbers as float32.

    Raises
    ------
    MicrosegError
        If values are complex, not finite, or too large for float32.
    """
    if array.dtype.kind == "b":
        array = array.astype(np.uint8) * 255
    if array.dtype.kind == "c":
        raise MicrosegError(f"{name}: complex values; save their magnitude or real part")
    target = (
        array.dtype.newbyteorder("=")
        if array.dtype.newbyteorder("=") in (np.uint8, np.uint16)
        else np.float32
    )
    array = np.ascontiguousarray(array, dtype=target)
    if target == np.float32 and not np.isfinite(array).all():
        raise MicrosegError(
            f"{name}: NaN or infinite values; replace them (by the background, say) and save again"
        )
    return array


def _size(array: Array) -> str:
    """Say an array's size as people do: width x height."""
    return f"{array.shape[1]} x {array.shape[0]}"
