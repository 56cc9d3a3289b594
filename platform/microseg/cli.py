"""The command line; heavy imports are inside the commands, so that --help answers at once."""

from __future__ import annotations

import functools
import inspect as inspection
import os
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from microseg import __version__
from microseg.config import SearchConfig, parse, read_search, read_trial
from microseg.data.options import DataOptions
from microseg.errors import MicrosegError
from microseg.runtime import load_tensorflow

app = typer.Typer(
    help="Find, prove and serve the best segmentation network for your own microscopy images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Look at a data set, write its manifest, audit it.", no_args_is_help=True)
app.add_typer(data_app, name="data")
out = Console() if sys.stdout.isatty() else Console(width=160)  # a log file has no width to wrap at
SPACES = Path(__file__).resolve().parents[2] / "search_spaces"

Data = Annotated[str, typer.Option(help="Folder or manifest (YAML, CSV); by default synthetic cells.")]
Study = Annotated[str, typer.Option(help="Name of the study; by default the data set's name and the time.")]
Folds = Annotated[str, typer.Option(help="Number of folds, or 'given' for the split in the data.")]
Model = Annotated[str, typer.Option(help="Name of the registered model; by default the data set's name.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the folds, the proposals and the training.")]


def main() -> None:
    """Run the command line: a user's mistake is one line on standard error and exit code 2."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        app()
    except MicrosegError as error:
        sys.stderr.write(f"microseg: {' '.join(str(error).split())}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("microseg: interrupted; finished folds are kept, --resume goes on from them\n")
        sys.exit(130)


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"microseg {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def data_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option per field of `DataOptions`, handed to it as its argument ``options``."""
    fields = DataOptions.model_fields
    own = [
        part
        for part in inspection.signature(command, eval_str=True).parameters.values()
        if part.name != "options"
    ]
    added = [
        inspection.Parameter(
            name,
            inspection.Parameter.KEYWORD_ONLY,
            default="",
            annotation=Annotated[str, typer.Option(help=field.description, show_default=False)],
        )
        for name, field in fields.items()
    ]

    @functools.wraps(command)
    def wrapped(**values: Any) -> None:
        texts = {name: values.pop(name) for name in fields}
        given: dict[str, Any] = {name: text for name, text in texts.items() if text}
        for name in given:
            if fields[name].default == ():  # a list is given with commas
                given[name] = tuple(part.strip() for part in given[name].split(","))
        command(**values, options=parse(DataOptions, given, "data options"))

    wrapped.__signature__ = inspection.Signature(own + added)  # type: ignore[attr-defined]
    return wrapped


def _source(data: str) -> Path:
    """Return the data set's path; the word demo stands for synthetic cells, written when first asked for."""
    if data not in ("", "demo"):
        return Path(data)
    from microseg.data.synthetic import write_demo
    from microseg.storage import home

    folder = home() / "demo"
    return folder if folder.is_dir() else write_demo(folder)


def _studies() -> Any:
    """Import what runs a study: TensorFlow first, so that its start-up lines stay out of the way."""
    load_tensorflow()
    from microseg import study

    return study


def _request(data: str, study: str, config: SearchConfig, options: DataOptions, model: str) -> Any:
    from microseg.study import Request

    source = _source(data)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Request(
        name=study or f"{source.resolve().stem}-{stamp}",
        data=source.resolve(),
        options=options,
        config=config,
        model=model,
    )


def _changed(config: SearchConfig, source: str, trials: int, folds: str, seed: int | None) -> SearchConfig:
    """Return the search with what the command line changes in it."""
    changes: dict[str, Any] = {}
    if trials:
        changes["trials"] = trials
    if folds:
        changes["folds"] = int(folds) if folds.lstrip("-").isdigit() else folds
    if seed is not None:
        changes["seed"] = seed
    return parse(SearchConfig, config.model_dump() | changes, source)


