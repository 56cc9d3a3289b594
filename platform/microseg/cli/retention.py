"""The command that removes what is no longer needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from microseg.cli.root import app, say
from microseg.errors import counted
from microseg.runtime import load_tensorflow

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from microseg.study.leftovers import Leftovers
    from microseg.study.retention import Expired


@app.command()
def clean(
    days: Annotated[
        int, typer.Option(help="Remove what ended, or was last used, longer ago than so many days.", min=1)
    ] = 90,
    restorable: Annotated[
        int, typer.Option(help="Days for which MLflow can restore what was deleted.", min=0)
    ] = 30,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without this, it is only listed.")] = False,
) -> None:
    """List, and with --yes remove, old studies, their unused models, and old files of this machine.

    What serves, is a candidate, has met a champion or runs stays, and so do the records of hold-outs.
    """
    load_tensorflow()
    from microseg.study import leftovers, retention
    from microseg.tracking import store

    client = store.connect()
    expired, kept = retention.look(client, days)
    for one in kept:
        say(f"stays   study {one.study.info.run_name}: {one.reason}")
    for study in expired:
        say(_of_study(study))
    files = leftovers.find(days)
    for found in files:
        say(_of_files(found))
    if not yes:
        _listed(client, bool(expired or files))
        return
    for study in expired:
        retention.delete(client, study)
    for name in retention.deleted_here(client):
        retention.forget(name)
        say(f"removed the folder of study {name}")
    for found in files:
        leftovers.remove(found)
    _purge(client, restorable)


def _of_study(expired: Expired) -> str:
    from microseg.tracking.keeping import size

    models = ", ".join(f"{version.name} version {version.version}" for version in expired.versions)
    said = [counted(len(expired.runs), "run"), size(expired.size), *([models] if models else [])]
    return f"goes    study {expired.study.info.run_name}, ended {expired.ended}: {', '.join(said)}"


def _of_files(found: Leftovers) -> str:
    from microseg.tracking.keeping import size

    return f"goes    {found.kind}: {counted(len(found.paths), 'file or folder')}, {size(found.size)}"


def _listed(client: MlflowClient, anything: bool) -> None:
    from microseg.study import retention

    for name in retention.deleted_here(client):
        say(f"goes    the folder of study {name}, whose run was deleted")
        anything = True
    say("nothing was removed; to remove what goes: --yes" if anything else "nothing is old enough to go")


def _purge(client: Any, restorable: int) -> None:
    """Remove for good what was deleted long ago, or say who can."""
    from microseg.tracking import garbage

    database = garbage.database_of(client)
    if database:
        gone = garbage.purge(client, database, restorable)
        say(f"purged  {gone} deleted runs and models; those of the last {restorable} days can be restored")
    else:
        say(
            "note    who reaches MLflow's database removes deleted runs and their files for good: "
            f"set {garbage.BACKEND} and repeat this"
        )
