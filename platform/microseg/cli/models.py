"""Commands about registered models."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from microseg.cli.options import Folds, Seed, Study, data_options, folds_of, source, stamped
from microseg.cli.root import app, say
from microseg.config import Component, parse
from microseg.data.options import DataOptions
from microseg.errors import MicrosegError, counted, one_line
from microseg.runtime import load_tensorflow

if TYPE_CHECKING:
    from microseg.serving.batch import PredictSummary

_SHOWN = 5  # images that are unlike the training's; the rest is counted


@app.command()
def promote(
    model: Annotated[str, typer.Option(help="Name of the registered model.")],
    version: Annotated[str, typer.Option(help="Version to promote; by default the candidate.")] = "",
    least: Annotated[float, typer.Option(help="The gain in score that is worth a change.", min=0.0)] = 0.005,
    data: Annotated[str, typer.Option(help="Where the images of its study are now, if they moved.")] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Promote it without asking the hold-out; --why says the reason.")
    ] = False,
    why: Annotated[str, typer.Option(help="The reason of --force, kept with the version.")] = "",
) -> None:
    """Make a version the champion if it is better on images that no search has seen.

    The exit code is 0 where it is champion afterwards, and 1 where the champion stays.
    """
    from microseg import registry
    from microseg.tracking import store

    if force != bool(why.strip()):
        raise MicrosegError('--force and --why go together: --force --why "the reason, in a sentence"')
    client = store.connect()
    chosen = registry.challenger(model, _whole(version))
    if registry.champion(model) == chosen:
        _moved(registry.promote(model, chosen))
    elif force:
        _moved(registry.force(client, model, chosen, why))
    else:
        _met(client, model, chosen, least, source(data) if data else None)
    say(f"serve  microseg serve --model models:/{model}@champion")


def _met(client: Any, model: str, version: int, least: float, data: str | None) -> None:
    """Let a version meet the champion, say what came of it, and end with 1 where the champion stays."""
    load_tensorflow()
    from microseg import registry
    from microseg.study import promotion

    with _progress() as progress:
        decision = promotion.promote(client, model, version, least, data, progress)
    for sentence in registry.sentences(decision):
        say(sentence)
    run_id = client.get_model_version(model, str(version)).run_id
    say(f"look   run {run_id}, artifact {registry.artifact(decision)}.html")
    problem = promotion.renew_report(client, run_id)
    if problem:
        say(f"note   {problem}")
    if decision.outcome != "promoted":
        raise typer.Exit(1)
    _moved(registry.history(model)[-1])


def _whole(version: str) -> int | None:
    if version and not version.isdigit():
        raise MicrosegError(
            f"version '{version}' is no number; give one such as 3, or none for the candidate"
        )
    return int(version) if version else None


def _moved(move: Any) -> None:
    """Say which version serves now, and which did before."""
    if move.former == move.version:
        text = f"{move.name}: version {move.version} is champion already"
    elif move.former is None:
        text = f"{move.name}: version {move.version} is now champion, the first"
    else:
        text = f"{move.name}: version {move.version} is now champion, before it was version {move.former}"
    say(text)


@app.command()
def rollback(model: Annotated[str, typer.Option(help="Name of the registered model.")]) -> None:
    """Return to the champion before this one."""
    from microseg import registry
    from microseg.tracking import store

    store.connect()
    _moved(registry.rollback(model))


@contextmanager
def _progress() -> Iterator[Callable[[float, int], None]]:
    """Show how many images are done, on standard error, where a person looks at it."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("images", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@app.command()
def predict(
    model: Annotated[str, typer.Option(help="Model to use, such as models:/NAME@champion.")],
    input: Annotated[str, typer.Option(help="Image, OME-Zarr, folder of images, or s3:// address.")],
    output: Annotated[str, typer.Option(help="Folder or s3:// address to write the masks to.")],
    instances: Annotated[
        bool,
        typer.Option(
            "--instances", help="Write numbered objects as the masks, and their measurements as objects.csv."
        ),
    ] = False,
    tta: Annotated[
        bool,
        typer.Option(
            "--tta", help="Average over 8 turned and mirrored views: steadier, and 8 times as slow."
        ),
    ] = False,
    format: Annotated[
        str,
        typer.Option(
            help="Of the masks: png, ome-tiff, ome-zarr; auto: the latter for OME-Zarr, else PNG if it fits."
        ),
    ] = "auto",
    max_memory: Annotated[
        str, typer.Option(help="What the process may hold, such as 4GiB; images are then read in strips.")
    ] = "",
    skip_flat: Annotated[
        float,
        typer.Option(
            help="Take tiles for background whose preprocessed values are less than this apart; 0: none.",
            min=0.0,
        ),
    ] = 0.0,
    axes: Annotated[
        str, typer.Option(help="Order of the axes of multi-page TIFF files, such as TZCYX.")
    ] = "",
    ray: Annotated[
        bool,
        typer.Option(
            "--ray", help="Predict by workers of Ray: on the cluster of RAY_ADDRESS, or on this machine."
        ),
    ] = False,
) -> None:
    """Write a mask for every image, of any size, through the registered model."""
    load_tensorflow()
    from microseg.serving.batch import PredictOptions, predict_folder
    from microseg.tracking import store

    given = {"max_memory": max_memory or None, "axes": axes or None, "format": format}
    values = {"instances": instances, "tta": tta, "skip_flat": skip_flat, "ray": ray, **given}
    options = parse(PredictOptions, values, "predict")
    store.connect()
    with _progress() as progress:
        done = predict_folder(model, input, output, options, progress, say)
    _predicted(done, output)


