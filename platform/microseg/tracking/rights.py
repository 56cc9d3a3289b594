"""What a tracking server with users lets whoever is logged in change, told in one line where it does not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
from mlflow.exceptions import MlflowException

from microseg.errors import MicrosegError

FORBIDDEN = 403


@contextmanager
def allowed(what: str) -> Iterator[None]:
    """Say of what the server forbids who may not change it, and which permission to ask for.

    Parameters
    ----------
    what : str
        What is changed, such as ``the registered model 'cells'``.

    Raises
    ------
    MicrosegError
        If the user of ``MLFLOW_TRACKING_USERNAME`` may not.
    """
    try:
        yield
    except (MlflowException, OSError) as error:
        if not forbidden(error):
            raise
        raise MicrosegError(
            f"user '{os.environ.get('MLFLOW_TRACKING_USERNAME', '')}' may not change {what} on "
            f"{mlflow.get_tracking_uri()}; ask its owner or whoever runs the server for the permission EDIT"
        ) from error


def forbidden(error: BaseException) -> bool:
    """Say whether a server refused for want of a permission; of artifacts it is requests that tells."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return getattr(error, "error_code", "") == "PERMISSION_DENIED" or status == FORBIDDEN
