"""Where a study can be watched in MLflow, from its first trial on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mlflow import MlflowClient

from microseg.config import SearchConfig
from microseg.space import Space
from microseg.space.nodes import Number, OneOf, walk
from microseg.tracking.store import ui_command
from microseg.tracking.tree import StudyRun
from microseg.tracking.views import share_view


def watch(client: MlflowClient, run: StudyRun, config: SearchConfig, space: Space) -> str:
    """List a study that begins in MLflow's pages, and say how to look at its trials, the newest first."""
    link, command = share(client, run, config, searched(space)), ui_command(client)
    return f"to watch it: {link}" if command in link else f"to watch it: {command}, then {link}"


def share(
    client: MlflowClient,
    run: StudyRun,
    config: SearchConfig,
    parameters: Sequence[str],
    drawn: Sequence[str] = (),
) -> str:
    """Prepare the view of a study's trials, see `share_view`; return the link to it."""
    costs = {None: (), "parameters": ("parameters",)}.get(config.against, (f"cv/{config.against}_mean",))
    return share_view(client, run, f"cv/{config.metric.removeprefix('val/')}", parameters, drawn, costs)


def searched(space: Space) -> list[str]:
    """Return the paths of the values in which configurations of a space can differ, as its trials have them.

    A constant in one branch alone is none: the name of that branch says it already.
    """
    leaves = [(str(place), node) for place, node in walk(space.root) if not isinstance(node, OneOf)]
    times = Counter(path for path, _ in leaves)
    return sorted({path for path, node in leaves if times[path] > 1 or isinstance(node, Number)})
