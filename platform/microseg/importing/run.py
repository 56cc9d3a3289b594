"""Import a network: load it, judge it on the folds of a data set, register it as a candidate."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mlflow import MlflowClient
from pydantic import Field

from microseg.components import check
from microseg.config import Component, SearchConfig, Strict, TrialConfig, parse
from microseg.data.options import DataOptions
from microseg.data.pairs import load_pairs
from microseg.data.preprocess import PREPROCESSING
from microseg.errors import MicrosegError
from microseg.importing.files import load_network
from microseg.importing.judgement import OPTIMISTIC, judge, record, tell
from microseg.importing.network import Network, noise, one_output, tile_of, with_maps_of, with_probabilities
from microseg.serving.card import ModelCard
from microseg.serving.packaging import Candidate, log_candidate
from microseg.space import parse_space
from microseg.storage import cache
from microseg.study import Prepared, Request, describe, divide, folder, state_file
from microseg.study.measurement import measure_tiling
from microseg.study.objects import search_objects
from microseg.tracking import store, tree, views
from microseg.tracking.recorder import log_metrics
from microseg.training.results import MODEL

IMPORTED = "imported"
_UNKNOWN = Component(name="unknown")  # how it was trained, nobody says


class ImportRequest(Strict):
    """What is to be imported, and how its images are read and its answers understood.

    ``name`` is the registered model's, ``data`` what it is judged on, ``preprocess`` what its images went
    through in training, ``threshold`` where its only map counts as foreground, ``tile`` the side of what
    it is given in pixels, ``output`` which of several outputs is meant, ``study`` names the run in MLflow.
    """

    file: Path
    name: str
    data: str | Path | None = None
    options: DataOptions = DataOptions()
    preprocess: Component = Component(name="scale")
    threshold: float = Field(default=0.5, gt=0.0, lt=1.0)
    tile: int | None = Field(default=None, ge=16, le=4096)
    output: str = ""
    folds: int | Literal["given"] = 5
    seed: int = Field(default=0, ge=0)
    study: str


@dataclass(frozen=True)
class Imported:
    """What an import leaves: a version in the registry, what was noticed, and with data the scores."""

    candidate: Candidate
    notes: tuple[str, ...]
    scores: dict[str, float]
    link: str = ""


def import_model(request: ImportRequest) -> Imported:
    """Take a network file into the registry and, with data, into the comparison with trained ones.

    With data it is judged as a trial is: on the validation images of the folds that every study of this
    data set with this seed has, in a tree of runs of its own. Nothing is written before all folds are
    judged.

    Parameters
    ----------
    request : ImportRequest
        The file, and how to understand it.

    Raises
    ------
    MicrosegError
        If the file holds no network that fits, or the data set cannot be used.
    """
    check(request.preprocess, PREPROCESSING, "preprocess")
    if not request.name or any(letter in request.name for letter in "/:"):
        raise MicrosegError(f"model name '{request.name}': give one without '/' and ':' by --model")
    network = _read(request)
    client = store.connect()
    with tempfile.TemporaryDirectory(prefix="microseg-") as scratch:
        member = Path(scratch, MODEL)
        if request.data is None:
            return _unjudged(client, request, network, member)
        return _judged(client, request, network, member)


def _read(request: ImportRequest) -> Network:
    model = one_output(load_network(request.file), request.output, request.file)
    with request.file.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    config = TrialConfig(
        model=Component(name=IMPORTED, params={"file": request.file.name, "sha256": digest}),
        optimizer=_UNKNOWN,
        augment=_UNKNOWN,
        preprocess=request.preprocess,
        tile=tile_of(model, request.tile, request.file),
        threshold=request.threshold,
        seed=request.seed,
    )
    return Network(request.file, model, config)


def _unjudged(client: MlflowClient, request: ImportRequest, network: Network, member: Path) -> Imported:
    """Register a network whose classes and channels nothing but itself tells."""
    channels, maps = network.model.inputs[0].shape[-1], network.model.outputs[0].shape[-1]
    network = with_probabilities(network, noise(network.config.tile, channels))
    network.model.save(member)
    card = ModelCard(
        name=request.name,
        kind="imported",
        study=request.study,
        trial=tree.trial_name(0),
        config=network.config,
        channels=channels,
        classes=("foreground",)
        if maps == 1
        else ("background", *(f"class {index}" for index in range(1, maps))),
        data_digest="",
    )
    tags = {tree.LEVEL: "import", tree.STUDY: request.study, tree.STATE: "running"}
    run = client.create_run(store.experiment_for(client, None), tags=tags, run_name=request.study)
    candidate = log_candidate(card, [member], run.info.run_id)
    tree.end(client, run.info.run_id, "completed", f"imported from {request.file.name}, not judged")
    return Imported(candidate, network.notes, {})


def _judged(client: MlflowClient, request: ImportRequest, network: Network, member: Path) -> Imported:
    """Judge a network on a data set, write the tree of runs, and register it."""
    prepared = _prepare(request, network.config)
    network, prepared = _fitted(network, prepared)
    network.model.save(member)
    judged = [judge(network, prepared, fold) for fold in prepared.folds]
    instances, ap50 = search_objects(prepared, network.config, [member] * len(prepared.folds))
    with tree.study_run(client, request.study) as run:
        origin = describe(client, run, prepared)
        client.set_tag(run.run_id, "mlflow.note.content", f"{request.file.name}, imported: {OPTIMISTIC}.")
        scores = record(client, run, network, origin, judged)
        if instances is not None:
            log_metrics(client, run.run_id, {"best/ap50": ap50})
        tell(client, run, network, member, prepared, judged)
        card = ModelCard(
            name=request.name,
            kind="imported",
            study=request.study,
            trial=tree.trial_name(0),
            config=network.config,
            channels=prepared.development.channels,
            classes=prepared.manifest.classes,
            axes=prepared.manifest.axes,
            pixel_size_um=prepared.manifest.pixel_size_um,
            data_digest=prepared.manifest.digest,
            scores={"val/dice": scores["cv/dice_mean"]},
            instances=instances,
            tiling=measure_tiling(prepared, network.config, [member]),
        )
        candidate = log_candidate(card, [member], run.run_id)
        link = views.share_view(client, run, "cv/dice", ())
    return Imported(candidate, (*network.notes, OPTIMISTIC), scores, link)


def _prepare(request: ImportRequest, config: TrialConfig) -> Prepared:
    """Divide the data set as a search of this one configuration would."""
    assert request.data is not None
    if state_file(request.study).exists():
        raise MicrosegError(
            f"study '{request.study}' exists in {folder(request.study)}; choose another --study"
        )
    asked = {"trials": 1, "asha": None, "folds": request.folds, "seed": request.seed}
    search = parse(SearchConfig, asked | {"space": config.model_dump(mode="json")}, "import-model")
    study = Request(
        name=request.study, data=str(request.data), options=request.options, config=search, model=request.name
    )
    return divide(study, parse_space(search.space, str(request.file)))


def _fitted(network: Network, prepared: Prepared) -> tuple[Network, Prepared]:
    """Make the network and the data set fit each other, or refuse."""
    manifest, takes = prepared.development, network.model.inputs[0].shape[-1]
    if manifest.channels == 1 and takes == 3:
        network = network.changed("grey images are repeated in the network's three channels")
        manifest = manifest.model_copy(update={"channels": 3})
    pairs = load_pairs(prepared.folds[0].valid[:3], manifest, cache(), network.config.preprocess)
    given = pairs[0].image.shape[-1]
    if given != takes:
        raise MicrosegError(
            f"{network.file}: it takes {takes} channel(s), the preprocessed images of {manifest.name} "
            f"have {given}; give the --preprocess that it was trained with, or other --data"
        )
    network = with_probabilities(network, [pair.whole for pair in pairs])
    return with_maps_of(network, manifest.classes), replace(prepared, development=manifest)
