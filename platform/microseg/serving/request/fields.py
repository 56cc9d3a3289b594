"""The fields of a request and of its answer, which MLflow shows as the model's signature."""

from __future__ import annotations

from typing import Annotated, Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SkipValidation,
    ValidationError,
    model_validator,
)

from microseg.errors import MicrosegError, first_problem

SOURCES = ("image", "tensor", "uri")
FORMATS = ("png", "npy")
DTYPES = ("uint8", "uint16", "float32")
_LONGEST = 500  # characters of a refusal: it may quote a value, and a value may be a whole image


class ImageRequest(BaseModel):
    """One image to segment: one of ``image`` (the way to choose), ``tensor`` and ``uri``.

    MLflow's own answer to a field that does not fit repeats the whole request, the image included. So a
    request with such a field is made all the same, and `checked` refuses it in a sentence.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    image: str | None = Field(
        default=None, description="base64 of a PNG, TIFF, JPEG or NPY (height, width[, channels]) file"
    )
    # A large list is read by NumPy; pydantic would look at every number, twice.
    tensor: Annotated[list[list[list[float]]] | None, SkipValidation] = Field(
        default=None, description="numbers, (height, width, channels); many times slower than image"
    )
    dtype: str = Field(default="float32", description=f"number type of the tensor: {', '.join(DTYPES)}")
    uri: str | None = Field(
        default=None, description="file:// or s3:// address of such a file, where the server allows it"
    )
    pixel_size_um: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="side of a pixel in micrometres; the training images' by default",
    )
    format: str = Field(default="png", description="of mask and instances: png or npy")
    tta: bool = Field(
        default=False, description="whether to average over flips and rotations, 8 times as slow"
    )
    probability: bool = Field(default=False, description="whether to answer the probabilities too")
    instances: bool = Field(default=False, description="whether to answer the numbered objects too")
    table: bool = Field(default=False, description="whether to answer the measurements of the objects too")

    _problem: str | None = PrivateAttr(default=None)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            super().__init__(image="")
            self._problem = first_problem(error, type(self))

    @model_validator(mode="after")
    def _possible(self) -> ImageRequest:
        given = [name for name in SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(SOURCES)} (given: {', '.join(given) or 'none'})")
        for name, allowed in (("format", FORMATS), ("dtype", DTYPES)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is '{getattr(self, name)}'; allowed: {', '.join(allowed)}")
        return self

    def checked(self) -> ImageRequest:
        """Return the request.

        Raises
        ------
        MicrosegError
            If it was made of fields that do not fit.
        """
        if self._problem:
            raise MicrosegError(self._problem)
        return self


class MaskResponse(BaseModel):
    """The answer to one image, in the image's own size."""

    mask: str = Field(description="base64 PNG or NPY, 8 bit: 0 and 255, or class indices for several classes")
    probability: str | None = Field(default=None, description="base64 NPY, float32, (height, width, classes)")
    instances: str | None = Field(
        default=None, description="base64 PNG or NPY, 16 bit: 0 background, objects from 1"
    )
    table: list[dict[str, float]] | None = Field(default=None, description="measurements, a row per object")
    model: str = Field(description="name of the registered model")
    version: str | None = Field(default=None, description="its version, where it came from a registry")
    warnings: list[str] = Field(default=[], description="why the mask may not be one to trust")


class BadRequest(MlflowException):
    """A request that is answered with status 400 and one sentence.

    The scoring server assigns a new message that repeats the whole request, the image included;
    this exception keeps its own.
    """

    def __init__(self, sentence: str) -> None:
        self._sentence = sentence if len(sentence) <= _LONGEST else f"{sentence[:_LONGEST]} ..."
        super().__init__(self._sentence, error_code=INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        """The sentence; assignments are ignored."""
        return self._sentence

    @message.setter
    def message(self, _value: str) -> None:
        pass
