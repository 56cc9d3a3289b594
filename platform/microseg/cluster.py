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
from microseg.errors import MicrosegError, one_line
from microseg.logs import names_secret
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

LOCAL = "local"  # the address by which Ray starts on this machine alone

CREDENTIALS = "microseg-credentials"  # the actor that has them

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
            keeper = _keeper() if not is_local() else None  # ends when nobody refers to it any more
            yield
            del keeper
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


def is_local() -> bool:
    """Say whether Ray is started on this machine alone."""
    return _address() == LOCAL


def _address() -> str:
    return os.environ.get("RAY_ADDRESS") or LOCAL


def _start(again: bool = True) -> None:
    """Start Ray, or join it, without a word of its own.

    Ray gives its own processes half a minute, which are not enough on a machine that starts much else; what
    they load lies in the memory by the second time.
    """
    import ray

    _forget_token()
    address = _address()
    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
    try:
        _knock(address)
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **(own if address == LOCAL else {"runtime_env": {"env_vars": carried_environment()}}),
        )
    except (OSError, ValueError) as error:
        raise MicrosegError(
            f"RAY_ADDRESS is {address}, but no Ray cluster answers there ({str(error).splitlines()[0]}); "
            "give host:port of its head, with RAY_AUTH_MODE=token if it asks for one, or unset it to stay on "
            "this machine"
        ) from error
    except Exception as error:  # Ray reports a start that takes too long as a bare Exception
        if again:
            _start(again=False)
            return
        raise MicrosegError(
            f"Ray did not start ({one_line(error)}); free cores and memory of this machine, and try again"
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
    """Return what workers on other machines are given of this process's environment when they start.

    They inherit that of the ``ray start`` of their machine otherwise. Ray logs it, and writes it on their
    command lines, so that credentials are not in it, see `take_credentials`.
    """
    carried = {name: value for name, value in _carried().items() if not _is_secret(name, value)}
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = os.pathsep.join(str(absolute(Path(entry))) for entry in entries if entry)
    return carried | ({"PYTHONPATH": paths} if paths else {})


def _carried() -> dict[str, str]:
    # With a store each machine has a folder of its own; Optuna is the driver's alone.
    own = {"MICROSEG_OPTUNA_URL", *(["MICROSEG_HOME"] if os.environ.get(STORE) else [])}
    return {name: os.environ[name] for name in os.environ if name.startswith(CARRIED) and name not in own}


def _is_secret(name: str, value: str) -> bool:
    """Say whether nobody should read a variable: by its name, or as an address with a password in it."""
    return names_secret(name) or name.startswith("AWS_") or ("://" in value and "@" in urlsplit(value).netloc)


def credentials() -> dict[str, str]:
    """Return what a worker must not be started with, see `carried_environment`."""
    return {name: value for name, value in _carried().items() if _is_secret(name, value)}


class _Keeper:
    """Hands credentials to workers, from memory to memory."""

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values

    def values(self) -> dict[str, str]:
        return self._values


def _keeper() -> Any:
    """Start an actor with this process's credentials beside it; only this driver's workers find it."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    kept = ray.remote(num_cpus=0)(_Keeper).options(name=CREDENTIALS, scheduling_strategy=here)
    return kept.remote(credentials())


def take_credentials() -> None:
    """Take the driver's credentials into this worker's environment.

    On a machine that the driver started Ray on itself there are none to take: they were inherited.
    """
    import ray

    if not ray.is_initialized():
        return
    try:
        keeper = ray.get_actor(CREDENTIALS)
    except ValueError:
        return
    os.environ.update(ray.get(keeper.values.remote()))
