"""Ray's OutOfMemoryError reaches Tune as the death of one worker."""

import pickle
from types import SimpleNamespace

import pytest
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError

from microseg.search import deaths
from microseg.search.deaths import NOTICED, WorkerMemoryError, with_its_machine


@pytest.fixture
def tell():
    """Return a function that tells Ray's manager of workers why one died; it returns what Tune hears."""

    def told(error, starting=False):
        heard = []
        manager = SimpleNamespace(_failed_actor_ids=set(), _cleanup_actor=lambda tracked_actor: None)
        worker = SimpleNamespace(actor_id=1, _on_error=lambda worker, error: heard.append(error))
        task = SimpleNamespace(_tracked_actor=worker, _on_error=worker._on_error)
        if starting:
            RayActorManager._actor_start_failed(manager, tracked_actor=worker, exception=error)
        else:
            RayActorManager._actor_task_failed(manager, tracked_actor_task=task, exception=error)
        return heard

    return told


def test_ray_by_itself_ends_the_search(tell):
    """Once this fails, Ray has mended it and the module can go."""
    with pytest.raises(RuntimeError, match="Caught unexpected exception: no room"):
        tell(OutOfMemoryError("no room"))


@pytest.mark.parametrize(("starting", "times"), [(True, 1), (False, 2)])  # the worker's and its task's
def test_tune_hears_of_a_death(tell, starting, times):
    with deaths.survived():
        heard = tell(OutOfMemoryError("no room"), starting)
        assert tell(RayActorError(error_msg="killed")) != heard
    assert [(type(error), str(error)) for error in heard] == [(WorkerMemoryError, "no room")] * times
    kept = pickle.loads(pickle.dumps(heard[0]))  # Ray keeps it in a file
    assert (type(kept), str(kept)) == (WorkerMemoryError, "no room")


def test_afterwards_ray_is_as_it_was(tell):
    before = RayActorManager._actor_task_failed
    with pytest.raises(KeyboardInterrupt), deaths.survived():
        raise KeyboardInterrupt
    assert RayActorManager._actor_task_failed is before


@pytest.fixture
def nodes(monkeypatch):
    """Let Ray tell of its machines: each time it is asked what comes next, the last for ever."""

    def told(*answers):
        left = list(answers)

        def machines():
            now = left.pop(0) if len(left) > 1 else left[0]
            return [{"NodeManagerAddress": address, "Alive": alive} for address, alive in now]

        monkeypatch.setattr(deaths.ray, "is_initialized", lambda: True)
        monkeypatch.setattr(deaths.ray, "nodes", machines)

    return told


HEAD, UP, DOWN = ("10.0.0.1", True), ("10.0.0.2", True), ("10.0.0.2", False)
WORKER = "The actor died unexpectedly before finishing this task.\n\tpid: 7\n\tip: 10.0.0.2\nThe worker process has died."


@pytest.mark.parametrize(
    ("answers", "lost", "waited"),
    [
        ([[HEAD, UP]] * 3 + [[HEAD, DOWN]], True, 3),
        ([[HEAD, DOWN]], True, 0),
        ([[HEAD, DOWN, UP]], False, NOTICED),  # a new one has its address
        ([[HEAD, UP]], False, NOTICED),
        ([[UP]], False, 0),  # nothing to wait for: the driver is there too
    ],
)
def test_a_machine_is_given_time_to_be_known_as_lost(nodes, answers, lost, waited):
    nodes(*answers)
    slept = []
    assert with_its_machine(RayActorError(error_msg=WORKER), sleep=slept.append) is lost
    assert sum(slept) == waited
    nodes(*answers)
    unreachable = RayActorError(error_msg="The actor 1 is unavailable: RpcError")
    assert with_its_machine(unreachable, "10.0.0.2", sleep=slept.append) is lost


def test_ray_is_not_asked_about_a_worker_without_an_address(nodes):
    nodes([HEAD, DOWN])
    assert not with_its_machine(RayActorError(error_msg="The actor died."))
