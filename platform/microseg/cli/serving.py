"""The command that serves a registered model."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from microseg.cli.root import app
from microseg.config import parse

# The front asks again by itself; MLflow's own patience of minutes would only hide that the registry is away.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_CONFIGURE_LOGGING": "false",  # its own handler would write lines that are no JSON
}


@app.command()
def serve(
    model: Annotated[str, typer.Option(help="Model and alias to follow, such as models:/NAME@champion.")],
    host: Annotated[
        str, typer.Option(help="Address to listen at; there is no authentication.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0: any that is free.")] = 5001,
    poll: Annotated[float, typer.Option(help="Seconds between two looks at where the alias points.")] = 10.0,
    max_body: Annotated[str, typer.Option(help="The largest request, such as 64MiB.")] = "64MiB",
    concurrency: Annotated[int, typer.Option(help="Requests with the model server at a time.")] = 4,
    queue: Annotated[int, typer.Option(help="Requests that wait; more are refused with 503.")] = 16,
    seconds: Annotated[
        float, typer.Option(help="Time limit of a request, also when the server ends.")
    ] = 60.0,
    start: Annotated[
        float, typer.Option(help="Seconds that a new model server has until its first prediction.")
    ] = 180.0,
) -> None:
    """Serve the version that an alias names over REST, and change it when the alias moves.

    A new version takes requests once it has answered one; the former ends what it has. While both exist, they
    take the memory of two (about 1 GB each). Metrics are at /metrics, logs are JSON lines (MICROSEG_LOG=text
    for people).
    """
    from microseg import logs

    logs.configure("json")
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    from microseg.serving.front import FrontOptions
    from microseg.serving.front import serve as run
    from microseg.tracking import store

    values = {
        "model": model, "host": host, "port": port, "poll": poll, "max_body": max_body,
        "concurrency": concurrency, "queue": queue, "seconds": seconds, "start": start,
    }  # fmt: skip
    options = parse(FrontOptions, values, "serve")
    store.connect()
    run(options)