def _predicted(done: PredictSummary, output: str) -> None:
    """Say what was written and what is to be known about it; end with 2 where an image failed."""
    speed = f"{done.megapixels:.1f} megapixels, {done.megapixels_per_second:.2f} megapixels/s"
    found = "" if done.objects is None else f" with {done.objects} objects, measured in objects.csv,"
    say(f"wrote {len(done.masks)} masks{found} to {output} ({speed})")
    for remark in _remarks(done):
        say(remark)
    for image, reason in done.failed.items():
        sys.stderr.write(f"microseg: {image}: {reason}\n")
    if done.skipped:
        say(f"not images: {', '.join(done.skipped)}")
    if done.failed:
        raise typer.Exit(2)


def _remarks(done: PredictSummary) -> Iterator[str]:
    """Yield what is to be known about the masks that were written."""
    whole = sum(share == 1 for share in done.resumed.values())
    if whole:
        yield f"resumed  {counted(whole, 'image')} had been finished before"
    for image, share in done.resumed.items():
        if share < 1:
            yield f"resumed  {image}: {share:.0%} had been done before"
    for image, objects in done.larger.items():
        where = f"in pieces of foreground larger than the halo of {done.halo} pixels"
        yield f"note   {image}: {objects} objects lie {where}; one piece might divide them otherwise"
    if done.seams:
        yield f"note   {done.seams}"
    for image, sentences in itertools.islice(done.unlike.items(), _SHOWN):
        yield f"unlike the training images  {image}: {'; '.join(sentences)}"
    if len(done.unlike) > _SHOWN:
        yield f"unlike the training images  {len(done.unlike) - _SHOWN} more of {len(done.masks)}"


@app.command()
@data_options
def import_model(
    file: Annotated[Path, typer.Argument(help="Network saved by Keras: .keras, .h5 or .hdf5.")],
    model: Annotated[str, typer.Option(help="Name of the registered model; by default the file's.")] = "",
    data: Annotated[str, typer.Option(help="Folder or manifest to judge it on; without it, none is.")] = "",
    preprocess: Annotated[
        str, typer.Option(help="How its images were prepared: a name, or {name: ..., params: {...}}.")
    ] = "scale",
    probability_threshold: Annotated[
        float, typer.Option(help="Where the foreground begins, if it has one map.")
    ] = 0.5,
    tile: Annotated[int, typer.Option(help="Side of its tiles in pixels; 0: its own input, else 256.")] = 0,
    output: Annotated[str, typer.Option(help="Which of several outputs is meant.")] = "",
    folds: Folds = "5",
    study: Study = "",
    seed: Seed = None,
    *,
    options: DataOptions,
) -> None:
    """Take a network that was trained elsewhere into the registry and, with --data, into the comparison."""
    load_tensorflow()
    from microseg.importing import ImportRequest
    from microseg.importing import import_model as take

    values = {
        "file": file,
        "name": model or file.stem,
        "data": source(data) if data else None,
        "options": options,
        "preprocess": _component(preprocess),
        "threshold": probability_threshold,
        "tile": tile or None,
        "output": output,
        "folds": folds_of(folds),
        "seed": seed or 0,
        "study": study or stamped(f"import-{_plain(file.stem)}"),
    }
    _imported(take(parse(ImportRequest, values, "import-model")))


def _component(text: str) -> Component:
    """Read a name, or a mapping of name and params, as YAML."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise MicrosegError(f"--preprocess {text!r}: not valid YAML: {one_line(error)}") from error
    return parse(Component, {"name": values} if isinstance(values, str) else values, "--preprocess")


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)


def _imported(done: Any) -> None:
    for note in done.notes:
        say(f"note: {note}")
    if done.scores:
        mean, spread = done.scores["cv/dice_mean"], done.scores.get("cv/dice_std", 0.0)
        say(f"dice       {mean:.4f} ± {spread:.4f} over {done.scores['folds_done']:.0f} folds")
        say(f"look       {done.link}")
    say(f"candidate  models:/{done.candidate.name}@candidate (version {done.candidate.version})")
