"""Processes that have loaded all that a trial needs before it is proposed; each serves one trial.

A worker spends two thirds of the time to its first training step on imports. Ray begins a process for an
actor only when it is asked for the actor, and gives it an idle one where that was begun for the same
environment; so a running trial asks Ray for such a process beside its own, for the trial that follows it. A
GPU is given to a process when it gets its actor: until then nothing here may look for one.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

import ray
from ray._private.ray_constants import WORKER_PROCESS_SETUP_HOOK_ENV_VAR

from microseg import runtime
from microseg.errors import one_line

LOADED = (
    "ray.tune.trainable.function_trainable",
    "microseg.search.worker",
    "microseg.tracking.recorder",
    "microseg.training",
)

KEPT_S = 7 * 24 * 3600  # longer than trials last; Ray ends what is idle beyond the number of cores at once
ANSWER_S = 30.0

_log = logging.getLogger(__name__)


def load() -> None:
    """Import what trials need; what fails here fails again in the trial, where it is told."""
    if os.environ.get("KERAS_BACKEND") == "torch":
        return  # Keras would ask it for a GPU at once
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    try:
        with runtime.uncollected():
            runtime.import_tensorflow()
            for name in LOADED:
                importlib.import_module(name)
    except Exception:  # noqa: BLE001
        _log.exception("loaded in vain")


def set_environment() -> None:
    """Let Ray Tune start workers with what they load first, and with no keys of S3.

    What it tells them is in Ray's logs and on command lines; keys they inherit, or take, see
    `microseg.cluster.take_credentials`.
    """
    from ray.tune.execution import class_cache

    class_cache.DEFAULT_ENV_VARS |= {WORKER_PROCESS_SETUP_HOOK_ENV_VAR: f"{__name__}.load"}
    names = class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.ENV_VARS_TO_PROPAGATE = {name for name in names if not name.startswith("AWS_")}


def prepare_first(count: int) -> None:
    """Ask Ray, of the one machine that it has, for the processes of the first trials."""
    from ray.tune.execution import class_cache

    with _unneeded():
        workers = class_cache._ActorClassCache().get(_Any)  # with the environment of Tune's own workers
        environment = workers._default_options["runtime_env"]
        _ask(environment.serialize(), ray.nodes()[0], count)


def prepare_successor() -> None:
    """Ask Ray for a process on this worker's machine, in its environment, for the trial after its own."""
    with _unneeded():
        here = ray.get_runtime_context()
        machine = next(node for node in ray.nodes() if node["NodeID"] == here.get_node_id())
        _ask(here.get_runtime_env_string(), machine, 1)


class _Any:
    """Stands for whatever class Tune's workers have."""


@contextlib.contextmanager
def _unneeded() -> Iterator[None]:
    """Go on where Ray does not answer: a trial then begins in a process that is begun for it."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        _log.warning("no process stands by for a trial (%s)", one_line(error))


def _ask(environment: str, machine: Mapping[str, Any], count: int) -> None:
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated.common_pb2 import PYTHON  # type: ignore[attr-defined]
    from ray.core.generated.node_manager_pb2 import PrestartWorkersRequest  # type: ignore[attr-defined]
    from ray.core.generated.node_manager_pb2_grpc import NodeManagerServiceStub
    from ray.core.generated.runtime_environment_pb2 import RuntimeEnvInfo  # type: ignore[attr-defined]

    request = PrestartWorkersRequest(
        language=PYTHON,
        job_id=bytes.fromhex(ray.get_runtime_context().get_job_id()),
        runtime_env_info=RuntimeEnvInfo(serialized_runtime_env=environment),
        keep_alive_duration_secs=KEPT_S,
        num_workers=count,
    )
    address = f"{machine['NodeManagerAddress']}:{machine['NodeManagerPort']}"
    with init_grpc_channel(address) as channel:
        NodeManagerServiceStub(channel).PrestartWorkers(request, timeout=ANSWER_S)
