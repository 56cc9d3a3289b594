"""What the front answers instead of a mask: one JSON line, in the words of the client's own errors."""

from __future__ import annotations

import json
import re
from http import HTTPStatus

from aiohttp import web

from microseg.errors import MicrosegError

_OURS = re.compile(r"image \d+ of the request: ")
_BODY = '{"inputs": [{"image": "base64 of a PNG, TIFF, JPEG or NPY file"}]}'
_RETRY_AFTER = 5  # seconds

_LONGEST = 500  # characters
# Absolute paths, but no part of an address: those a client gave itself.
_PATH = re.compile(r"(?<![\w:/.])/(?:[\w.@%+~-]+/)+[\w.@%+~-]*")
NO_REQUEST = f"this is no request that the model takes; send {_BODY}"
_UPSTREAM = {
    400: NO_REQUEST,
    415: "send the body as Content-Type: application/json, in UTF-8",
    504: "the model needed longer than this server waits; send a smaller image, or use 'microseg predict'",
}
_FAILED = "the model server failed at this request; its operator finds the reason in its logs"


class RefusedError(MicrosegError):
    """A request that gets no mask: its status, and the one line that says why."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def refused(status: int, sentence: str) -> web.Response:
    """Return the answer, in the fields that MLflow's clients read; 503 says when to ask again."""
    content = {"error_code": HTTPStatus(status).name, "message": sentence}
    headers = {"Retry-After": str(_RETRY_AFTER)} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return web.json_response(content, status=status, headers=headers)


def trimmed(status: int, body: bytes) -> RefusedError:
    """Return what is passed on of a model server's error.

    Its 400 carry a stack trace, and may repeat the image. The sentences of this package are passed on,
    without the server's paths; all others are replaced by ours.
    """
    sentence = _message(body)
    if status == HTTPStatus.BAD_REQUEST and _OURS.match(sentence):
        return RefusedError(status, _PATH.sub("...", " ".join(sentence.split()))[:_LONGEST])
    if status in _UPSTREAM:
        return RefusedError(status, _UPSTREAM[status])
    return RefusedError(HTTPStatus.BAD_GATEWAY, _FAILED)


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, LookupError, TypeError):
        return ""
