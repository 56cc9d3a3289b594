"""The registered model as MLflow runs it: a model from code, stored without pickle.

MLflow executes this file when it loads the model, in a process that may know the package only from
the copy stored with the model.
"""

from pathlib import Path

import yaml
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from microseg.errors import MicrosegError
from microseg.serving.objects import as_uint16
from microseg.serving.request import BadRequest, ImageRequest, MaskResponse, decode, encode_npy, encode_png
from microseg.serving.segmenter import Segmenter, to_mask

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
        self.segmenter = Segmenter(directory)
        self.version = _registered_version(directory)

    # MLflow passes the context only to a predict that has it, and reads the signature off the type hints.
    def predict(self, model_input: list[ImageRequest]) -> list[MaskResponse]:  # type: ignore[override]
        """Segment every image of a request.

        Parameters
        ----------
        model_input : list of ImageRequest
            Images as base64 text.

        Returns
        -------
        list of MaskResponse
            In the same order.

        Raises
        ------
        BadRequest
            For the first image that cannot be used; over REST this is status 400.
        """
        return [self._answer(number, request) for number, request in enumerate(model_input, start=1)]

    def _answer(self, number: int, request: ImageRequest) -> MaskResponse:
        card, objects = self.segmenter.card, None
        try:
            probability = self.segmenter.probability(decode(request.image, card.axes))
            if request.instances:
                objects = encode_png(as_uint16(self.segmenter.label(probability)))
        except MicrosegError as error:
            raise BadRequest(f"image {number} of the request: {error}") from error
        return MaskResponse(
            mask=encode_png(to_mask(probability, card.config.threshold)),
            probability=encode_npy(probability) if request.probability else None,
            instances=objects,
            model=card.name,
            version=self.version,
        )


set_model(SegmentationModel())
