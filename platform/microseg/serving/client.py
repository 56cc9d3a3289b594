"""Ask a model server from Python: an image in, arrays out. Loads neither TensorFlow nor MLflow."""

from __future__ import annotations

import base64
import http.client
import io
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from microseg.data.files import read_bytes
from microseg.errors import MicrosegError, one_line
from microseg.serving.encoding import NPY, encode_npy


class Answer(NamedTuple):
    """What the server says of one image.

    ``mask`` is uint8, shape (height, width), 0 and 255 or class indices; ``probability`` float32, shape
    (height, width, classes); ``instances`` uint16, 0 background, objects from 1; ``table`` a row of
    measurements for each object; what was not asked for is None. ``warnings`` say in a sentence each why the
    mask may not be one to trust.
    """

    mask: NDArray[np.uint8]
    probability: NDArray[np.float32] | None
    instances: NDArray[np.uint16] | None
    table: list[dict[str, float]] | None
    model: str
    version: str | None
    warnings: tuple[str, ...]


class Client:
    """A model server that ``mlflow models serve`` started.

    Parameters
    ----------
    url : str
        Such as ``http://127.0.0.1:5001``.
    timeout : float
        Seconds to wait for an answer. The server itself gives up after 60, or what
        ``MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT`` says where it starts.

    Raises
    ------
    MicrosegError
        If the URL is not one of http or https.
    """

    def __init__(self, url: str = "http://127.0.0.1:5001", timeout: float = 90.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise MicrosegError(f"{url}: not a server's address; give http://HOST:PORT")
        self.url, self.timeout = url.rstrip("/"), timeout

    def segment(self, image: NDArray[np.generic] | Path | str, **options: Any) -> Answer:
        """Segment one image.

        Parameters
        ----------
        image : ndarray, Path or str
            (height, width[, channels]) numbers, the path of a PNG, TIFF, JPEG or NPY file to send, or the
            ``file://`` or ``s3://`` address of one that the server reads itself.
        **options
            Further fields of a request, see `microseg.serving.request.ImageRequest`: ``probability``,
            ``instances`` and ``table`` ask for more, ``pixel_size_um`` is the side of a pixel.

        Raises
        ------
        MicrosegError
            With the server's sentence if it refuses the image, or if it does not answer.
        """
        body = json.dumps({"inputs": [_source(image) | options]}).encode()
        headers = {"Content-Type": "application/json"}
        (answer,) = self._asked(urllib.request.Request(f"{self.url}/invocations", body, headers))[
            "predictions"
        ]
        instances, probability = answer["instances"], answer["probability"]
        return Answer(
            mask=_array(answer["mask"]),
            probability=None if probability is None else _array(probability),
            instances=None if instances is None else _array(instances),
            table=answer["table"],
            model=answer["model"],
            version=answer["version"],
            warnings=tuple(answer["warnings"]),
        )

    def _asked(self, request: urllib.request.Request) -> Any:
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise MicrosegError(f"{self.url}: {_refusal(error)}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = one_line(getattr(error, "reason", None) or error)
            raise MicrosegError(
                f"{self.url}: no answer ({reason}); check the address and that the server runs"
            ) from error


def _source(image: NDArray[np.generic] | Path | str) -> dict[str, Any]:
    if isinstance(image, str) and "://" in image:
        return {"uri": image}
    if isinstance(image, (str, Path)):
        return {"image": base64.b64encode(read_bytes(Path(image))).decode("ascii")}
    return {"image": encode_npy(image)}


def _array(text: str) -> NDArray[Any]:
    data = base64.b64decode(text)
    if data.startswith(NPY):
        array: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
        return array
    return np.asarray(imagecodecs.png_decode(data))


def _refusal(error: urllib.error.HTTPError) -> str:
    """Return the sentence in a refusal; some of the server's own are no JSON."""
    text = error.read().decode("utf-8", "replace")
    try:
        return str(json.loads(text)["message"])
    except (ValueError, LookupError, TypeError):
        return f"status {error.code}: {' '.join(text.split())[:200] or error.reason}"
