"""The images that no search of a data set has seen, found again for a registered version."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from microseg.data.manifest import Item, Manifest
from microseg.data.open import open_dataset
from microseg.errors import MicrosegError
from microseg.storage import cache, is_remote
from microseg.study.provenance import Provenance, read

FORCE = 'promote it all the same with --force --why "..."'


@dataclass(frozen=True)
class HoldOut:
    """A data set as it is now: which of its images the study of a run kept back, and which it saw."""

    run_id: str
    manifest: Manifest
    held: tuple[Item, ...]
    seen: tuple[Item, ...]


def origin(client: MlflowClient, version: ModelVersion) -> Provenance | None:
    """Return the study that a version comes from; None where no images are known of it."""
    try:
        return read(client, version.run_id) if version.run_id else None
    except MlflowException as error:  # the run may be gone
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def hold_out(found: Provenance, data: str | Path | None) -> HoldOut:
    """Read the data set of a study again, and divide it as the study did.

    What counts is what the study's own folds left out, whatever the file of the hold-out says by now.

    Parameters
    ----------
    found : Provenance
        The study.
    data : str or Path, optional
        Path or ``s3://`` URI of the images now, if not where the study found them.

    Raises
    ------
    MicrosegError
        If the images are gone or have changed, or the study kept none back.
    """
    study, place = found.study, str(data or found.request.data)
    if not is_remote(place) and not Path(place).exists():
        raise MicrosegError(
            f"{place}: the images of study '{study}' are not there; say by --data where they are"
        )
    manifest = open_dataset(place, found.request.options, cache())
    if manifest.digest != found.digest:
        raise MicrosegError(
            f"{place}: the images or masks have changed since study '{study}' (digest "
            f"{found.digest[:12]}, now {manifest.digest[:12]}); restore them, or {FORCE}"
        )
    seen = {item.sha256 for item in found.seen}
    contents = {item.sha256 for item in found.manifest.items} - seen
    held = tuple(item for item in manifest.items if item.sha256 in contents)
    if not held:
        raise MicrosegError(
            f"study '{study}' kept no images back (holdout: 0), so nothing can show that its model is better;"
            f" search again with a hold-out, or {FORCE}"
        )
    saw = tuple(item for item in manifest.items if item.sha256 in seen)
    return HoldOut(found.study_run, manifest, held, saw)


def refuse_trained(version: ModelVersion, found: Provenance, held: tuple[Item, ...]) -> None:
    """Refuse a version whose study saw images of the hold-out, by their content.

    Raises
    ------
    MicrosegError
        With the number of such images and the first of them.
    """
    seen = {item.sha256 for item in found.seen}
    known = [item.name for item in held if item.sha256 in seen]
    if known:
        raise MicrosegError(
            f"{version.name} version {version.version} was trained on {len(known)} of the {len(held)} images "
            f"of the hold-out ('{known[0]}' among them), so they cannot judge it; to do without, {FORCE}"
        )
