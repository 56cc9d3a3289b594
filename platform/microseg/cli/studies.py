"""Commands that run and read studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from microseg.cli.options import Data, Folds, Model, Seed, Study, data_options, folds_of, source, stamped
from microseg.cli.root import app, out, say
from microseg.config import SearchConfig, parse, read_search, read_trial
from microseg.data.options import DataOptions
from microseg.errors import MicrosegError
from microseg.runtime import load_tensorflow

PACKAGE = Path(__file__).resolve().parents[1]


def _studies() -> Any:
    """Import what runs a study: TensorFlow first, so that its start-up lines stay out of the way."""
    load_tensorflow()
    from microseg import study

    return study


def _space(name: str) -> Path:
    """Return a search space that comes with the package: in a checkout, or inside an installed wheel."""
    inside = PACKAGE / "search_spaces" / name
    return inside if inside.is_file() else PACKAGE.parents[1] / "search_spaces" / name


def _request(data: str, study: str, config: SearchConfig, options: DataOptions, model: str) -> Any:
    from microseg.study import Request

    path = source(data).resolve()
    return Request(
        name=study or stamped(path.stem),
        data=path,
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
        changes["folds"] = folds_of(folds)
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
    file = Path(space) if space else _space("smoke.yaml")
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

    out.print(report.terminal_table(outcome.view))
    comparison = report.comparison(outcome.view)
    note = "Selection scores: early stopping saw these folds; only the untouched hold-out is unbiased."
    out.print(f"{comparison} {note}".strip(), style="dim")
    lines = [
        f"best configuration  {outcome.best_yaml}",
        f"candidate           models:/{outcome.model}@candidate (version {outcome.version})",
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
        say(f"report  {output}")


@app.command()
def reproduce(run_id: Annotated[str, typer.Argument(help="The MLflow run of a fold.")]) -> None:
    """Train a fold again and say whether its score lies within the recorded spread."""
    load_tensorflow()
    from microseg import reproduction

    say(reproduction.reproduce(run_id))