@app.command()
@data_options
def search(
    data: Data = "",
    space: Annotated[str, typer.Option(help="Search-space YAML; by default search_spaces/smoke.yaml.")] = "",
    study: Study = "",
    trials: Annotated[int, typer.Option(help="Number of trials in total; 0: as the YAML says.")] = 0,
    folds: Folds = "",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with --study; the rest may be left out.")
    ] = False,
    model: Model = "",
    seed: Seed = None,
    *,
    options: DataOptions,
) -> None:
    """Search for the best network: trials by Optuna, stopped early by ASHA, every fold in MLflow."""
    studies = _studies()
    if resume:
        _refuse_changes(study, data, space, folds, model, seed, options)
        _conclude(studies.resume(study, trials, out))
        return
    file = Path(space) if space else SPACES / "smoke.yaml"
    config = _changed(read_search(file), str(file), trials, folds, seed)
    _conclude(studies.search(_request(data, study, config, options, model), out))


def _refuse_changes(study: str, *decided: Any) -> None:
    """Refuse what a resumed study cannot change: its trials would not be comparable."""
    if not study:
        raise MicrosegError("--resume needs the name of the study; add --study NAME")
    if any(value not in ("", None, DataOptions()) for value in decided):
        raise MicrosegError(
            f"--resume goes on with study '{study}' as it began; give only --study and --trials with it"
        )


def _conclude(outcome: Any) -> None:
    """Print the leaderboard, where the best configuration is, and the two commands to go on with."""
    from microseg import report
    from microseg.tracking import store

    out.print(report.terminal_table(outcome.view))
    comparison = report.comparison(outcome.view)
    note = "Selection scores: early stopping saw these folds; only the untouched hold-out is unbiased."
    out.print(f"{comparison} {note}".strip(), style="dim")
    lines = [
        f"best configuration  {outcome.best_yaml}",
        f"candidate           models:/{outcome.model}@candidate (version {outcome.version})",
        "",
        f"look     {store.ui_command(store.connect())}",
        f"         {outcome.link}",
        f"promote  microseg promote --model {outcome.model}",
    ]
    for line in lines:
        out.print(line, soft_wrap=True, highlight=False, markup=False)


@app.command()
@data_options
def crossval(
    config: Annotated[Path, typer.Option(help="One configuration, such as the best.yaml of a search.")],
    data: Data = "",
    study: Study = "",
    folds: Folds = "5",
    model: Model = "",
    seed: Seed = None,
    *,
    options: DataOptions,
) -> None:
    """Train all folds of one configuration."""
    studies = _studies()
    values = read_trial(config).model_dump(mode="json")
    search_config = _changed(studies.single(values, str(config)), str(config), 0, folds, seed)
    _conclude(studies.search(_request(data, study, search_config, options, model), out))


@app.command(name="report")
def write_report(
    study: Annotated[str, typer.Argument(help="Name of the study.")],
    output: Annotated[
        Path | None, typer.Option(help="HTML file to write; without it, only the table is shown.")
    ] = None,
) -> None:
    """Show a study's leaderboard, and write it as one HTML page."""
    from microseg import report
    from microseg.data.files import replacing
    from microseg.tracking import store

    client = store.connect()
    view = report.view(client, report.find_study(client, study))
    out.print(report.terminal_table(view))
    if output:
        with replacing(output) as file:
            file.write(report.page(client, view).encode())
        out.print(f"report  {output}", soft_wrap=True, highlight=False)


@app.command()
def promote(
    model: Annotated[str, typer.Option(help="Name of the registered model.")],
    version: Annotated[str, typer.Option(help="Version to promote; by default the candidate.")] = "",
) -> None:
    """Make a version the champion, which is the one that is served."""
    from microseg import registry
    from microseg.tracking import store

    store.connect()
    _moved(registry.promote(model, _whole(version)))
    out.print(
        f"serve  mlflow models serve -m models:/{model}@champion --env-manager local",
        soft_wrap=True,
        highlight=False,
    )


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
    out.print(text, soft_wrap=True, highlight=False)


@app.command()
def rollback(model: Annotated[str, typer.Option(help="Name of the registered model.")]) -> None:
    """Return to the champion before this one."""
    from microseg import registry
    from microseg.tracking import store

    store.connect()
    _moved(registry.rollback(model))


