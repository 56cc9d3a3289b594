"""The registered model, for callers in this process."""

from __future__ import annotations

import tempfile
from pathlib import Path

from microseg.errors import MicrosegError
from microseg.serving.segmenter import Segmenter
from microseg.serving.stored import fetch


def load_segmenter(model_uri: str) -> Segmenter:
    """Load a model from MLflow: its card and its networks, none of the code that is stored with it.

    Parameters
    ----------
    model_uri : str
        Such as ``models:/NAME@champion``, ``models:/NAME/3`` or the path of a saved model.

    Raises
    ------
    MicrosegError
        If there is no such model, it was not made by microseg, or it is damaged or hostile.
    """
    with tempfile.TemporaryDirectory(prefix="microseg-") as folder:
        directory = fetch(model_uri, Path(folder))
        try:
            return Segmenter(directory)
        except MicrosegError as error:  # which names a copy that nobody gave
            raise MicrosegError(f"{model_uri}: {str(error).removeprefix(f'{directory}/')}") from error
