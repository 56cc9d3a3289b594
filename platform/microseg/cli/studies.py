"""Commands that run and read studies."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from microseg.cli.options import Data, Folds, Model, Seed, Study, data_options, folds_of, source, stamped
from microseg.cli.root import app, out, say
from microseg.config import SearchConfig, parse, read_search, read_trial
from microseg.data.options import DataOptions
from microseg.errors import MicrosegError, first_line
from microseg.runtime import load_tensorflow

PACKAGE = Path(__file__).resolve().parents[1]


def _studies() -> Any:
    """Import what runs a study: TensorFlow first, so that its start-up lines stay out of the way."""
    load_tensorflow()
    from microseg import study

    return study


def space_file(name: str) -> Path:
    """Return a search space that comes with the package: in a checkout, or inside an installed wheel."""
    inside = PACKAGE / "search_spaces" / name
    return inside if inside.is_file() else PACKAGE.parents[1] / "search_spaces" / name


def _request(data: str, study: str, config: SearchConfig, options: DataOptions, model: str) -> Any:
    place = source(data)
    return _studies().Request(
        name=study or stamped(Path(place).stem),
        data=place,
        options=options,
        config=config,
        model=model,
    )


def changed(config: SearchConfig, source: str, given: dict[str, Any]) -> SearchConfig:
    """Return the search with what the command line changes in it; nothing and zero change nothing."""
    changes = {name: value for name, value in given.items() if value or (name == "seed" and value == 0)}
    if "hours" in changes:
        budget = config.budget.model_dump() if config.budget else {}
        changes["budget"] = budget | {"hours": changes.pop("hours")}
    if "folds" in changes:
        changes["folds"] = folds_of(changes["folds"])
    if "warm_start" in changes:
        changes["warm_start"] = {"study": changes["warm_start"]}
    return parse(SearchConfig, config.model_dump(mode="json") | changes, source)


@contextmanager
def _resumable(study: str) -> Iterator[None]:
    """Say how to go on: after Ctrl-C, and where a service stays away for longer than it is waited for."""
    on = f"microseg search --study {study} --resume"
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write(f"microseg: what is finished is kept; to go on: {on}\n")
        raise
    except Exception as error:
        from mlflow.exceptions import MlflowException
        from requests import RequestException

        if not isinstance(error, MlflowException | RequestException):
            raise
        raise MicrosegError(
            f"the tracking server, or the storage behind it, fails ({first_line(error)}); what is finished "
            f"is kept; once it is back: {on}"
        ) from error


def _run(request: Any) -> None:
    with _resumable(request.name):
        _conclude(_studies().search(request, out))


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
    force: Annotated[
        bool, typer.Option("--force", help="Resume although the data, the space or the code has changed.")
    ] = False,
    model: Model = "",
    seed: Seed = None,
    concurrency: Annotated[int, typer.Option(help="Trials at once; 0: as the YAML says.")] = 0,
    hours: Annotated[
        float, typer.Option(help="Stop after so many hours, all runs of the study together; 0: no limit.")
    ] = 0.0,
    replicates: Annotated[
        int, typer.Option(help="Train the best trials so many times more, with other seeds.")
    ] = 0,
    warm_start: Annotated[
        str, typer.Option(help="An earlier study, whose best configurations are tried first.")
    ] = "",
    keep: Annotated[
        str, typer.Option(help="Networks and pictures to keep: models, all, finalists or best.")
    ] = "",
    *,
    options: DataOptions,
) -> None:
    """Search for the best network: trials by Optuna, stopped early by ASHA, every fold in MLflow."""
    given = {
        "trials": trials,
        "folds": folds,
        "seed": seed,
        "concurrency": concurrency,
        "hours": hours,
        "replicates": replicates,
        "warm_start": warm_start,
        "keep": keep,
    }
    if not resume:
        file = Path(space) if space else space_file("smoke.yaml")
        config = changed(read_search(file), str(file), given)
        _run(_request(data, study, config, options, model))
        return
    if not study:
        raise MicrosegError("--resume needs the name of the study; add --study NAME")
    studies = _studies()
    began = studies.read_state(study).request
    config = changed(read_search(Path(space)) if space else began.config, space or f"study {study}", given)
    changes: dict[str, Any] = {"config": config}
    changes |= {"data": source(data)} if data else {}
    changes |= {"options": options} if options != DataOptions() else {}
    changes |= {"model": model} if model else {}
    with _resumable(study):
        _conclude(studies.resume(began.model_copy(update=changes), force, out))


def _show(view: Any) -> None:
    """Print the leaderboard, what became of the trials, and what their scores can tell."""
    from microseg import report

    out.print(report.terminal_table(view))
    said = (report.summary(view), report.comparison(view), report.verdict(view), report.resolution(view))
    for text in filter(None, said):
        out.print(text, soft_wrap=True, highlight=False)
    repeats = report.repeats_table(view)
    if repeats.row_count:
        out.print(repeats, report.repetition(view), soft_wrap=True, highlight=False)


def _conclude(outcome: Any) -> None:
    """Print the leaderboard, where the best configuration is, and the two commands to go on with."""
    _show(outcome.view)
    note = "Selection scores: early stopping saw these folds; only the untouched hold-out is unbiased."
    out.print(note, style="dim")
    if outcome.unfinished:
        name = outcome.view.run.info.run_name
        say(f"{outcome.unfinished}; to go on: microseg search --study {name} --resume --hours H")
    lines = [
        f"best configuration  {outcome.best_yaml}",
        f"candidate           models:/{outcome.model}@candidate (version {outcome.version})",
        f"kept                {outcome.kept}",
        "",
        f"look     {outcome.ui}",
        f"         {outcome.link}",
        f"charts   {outcome.link}&compareRunsMode=CHART",
        f"promote  microseg promote --model {outcome.model}",
    ]
    for line in lines:
        say(line)


@app.command()
@data_options
def crossval(
    config: Annotated[Path, typer.Option(help="One configuration, such as the best.yaml of a search.")],
    data: Data = "",
    study: Study = "",
    folds: Folds = "5",
    model: Model = "",
    seed: Seed = None,
    candidate: Annotated[
        str, typer.Option(help="What is registered: ensemble (the default), best_fold or retrained.")
    ] = "",
    *,
    options: DataOptions,
) -> None:
    """Train all folds of one configuration."""
    studies = _studies()
    values = read_trial(config).model_dump(mode="json")
    given = {"folds": folds, "seed": seed, "candidate": candidate}
    search_config = changed(studies.single(values, str(config)), str(config), given)
    _run(_request(data, study, search_config, options, model))


@app.command(name="report")
def write_report(
    study: Annotated[str, typer.Argument(help="Name of the study.")],
    output: Annotated[
        Path | None, typer.Option(help="HTML file to write; without it, only the table is shown.")
    ] = None,
) -> None:
    """Show a study's leaderboard, and write it as one HTML page, which MLflow keeps with the study too."""
    from microseg import report
    from microseg.data.files import replacing
    from microseg.search.importance import importances
    from microseg.tracking import store

    client = store.connect()
    view = report.view(client, report.find_study(client, study))
    _show(view)
    if output:
        text = report.log_page(client, view, importances(*view.observations))
        with replacing(output) as file:
            file.write(text.encode())
        say(f"report  {output}")


@app.command()
def reproduce(
    run_id: Annotated[str, typer.Argument(help="The MLflow run of a fold.")],
    data: Annotated[
        str, typer.Option(help="Where the images are now, if not where the study found them.")
    ] = "",
) -> None:
    """Train a fold again and say whether its score lies within the recorded spread; if not, end with 1."""
    load_tensorflow()
    from microseg import reproduction

    found = reproduction.reproduce(run_id, source(data) if data else None)
    say(found.verdict)
    for difference in found.differences:
        say(f"not as it was: {difference}")
    if not found.holds:
        raise typer.Exit(1)
