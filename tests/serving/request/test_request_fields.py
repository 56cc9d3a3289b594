"""What a request may say, and how one that says something else is refused."""

import pytest
from mlflow.types.schema import Schema
from mlflow.types.type_hints import _infer_schema_from_list_type_hint, _validate_data_against_type_hint

from microseg.errors import MicrosegError
from microseg.serving.request import BadRequest, ImageRequest, MaskResponse

WRONG = {
    "nothing": ({}, "give one of image, tensor, uri (given: none)"),
    "two images": ({"image": "a", "uri": "file:///a"}, "given: image, uri"),
    "a mistyped key": ({"picture": "a"}, "unknown key 'picture'"),
    "no text": ({"image": 3}, "image: Input should be text"),
    "no truth value": ({"image": "a", "table": "yes"}, "table: Input should be true or false"),
    "another format": ({"image": "a", "format": "tiff"}, "format is 'tiff'; allowed: png, npy"),
    "another number type": ({"tensor": [[[1]]], "dtype": "int8"}, "dtype is 'int8'; allowed: uint8, uint16"),
    "no width": ({"image": "a", "pixel_size_um": 0}, "pixel_size_um"),
    "infinite": ({"image": "a", "pixel_size_um": float("inf")}, "pixel_size_um"),
}


@pytest.mark.parametrize(("fields", "words"), WRONG.values(), ids=WRONG)
def test_fields_that_do_not_fit_are_refused_by_us_and_not_by_mlflow(fields, words):
    """MLflow's own refusal repeats the whole request, so it must find nothing to refuse."""
    (request,) = _validate_data_against_type_hint([fields], list[ImageRequest])
    with pytest.raises(MicrosegError) as caught:
        request.checked()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mlflow_passes_a_request_on_as_it_is_and_does_not_read_a_tensors_numbers():
    numbers = [[[1.5], ["no number"]]]
    (request,) = _validate_data_against_type_hint([{"tensor": numbers}], list[ImageRequest])
    assert request.checked().tensor is numbers


def test_the_signature_names_every_field_and_its_type():
    schema = Schema.to_json(_infer_schema_from_list_type_hint(list[ImageRequest]))
    assert '"tensor": {"type": "array", "items": {"type": "array", "items": {"type": "array"' in schema
    for field in ImageRequest.model_fields:
        assert f'"{field}"' in schema
    answer = Schema.to_json(_infer_schema_from_list_type_hint(list[MaskResponse]))
    for field in MaskResponse.model_fields:
        assert f'"{field}"' in answer


def test_a_bad_request_is_status_400_and_keeps_its_sentence():
    """The scoring server assigns a message that repeats the request, image and all."""
    error = BadRequest("image 1 of the request: too dark")
    error.message = "Failed to predict data 'iVBORw0KGgo...'"
    assert error.message == "image 1 of the request: too dark"
    assert error.get_http_status_code() == 400
    assert "iVBOR" not in error.serialize_as_json()


def test_a_refusal_that_quotes_an_image_is_cut():
    (request,) = _validate_data_against_type_hint([{"image": [0] * 10_000}], list[ImageRequest])
    with pytest.raises(MicrosegError) as caught:
        request.checked()
    assert len(str(caught.value)) > 10_000
    assert len(BadRequest(str(caught.value)).message) < 600
