"""What a server with users forbids is told in one line; everything else stays what it was."""

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, PERMISSION_DENIED
from requests import HTTPError, Response

from microseg.errors import MicrosegError
from microseg.tracking.rights import allowed


def answered(status):
    response = Response()
    response.status_code = status
    return HTTPError("refused", response=response)


@pytest.mark.parametrize("error", [MlflowException("no", error_code=PERMISSION_DENIED), answered(403)])
def test_a_missing_permission_names_the_user_the_thing_and_the_server(monkeypatch, error):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "anna")
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: "http://lab.org")
    with (
        pytest.raises(
            MicrosegError, match=r"'anna' may not change the model 'x' on http://lab.org; .* EDIT$"
        ),
        allowed("the model 'x'"),
    ):
        raise error


@pytest.mark.parametrize(
    "error", [MlflowException("no", error_code=INTERNAL_ERROR), answered(500), OSError("disk"), KeyError("x")]
)
def test_another_error_passes(error):
    with pytest.raises(type(error)) as caught, allowed("the model 'x'"):
        raise error
    assert caught.value is error
