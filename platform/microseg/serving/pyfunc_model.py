"""The registered model as MLflow runs it: a model from code, stored without pickle.

MLflow executes this file when it loads the model, in a process that may know the package only from
the copy stored with the model.
"""

import threading
from pathlib import Path

import numpy as np
import yaml
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from numpy.typing import NDArray

from microseg.errors import MicrosegError
from microseg.instances import Labels
from microseg.serving.channels import checked
from microseg.serving.masks import to_mask
from microseg.serving.objects import as_uint16, measurements
from microseg.serving.request import (
    BadRequest,
    ImageRequest,
    Limits,
    MaskResponse,
    encode_npy,
    encode_png,
    read,
)
from microseg.serving.segmenter import Segmenter
from microseg.serving.unlike import look

ARTIFACT = "model"


def _registered_version(directory: Path) -> str | None:
    """Return the version that MLflow notes beside a model fetched from a registry, if it was."""
    note = directory.parents[1] / "registered_model_meta"
    if not note.is_file():
        return None
    return str(yaml.safe_load(note.read_text(encoding="utf-8"))["model_version"])


class SegmentationModel(PythonModel):
    """Answers images with masks; ``segmenter`` is for callers in the same process."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the networks; MLflow calls this once."""
        directory = Path(context.artifacts[ARTIFACT])
        self.limits = Limits.from_environment()
        self.segmenter = Segmenter(directory)
        self.version = _registered_version(directory)
        # The scoring server calls from several threads: one decoded image at a time keeps the memory flat.
        self._lock = threading.Lock()

    # MLflow passes the context only to a predict that has it, and reads the signature off the type hints.
    def predict(self, model_input: list[ImageRequest]) -> list[MaskResponse]:  # type: ignore[override]
        """Segment every image of a request.

        Parameters
        ----------
        model_input : list of ImageRequest
            Images as base64 text, numbers or addresses.

        Returns
        -------
        list of MaskResponse
            In the same order.

        Raises
        ------
        BadRequest
            For the first image that cannot be used; over REST this is status 400.
        """
        answers: list[MaskResponse] = []
        used = 0
        for number, request in enumerate(model_input, start=1):
            try:
                with self._lock:
                    image = read(request, self.segmenter.card.axes, self.limits, used)
                    answers.append(self._answer(request, image))
            except MicrosegError as error:
                raise BadRequest(f"image {number} of the request: {error}") from error
            used += image.shape[0] * image.shape[1]
        return answers

    def _answer(self, request: ImageRequest, image: NDArray[np.generic]) -> MaskResponse:
        card = self.segmenter.card
        encode = encode_npy if request.format == "npy" else encode_png
        probability = self.segmenter.probability(image, request.tta)
        labels = self.segmenter.label(probability) if request.instances or request.table else None
        return MaskResponse(
            mask=encode(to_mask(probability, card.config.threshold)),
            probability=encode_npy(probability) if request.probability else None,
            instances=encode(as_uint16(labels)) if request.instances and labels is not None else None,
            table=self._rows(labels, image, request) if request.table and labels is not None else None,
            model=card.name,
            version=self.version,
            warnings=list(card.unlike(lambda: look(image), request.pixel_size_um)),
        )

    def _rows(
        self, labels: Labels, image: NDArray[np.generic], request: ImageRequest
    ) -> list[dict[str, float]]:
        """Return the measurements of the objects, a row for each."""
        size = request.pixel_size_um or self.segmenter.card.pixel_size_um
        table = measurements(labels, checked(image, self.segmenter.card), size)
        return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


set_model(SegmentationModel())
