"""Ray's OutOfMemoryError reaches Tune as the death of one worker."""

import pickle
from types import SimpleNamespace

import pytest
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError

from microseg.search import deaths
from microseg.search.deaths import WorkerMemoryError


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
