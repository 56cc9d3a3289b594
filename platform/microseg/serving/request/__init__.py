"""What a client sends and gets over REST: images as base64 text, numbers or addresses, and their masks."""

from microseg.serving.encoding import encode_npy, encode_png
from microseg.serving.request.fields import BadRequest, ImageRequest, MaskResponse
from microseg.serving.request.images import decode
from microseg.serving.request.limits import Limits
from microseg.serving.request.reading import read

__all__ = [
    "BadRequest",
    "ImageRequest",
    "Limits",
    "MaskResponse",
    "decode",
    "encode_npy",
    "encode_png",
    "read",
]