@app.command()
def predict(
    model: Annotated[str, typer.Option(help="Model to use, such as models:/NAME@champion.")],
    input: Annotated[str, typer.Option(help="Image, folder of images, or s3:// address.")],
    output: Annotated[str, typer.Option(help="Folder or s3:// address to write the masks to.")],
) -> None:
    """Write a mask for every image, through the registered model."""
    load_tensorflow()
    from microseg.serving.batch import predict_folder
    from microseg.tracking import store

    store.connect()
    done = predict_folder(model, input, output)
    speed = f"{done.megapixels:.1f} megapixels, {done.megapixels_per_second:.2f} megapixels/s"
    out.print(f"wrote {len(done.masks)} masks to {output} ({speed})", soft_wrap=True, highlight=False)
    for image, reason in done.failed.items():
        sys.stderr.write(f"microseg: {image}: {reason}\n")
    if done.skipped:
        out.print(f"not images: {', '.join(done.skipped)}", soft_wrap=True, highlight=False)
    if done.failed:
        raise typer.Exit(2)


@app.command()
def reproduce(run_id: Annotated[str, typer.Argument(help="The MLflow run of a fold.")]) -> None:
    """Train a fold again and say whether its score lies within the recorded spread."""
    load_tensorflow()
    from microseg import reproduction

    out.print(reproduction.reproduce(run_id), soft_wrap=True, highlight=False)


@app.command(name="demo-data")
def demo_data(
    folder: Annotated[Path, typer.Argument(help="Folder to write; it must not exist.")],
    images: Annotated[int, typer.Option(help="Number of images.", min=8)] = 24,
    size: Annotated[int, typer.Option(help="Side of an image in pixels.", min=128)] = 128,
    seed: Annotated[int, typer.Option(help="The same seed writes the same bytes.")] = 0,
) -> None:
    """Write a synthetic data set: cells that touch, uneven light, blur and noise, in several sessions."""
    from microseg.data.synthetic import write_demo

    out.print(
        f"wrote {write_demo(folder, images=images, size=size, seed=seed)}", soft_wrap=True, highlight=False
    )


def _open(data: str, options: DataOptions) -> Any:
    from microseg.data.open import open_dataset
    from microseg.storage import cache

    return open_dataset(_source(data).resolve(), options, cache())


@data_app.command()
@data_options
def inspect(
    data: Annotated[str, typer.Argument(help="Folder, manifest, or 'demo'.")],
    *,
    options: DataOptions,
) -> None:
    """Read a data set completely and say what it holds."""
    from microseg.data.manifest import describe

    for name, value in describe(_open(data, options)).items():
        out.print(f"{name:<14} {value}", soft_wrap=True, highlight=False, markup=False)


@data_app.command()
@data_options
def manifest(
    data: Annotated[str, typer.Argument(help="Folder, manifest, or 'demo'.")],
    output: Annotated[Path, typer.Option(help="YAML file to write.")],
    *,
    options: DataOptions,
) -> None:
    """Write a data set's manifest: every pair, its group, stratum and split."""
    from microseg.data.manifest import write_manifest

    found = _open(data, options)
    write_manifest(found, output)
    out.print(f"wrote {output} ({len(found.items)} images)", soft_wrap=True, highlight=False)


@data_app.command()
@data_options
def audit(
    data: Annotated[str, typer.Argument(help="Folder, manifest, or 'demo'.")],
    *,
    options: DataOptions,
) -> None:
    """Look for what would make a score untrue: duplicates, mixed sessions, empty masks."""
    from microseg.data.audit import audit as run_audit
    from microseg.storage import cache

    findings = run_audit(_open(data, options), cache())
    for finding in findings:
        out.print(f"{finding.level:<7} {finding.text}", soft_wrap=True, highlight=False, markup=False)
    if not findings:
        out.print("nothing found", highlight=False)
    if any(finding.level == "refuse" for finding in findings):
        raise typer.Exit(2)
