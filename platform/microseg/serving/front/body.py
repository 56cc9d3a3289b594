"""What the body of a request must be before a model server reads it: JSON of a bounded form.

To JSON that Python cannot read MLflow answers 500, and what is no image it looks at for minutes, one by one.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from pydantic import BaseModel, FailFast, Field, ValidationError

from microseg.serving.front.refusals import NO_REQUEST, RefusedError

_IMAGES = 1000
_QUOTES = 100 * _IMAGES  # of all names and texts: an image has at most ten of each


class _Image(BaseModel):
    """Any object: its fields are the model's to look at, and are not even made here."""


class _Request(BaseModel):
    inputs: Annotated[list[_Image], Field(max_length=_IMAGES), FailFast()] = []


def check_body(body: bytes) -> None:
    """Refuse a body that no model server should have to read.

    Parameters
    ----------
    body : bytes
        Of a request for masks.

    Raises
    ------
    RefusedError
        400 if it is no JSON, nested without need, or has a number of thousands of digits or anything but
        objects for images; 413 if it has more images or fields than are answered at once.
    """
    try:
        _Request.model_validate_json(body)
    except ValidationError as error:
        finding = error.errors(include_url=False, include_context=False, include_input=False)[0]
        if finding["type"] == "too_long":
            raise _too_many() from None
        raise RefusedError(HTTPStatus.BAD_REQUEST, NO_REQUEST) from None  # the cause holds the body
    if body.count(b'"') > _QUOTES:
        raise _too_many()


def _too_many() -> RefusedError:
    return RefusedError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"at most {_IMAGES} images, with the fields that they may have, are answered at once; send several "
        "requests",
    )
