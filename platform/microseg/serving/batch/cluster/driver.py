"""The side of the cluster that knows all images: it divides them, hears of the parts, and finishes."""

from __future__ import annotations

import itertools
import logging
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import mlflow

from microseg import storage
from microseg.cluster import joined
from microseg.data.files import absolute
from microseg.data.streams import MaskStore, frugal, is_streamed
from microseg.errors import MicrosegError, counted
from microseg.runtime import silent_descriptor
from microseg.serving.batch.cluster import attempts
from microseg.serving.batch.cluster.pool import Pool, machines, pool_of
from microseg.serving.batch.cluster.worker import WHOLE, Answer, Divided, Unfit, Work, Worker
from microseg.serving.batch.image import Watch, explained, in_strips
from microseg.serving.batch.large import begin, finish
from microseg.serving.batch.opening import Source, open_source
from microseg.serving.batch.options import Request
from microseg.serving.batch.summary import Outcome
from microseg.serving.batch.table import TakesObjects
from microseg.serving.large import parts
from microseg.serving.segmenter import Segmenter

ROWS = 4096  # of a part at most: four rows of blocks, so that few tiles at borders are predicted twice

Failed = dict[int, MicrosegError]
Row = dict[str, int]


def predict_on_cluster(
    request: Request, segmenter: Segmenter, table: TakesObjects | None, watch: Callable[[int], Watch]
) -> Generator[Outcome]:
    """Predict images on the cluster of ``RAY_ADDRESS``, or by workers on this machine.

    What the preprocessing needs to know of a large image is measured here beforehand, and its objects are
    told apart here afterwards; all else is done by the workers.

    Parameters
    ----------
    request : Request
        The images, the model and what is wanted.
    segmenter : Segmenter
        The model.
    table : TakesObjects, optional
        Takes the objects, in the order of the images.
    watch : callable
        Returns, for the number of an image, who is told how far that is.

    Yields
    ------
    Written or MicrosegError
        What became of each image, in the order of the request.

    Raises
    ------
    MicrosegError
        If no cluster answers, or a machine of it does not see the files or the model.
    """
    if Path(request.model_uri).exists():
        request = request._replace(model_uri=str(absolute(Path(request.model_uri))))
    with joined(), _places(request) as places, frugal():
        pool = pool_of(machines())
        divided, failed = _begun(request, segmenter, watch)
        work = Work(
            request=request,
            divided=divided,
            digest=segmenter.digest,
            tracking_uri=mlflow.get_tracking_uri(),
            places=places,
            cores=pool.cores,
            attempts=attempts.start(),
        )
        # Closed before Ray is left: the thread of Ray Data would start another Ray, or join it again.
        with closing(_answers(work, _rows(work, failed), pool)) as answers:
            for number in range(len(request.images)):
                if number in failed:
                    yield failed[number]
                elif number in divided:
                    yield _finished(segmenter, divided[number], answers, table, watch(number))
                else:
                    yield _taken(next(answers), table)
        _tell_repeated(work, watch(len(request.images)))


@contextmanager
def _places(request: Request) -> Iterator[tuple[Path, ...]]:
    """Yield what every machine must see: image, model, and a file that is put beside the masks."""
    named = map(Path, (*request.images[:1], request.model_uri))
    seen = tuple(path for path in named if path.exists())  # what is not, is an address
    if storage.is_remote(request.target):
        yield seen
        return
    with tempfile.NamedTemporaryFile(dir=request.target, prefix=".microseg-probe-") as probe:
        yield (*seen, Path(probe.name))


def _begun(
    request: Request, segmenter: Segmenter, watch: Callable[[int], Watch]
) -> tuple[dict[int, Divided], Failed]:
    """Begin the images that are predicted in parts; return these, and why others failed."""
    divided: dict[int, Divided] = {}
    failed: Failed = {}
    for number, image in enumerate(request.images):
        try:
            with explained(image):
                found = divide(request, segmenter, image)
        except MicrosegError as error:
            failed[number] = error
            continue
        if found:
            divided[number] = found
            watch(number).note(f"{found.begun.plan}, in each worker")
    return divided, failed


