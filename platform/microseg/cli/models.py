"""Commands about registered models."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from microseg.cli.root import app, say
from microseg.errors import MicrosegError
from microseg.runtime import load_tensorflow


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
    say(f"serve  mlflow models serve -m models:/{model}@champion --env-manager local")


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
    say(f"wrote {len(done.masks)} masks to {output} ({speed})")
    for image, reason in done.failed.items():
        sys.stderr.write(f"microseg: {image}: {reason}\n")
    if done.skipped:
        say(f"not images: {', '.join(done.skipped)}")
    if done.failed:
        raise typer.Exit(2)
