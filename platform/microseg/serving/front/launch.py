"""What ``python -m`` runs as a model server: a registered version, by the code that is installed here.

MLflow would run the code that is stored with the version, which whoever writes to the registry chooses.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from microseg.errors import MicrosegError
from microseg.serving.stored import rebuild


def main() -> None:
    """Become ``mlflow models serve`` of the model in the first argument, with the others as its own."""
    uri, *arguments = sys.argv[1:]
    folder = Path(tempfile.mkdtemp())  # in the folder that the guard removes
    try:
        served = rebuild(uri, folder)
    except MicrosegError as error:
        sys.exit(f"microseg: {error}")
    # Another program in the same process: nothing of what rebuilding took stays in the memory.
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(served), *arguments]
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main()
