"""The registered model, for callers in this process."""

from __future__ import annotations

import mlflow.pyfunc
from mlflow.exceptions import MlflowException

from microseg.errors import MicrosegError
from microseg.serving.segmenter import Segmenter


def load_segmenter(model_uri: str) -> Segmenter:
    """Load a model from MLflow.

    Parameters
    ----------
    model_uri : str
        Such as ``models:/NAME@champion``, ``models:/NAME/3`` or the path of a saved model.

    Raises
    ------
    MicrosegError
        If there is no such model or it was not made by microseg.
    """
    try:
        model = mlflow.pyfunc.load_model(model_uri).unwrap_python_model()
    except (MlflowException, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise MicrosegError(
            f"{model_uri}: cannot be loaded ({reason}); check the name and the alias"
        ) from error
    segmenter = getattr(model, "segmenter", None)
    if segmenter is None:
        raise MicrosegError(f"{model_uri}: not a microseg model; give one that 'microseg search' registered")
    return segmenter  # type: ignore[no-any-return]