def divide(request: Request, segmenter: Segmenter, image: str) -> Divided | None:
    """Begin an image, if it is a large one that all workers can read in windows and write to."""
    source = Source(image, Path(image), request.options.axes or segmenter.card.axes)
    if storage.is_remote(image) or storage.is_remote(request.target) or not is_streamed(source.path):
        return None
    with open_source(source) as stream:
        if not in_strips(segmenter.card, stream, request.options):
            return None
        begun = begin(segmenter, source, stream, request.target, request.options)
    store = MaskStore(begun.job.target, resumed=True)
    return Divided(begun, store.array.size, tuple(parts(store, begun.plan, ROWS)))


def _rows(work: Work, failed: Failed) -> list[Row]:
    """Return the place of everything that is to do: whole images, and parts of divided ones."""
    rows: list[Row] = []
    for number in range(len(work.request.images)):
        if number not in failed:
            wanted = range(len(work.divided[number].parts)) if number in work.divided else [WHOLE]
            rows += [{"image": number, "part": part} for part in wanted]
    return rows


def _answers(work: Work, rows: list[Row], pool: Pool) -> Generator[Answer]:
    """Let workers predict; yield what became of each row, in their order."""
    if not rows:
        return
    import ray.data

    _hush()
    crew = min(pool.workers, len(rows))
    places = ray.data.from_items(rows, override_num_blocks=len(rows))  # a block is what is done anew
    places.context.enable_progress_bars = False
    places.context.print_on_execution_start = False
    places.context.execution_options.preserve_order = True
    predicted = places.map(
        Worker,  # type: ignore[arg-type] # annotated as if functions alone could be given
        fn_constructor_args=(work,),
        # One row at a time, so that none waits behind another while a worker has nothing to do.
        compute=ray.data.ActorPoolStrategy(
            min_size=1, initial_size=crew, max_size=crew, max_tasks_in_flight_per_actor=1
        ),
        num_cpus=pool.cores,
        num_gpus=pool.gpus,
    )
    batches: Any = iter(predicted.iter_batches(batch_size=None, prefetch_batches=0))
    with closing(batches):
        with silent_descriptor():  # Ray's core tells everyone of its issue 53727 when it starts the workers
            first = next(batches)
        for batch in itertools.chain([first], batches):
            for answer in batch["answer"]:
                if isinstance(answer.outcome, Unfit):
                    raise MicrosegError(answer.outcome.reason)
                yield answer


def _hush() -> None:
    """Let Ray Data write to its log file alone."""
    log = logging.getLogger("ray.data")
    log.handlers = [handler for handler in log.handlers if not isinstance(handler, logging.StreamHandler)]


def _finished(
    segmenter: Segmenter,
    divided: Divided,
    answers: Iterator[Answer],
    table: TakesObjects | None,
    watch: Watch,
) -> Outcome:
    """Wait for all parts of an image, and put its mask at its place."""
    done = divided.begun.resumed
    failures = []
    for part, answer in zip(divided.parts, answers, strict=False):
        done += part.pixels / divided.pixels
        watch.share(done)
        if isinstance(answer.outcome, MicrosegError):
            failures.append(answer.outcome)
    if failures:
        return failures[0]
    try:
        source = divided.begun.source
        with explained(source.name), open_source(source) as stream:
            return finish(segmenter, stream, divided.begun, table)
    except MicrosegError as error:
        return error


def _taken(answer: Answer, table: TakesObjects | None) -> Any:
    """Return what became of a whole image, and take its objects."""
    if table is not None:
        for image, tables in answer.tables:
            table.add(image, tables)
    return answer.outcome


def _tell_repeated(work: Work, watch: Watch) -> None:
    """Say how much was done again after workers had died."""
    import ray

    repeated = ray.get(work.attempts.repeated.remote())
    if repeated:
        watch.note(f"{counted(repeated, 'part')} had to be begun again, as workers or machines died")
