"""What an attempt at a trial died of decides how the next one goes."""

import pickle

import pytest
import ray.exceptions
from ray.core.generated.common_pb2 import ActorDiedErrorContext, NodeDeathInfo

from microseg.config import TrialConfig
from microseg.search import incidents
from microseg.search.deaths import WorkerMemoryError
from microseg.search.incidents import Incident, TrialMemoryError, classify, hopeless, relieved
from microseg.search.runner import ATTEMPTS

OOM, FAILED = Incident("out_of_memory", "out of memory"), Incident("failed", "no such thing")
LOST = Incident("machine_lost", "the worker's machine was lost")


def config(batch=8, accumulation=1) -> TrialConfig:
    values = {"model": {"name": "unet"}, "batch_size": batch, "accumulation": accumulation}
    return TrialConfig.model_validate(values)


def test_they_are_kept_in_order_and_a_torn_file_is_none(tmp_path):
    assert incidents.read(tmp_path / "trial") == []
    incidents.note(tmp_path / "trial", OOM)
    incidents.note(tmp_path / "trial", FAILED)
    assert incidents.read(tmp_path / "trial") == [OOM, FAILED]
    (tmp_path / "trial" / incidents.FILE).write_text("[[")
    assert incidents.read(tmp_path / "trial") == []


@pytest.mark.parametrize(
    ("found", "batch", "ends"),
    [
        ([], 8, None),
        ([FAILED], 8, None),
        ([OOM], 8, None),
        ([OOM, FAILED], 8, None),
        ([FAILED, FAILED], 8, FAILED),
        ([OOM, FAILED, OOM], 8, OOM),
        ([FAILED, *[LOST] * 9, OOM], 8, None),
        ([FAILED, LOST, FAILED], 8, FAILED),
        ([LOST] * 10, 8, LOST),  # perhaps it is the trial that kills them
        ([OOM], 1, OOM),  # one patch cannot be halved
        ([OOM._replace(accumulation=8)], 8, OOM._replace(accumulation=8)),
    ],
)
def test_a_trial_gets_one_more_attempt_of_each_kind(found, batch, ends):
    assert hopeless(found, config(batch)) == ends


@pytest.mark.parametrize(
    ("batch", "accumulation", "parts"), [(8, 1, 2), (8, 2, 4), (6, 1, 2), (5, 1, 5), (9, 1, 3), (4, 4, 4)]
)
def test_half_a_batch_at_once_keeps_the_batch(batch, accumulation, parts):
    relief = relieved(config(batch, accumulation), [OOM._replace(accumulation=accumulation)])
    assert (relief.batch_size, relief.accumulation) == (batch, parts)
    assert TrialConfig.model_validate(relief.model_dump()) == relief  # parts are equal
    assert relieved(config(batch, accumulation), [FAILED]) == config(batch, accumulation)


def test_a_resumed_trial_is_not_halved_again():
    """The search keeps the parts with the configuration, and hands them to the worker of a resumed study."""
    relief = relieved(config(8), [OOM])
    assert relieved(relief, [OOM]) == relief
    assert hopeless([OOM], relieved(config(2), [OOM])) is None
    assert relieved(config(8, 2), [OOM._replace(accumulation=2)]).accumulation == 4


def test_memory_is_told_from_other_deaths():
    memory = WorkerMemoryError(error_msg="killed due to the node running low on memory")
    assert classify(memory)[:2] == ("out_of_memory", "the machine ran out of memory, Ray ended the worker")
    assert classify(ray.exceptions.RayActorError())[:2] == ("failed", "the worker process died")
    assert classify(ValueError("no such\nthing"))[:2] == ("failed", "ValueError: no such")
    graph = "Graph execution error:\n\nat node x\n{}shapes differ"
    assert classify(ValueError(graph.format(""))).text == "Graph execution error: shapes differ"
    assert (
        classify(ValueError(graph.format("ValueError: no such patch\n"))).text == "ValueError: no such patch"
    )
    assert (
        classify(OSError(28, "No space left on device")).text == "OSError: [Errno 28] No space left on device"
    )


def death(**said) -> ray.exceptions.ActorDiedError:
    """Return what Ray makes of what its own C++ says of a dead worker."""
    return ray.exceptions.ActorDiedError(ActorDiedErrorContext(actor_id=bytes(16), **said))


def test_the_death_of_a_machine_is_told_from_that_of_a_worker():
    gone = death(error_message="The actor died because its node has died. Node Id: 042bd18be2334b6990f4")
    preempted = death(
        error_message="The actor's node was preempted",
        node_death_info=NodeDeathInfo(reason=NodeDeathInfo.AUTOSCALER_DRAIN_PREEMPTED),
    )
    killed = death(error_message="The actor is dead because its worker process has died.")
    assert classify(gone)[:2] == classify(preempted)[:2] == ("machine_lost", "the worker's machine was lost")
    assert classify(killed)[:2] == ("failed", "the worker process died")
    assert classify(ValueError("because its node has died"))[0] == "failed"
    assert [incident.state for incident in (LOST, FAILED, OOM)] == ["failed", "failed", "out_of_memory"]


def test_ray_tries_as_often_as_a_trial_may_be_tried():
    """A trial is ended by what happened to it, never for the number of attempts alone."""
    found = [OOM, FAILED, *[LOST] * 9]
    assert hopeless(found, config()) is None
    assert all(hopeless([*found, further], config()) for further in (OOM, FAILED, LOST))
    assert len(found) + 2 == ATTEMPTS


def test_the_error_of_a_worker_arrives_wrapped():
    error = pickle.loads(pickle.dumps(TrialMemoryError("out of memory with 8 patches at once")))
    wrapped = ray.exceptions.RayTaskError("train", "Traceback ...", error)
    assert classify(wrapped)[:2] == ("out_of_memory", "out of memory with 8 patches at once")
    assert classify(None)[:2] == ("failed", "NoneType: None")
