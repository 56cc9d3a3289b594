"""Where a result came from: code, data, versions, hardware."""

from __future__ import annotations

import functools
import getpass
import json
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag

import microseg
from microseg import runtime
from microseg.data.files import content_hash
from microseg.data.manifest import Manifest
from microseg.tracking.tree import set_tags

PACKAGES = (
    "microseg",
    "ray",
    "optuna",
    "mlflow",
    "tensorflow",
    "keras",
    "numpy",
    "albumentations",
    "scikit-image",
)


def environment() -> dict[str, Any]:
    """Return the code's commit, the exact package versions and the hardware of this process."""
    return {"git": _git(), "versions": versions(), "hardware": runtime.hardware()}


def versions() -> dict[str, str]:
    """Return the installed versions of the packages that decide a result."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from a source folder, or another build of the package
            found[name] = microseg.__version__ if name == "microseg" else "not installed"
    return found


@functools.cache
def code() -> dict[str, str]:
    """Return what decides a result besides data and configuration: versions, and a digest of this package."""
    package = Path(microseg.__file__).parent
    files = sorted(package.rglob("*.py"))
    parts = (part for file in files for part in (str(file.relative_to(package)).encode(), file.read_bytes()))
    decisive = {name: version for name, version in versions().items() if name not in ("microseg", "mlflow")}
    return {"microseg": content_hash(parts)[:12]} | decisive


def in_words(hardware: dict[str, Any]) -> str:
    """Return the hardware in one line: processor, cores, memory, GPUs, precision."""
    gpus = ", ".join(hardware["gpus"]) or "no GPU"
    memory = f"{hardware['memory_gib']} GiB"
    return f"{hardware['cpu']}, {hardware['cores']} cores, {memory}, {gpus}, {hardware['precision']}"


def user() -> str:
    """Return who is logged in here."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without an entry in the user database
        return "unknown"


def _git() -> dict[str, str]:
    """Return commit and state of the folder the code lies in; empty outside a checkout."""
    home = Path(__file__).resolve().parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=home, capture_output=True, text=True, timeout=10
        )
        changes = subprocess.run(
            ["git", "status", "--porcelain"], cwd=home, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    if commit.returncode:
        return {}
    return {"commit": commit.stdout.strip(), "state": "modified" if changes.stdout.strip() else "clean"}


def record(client: MlflowClient, run_id: str, manifest: Manifest, facts: dict[str, Any], seed: int) -> None:
    """Write data set, code, versions, hardware and seed to a study's run."""
    tags = {
        "microseg.seed": str(seed),
        "microseg.data": manifest.name,
        "microseg.digest": manifest.digest,
        "microseg.hardware": in_words(facts["hardware"]),
        "mlflow.user": user(),
        "mlflow.source.name": f"microseg {microseg.__version__}",
        "mlflow.source.type": "LOCAL",
    }
    if facts["git"]:
        tags["mlflow.source.git.commit"] = facts["git"]["commit"]
    set_tags(client, run_id, tags)
    client.log_dict(run_id, facts, "provenance.json")
    log_dataset(client, run_id, manifest)


def log_dataset(client: MlflowClient, run_id: str, manifest: Manifest) -> None:
    """Log the data set as an MLflow dataset input, with its content digest."""
    profile = {"images": len(manifest.items), "channels": manifest.channels, "masks": manifest.mask_kind}
    dataset = Dataset(
        name=manifest.name,
        digest=manifest.digest[:36],  # the column holds 36 characters; the tag microseg.digest holds all
        source_type="local",
        source=json.dumps({"uri": manifest.source}),
        profile=json.dumps(profile),
    )
    client.log_inputs(run_id, datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
