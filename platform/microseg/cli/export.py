"""The command that takes a model along."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from microseg.cli.root import app, say
from microseg.runtime import load_tensorflow


@app.command()
def export(
    model: Annotated[str, typer.Option(help="Model to export, such as models:/NAME@champion.")],
    format: Annotated[str, typer.Option(help="saved-model, onnx, openvino or bioimageio.")],
    output: Annotated[Path, typer.Option(help="Folder to write; it must not exist.")],
    license: Annotated[str, typer.Option(help="SPDX identifier of the model's licence (bioimageio).")] = "",
) -> None:
    """Write a registered model for other programs, checked against the one that is served."""
    load_tensorflow()
    from microseg import exporting
    from microseg.importing.hold_out_scores import MODELS, version_of
    from microseg.serving.batch import load_segmenter
    from microseg.tracking import store
    from microseg.tracking.environment import user

    client = store.connect()
    segmenter = load_segmenter(model)
    card = segmenter.card
    source = exporting.Source(
        name=card.name,
        version=str(version_of(client, model).version) if model.startswith(MODELS) else "",
        about=card.description,
        author=user(),
        config=card.config,
        classes=card.classes,
        scores=card.scores,
        members=segmenter.networks,
        halo=card.halo,
        pixel_size_um=card.pixel_size_um,
        license=license,
    )
    done = exporting.export(source, format, output)
    say(f"wrote {output} ({', '.join(file.name for file in done.files)})")
    say(f"checked on a tile: probabilities differ by at most {done.difference:.1g}")
    say(f"speed  {done.speed:.2f} times that of Keras here, one tile at a time")
