"""Ray: started on this machine or joined where ``RAY_ADDRESS`` says, by a search and by a prediction alike.

Ray reads its environment when it is imported, so it is set here, and Ray is imported inside the functions.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from microseg.data.files import absolute
from microseg.errors import MicrosegError
from microseg.runtime import MIB

# Under `uv run` Ray would build a new environment for its workers.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# A worker without a share of a GPU would see all of them, and TensorFlow would take them.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")

OBJECT_STORE = 200 * MIB  # results are small: bytes enough, whatever the machine offers

# Whether Ray asks for a token: one that starts on this machine asks for it, and says so to the whole process.
AUTH_MODE = "RAY_AUTH_MODE"

# The run that `mlflow run` opened is the driver's; workers that inherit it would resume and rename it.
RUN_ID = "MLFLOW_RUN_ID"

# Where trials keep their state for all machines, see `microseg.search.state`.
STORE = "MICROSEG_STORE"

# What workers on other machines need to know of this one's environment; those of the same machine inherit it.
CARRIED = (
    "AWS_",
    "KERAS_",
    "MICROSEG_",
    "MLFLOW_",
    "NO_ALBUMENTATIONS_UPDATE",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO",
    "TF_",
)


@contextmanager
def joined() -> Iterator[None]:
    """Start Ray on this machine, or join the cluster of ``RAY_ADDRESS``.

    Within another such block it is that one's Ray.

    Raises
    ------
    MicrosegError
        If no cluster answers there.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    with _kept(AUTH_MODE):
        with _kept(RUN_ID):
            os.environ.pop(RUN_ID, None)
            _start()
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def _kept(name: str) -> Iterator[None]:
    """Give a variable of the environment its value back."""
    value = os.environ.get(name)
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def _start() -> None:
    """Start Ray, or join it, without a word of its own."""
    import ray

    _forget_token()
    address = os.environ.get("RAY_ADDRESS") or "local"
    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
    try:
        _knock(address)
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **(own if address == "local" else {"runtime_env": {"env_vars": carried_environment()}}),
        )
    except (OSError, ValueError) as error:
        raise MicrosegError(
            f"RAY_ADDRESS is {address}, but no Ray cluster answers there ({str(error).splitlines()[0]}); "
            "give host:port of its head, with RAY_AUTH_MODE=token if it asks for one, or unset it to stay on "
            "this machine"
        ) from error


def _forget_token() -> None:
    """Let Ray read anew whether there is a token.

    After a Ray of its own this process would ask a cluster without tokens for one, and each actor would be
    taken for forgotten before it runs (ray 2.60).
    """
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined] # compiled

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _knock(address: str) -> None:
    """Fail at once where nobody listens: Ray itself would try for minutes, and write about it."""
    place = urlsplit(address if "://" in address else f"//{address}")
    if place.hostname and place.port:
        socket.create_connection((place.hostname, place.port), timeout=10).close()


def carried_environment() -> dict[str, str]:
    """Return what workers on other machines are given of this process's environment.

    They inherit that of the ``ray start`` of their machine otherwise. It holds the credentials of the
    tracking server and of S3, if they are set; whoever may use the cluster can read them.
    """
    # With a store each machine has a folder of its own; Optuna is the driver's alone.
    own = {"MICROSEG_OPTUNA_URL", *(["MICROSEG_HOME"] if os.environ.get(STORE) else [])}
    carried = {name: os.environ[name] for name in os.environ if name.startswith(CARRIED) and name not in own}
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = os.pathsep.join(str(absolute(Path(entry))) for entry in entries if entry)
    return carried | ({"PYTHONPATH": paths} if paths else {})
