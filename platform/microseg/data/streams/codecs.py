"""What chunks of Zarr may be coded with; none is decompressed beyond the size that its array states.

zarr decompresses whatever a chunk holds before it compares sizes: 16 KB of zstd may stand for 512 MB.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import imagecodecs
import numpy as np
import zarr
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import ShardingCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer

# Each takes a number of bytes at most, and none more memory than that.
_DECOMPRESS: Mapping[str, Callable[..., Any]] = {
    "blosc": imagecodecs.blosc_decode,
    "bz2": imagecodecs.bz2_decode,
    "gzip": imagecodecs.gzip_decode,
    "lz4": functools.partial(imagecodecs.lz4_decode, header=True),
    "lzma": imagecodecs.lzma_decode,
    "zlib": imagecodecs.zlib_decode,
    "zstd": imagecodecs.zstd_decode,
}
_LARGEST = 2**31 - 1  # bytes, of which zarr's own compressors take no more at once
_SMALL = 2**28  # bytes of a chunk that an image of any size may have
_OF_ONE_SIZE = ("bitround", "bytes", "crc32c", "delta", "shuffle", "transpose")  # decoded as large as coded


def bounded(array: Any) -> Any:
    """Return an opened array that reads as before, but refuses chunks that hold more than is stated.

    Parameters
    ----------
    array : zarr.Array
        Of Zarr 2 or 3, with or without shards.

    Raises
    ------
    ValueError
        If it names a codec whose memory is not bounded here, or a chunk is far larger than the array.
    """
    facts = array.metadata
    size = math.prod(array.chunks) * array.dtype.itemsize
    if size > max(_SMALL, array.nbytes):
        raise ValueError(f"chunks of {size} bytes in an array of {array.nbytes}")
    if facts.zarr_format == 3:
        facts = dataclasses.replace(facts, codecs=_bounded(facts.codecs))
    else:
        for codec in facts.filters or ():
            _check(codec.codec_id, codec.get_config())
        if facts.compressor is not None:
            facts = dataclasses.replace(facts, compressor=_Compressor(facts.compressor.codec_id, size))
    return zarr.Array(zarr.AsyncArray(facts, array.store_path, array.async_array.config))


def _bounded(codecs: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(_guarded(codec) for codec in codecs)


def _guarded(codec: Any) -> Any:
    if isinstance(codec, ShardingCodec):
        return dataclasses.replace(
            codec, codecs=_bounded(codec.codecs), index_codecs=_bounded(codec.index_codecs)
        )
    described = codec.to_dict()
    name = str(described["name"]).removeprefix("numcodecs.")
    if name in _DECOMPRESS:
        return _Decompressor(name)
    _check(name, described.get("configuration", {}))
    return codec


def _check(name: str, configuration: Mapping[str, Any]) -> None:
    """Refuse a codec that may make much of little."""
    if name not in _OF_ONE_SIZE:
        _refuse(name)
    if name == "delta":
        kept = configuration.get("astype") or configuration["dtype"]
        if np.dtype(kept).itemsize != np.dtype(configuration["dtype"]).itemsize:
            _refuse("delta with an astype of another size")


def _refuse(name: str) -> NoReturn:
    allowed = ", ".join(sorted({*_DECOMPRESS, *_OF_ONE_SIZE, "sharding_indexed"}))
    raise ValueError(f"chunks coded by {name}; allowed: {allowed}")


def _decompressed(name: str, data: Any, size: int) -> bytes:
    """Decompress a chunk that should give so many bytes; other codecs may have added to them a little."""
    if size > _LARGEST:
        raise ValueError(f"{name}: chunks of {size} bytes; at most {_LARGEST} are decompressed at once")
    try:
        # Some decoders fill what they are given and say nothing of the rest: it must not fit exactly.
        return bytes(_DECOMPRESS[name](data, out=size + size // 8 + 4096))
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{name}: a chunk is damaged, or holds more than its {size} bytes") from error


@dataclass(frozen=True)
class _Decompressor(BytesBytesCodec):
    """A compressor of Zarr 3, to read with."""

    is_fixed_size = False
    name: str

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        size = math.prod(chunk_spec.shape) * chunk_spec.dtype.to_native_dtype().itemsize
        decoded = await asyncio.to_thread(_decompressed, self.name, chunk_bytes.as_numpy_array(), size)
        return chunk_spec.prototype.buffer.from_bytes(decoded)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        raise NotImplementedError


class _Compressor:
    """A compressor of Zarr 2, to read with; what zarr asks of one is in `zarr.abc.numcodec`."""

    codec_id = "bounded"

    def __init__(self, name: str, size: int) -> None:
        if name not in _DECOMPRESS:
            _refuse(name)
        self._name, self._size = name, size

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> _Compressor:
        return cls(**config)

    def get_config(self) -> dict[str, Any]:
        return {"name": self._name, "size": self._size}

    def encode(self, buf: Any) -> NoReturn:
        raise NotImplementedError

    def decode(self, buf: Any, out: Any = None) -> bytes:
        return _decompressed(self._name, buf, self._size)
