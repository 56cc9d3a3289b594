"""What a result was computed with: code, packages, settings, hardware."""

from __future__ import annotations

import functools
import getpass
import os
import platform
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import Field

import microseg
from microseg import runtime
from microseg.config import Precision, Strict
from microseg.data.files import content_hash
from microseg.errors import counted

# The packages that decide a result, microseg itself aside.
DECISIVE = ("ray", "optuna", "tensorflow", "keras", "numpy", "albumentations", "scikit-image")
SETTINGS, QUIET = ("TF_", "KERAS_", "XLA_"), "TF_CPP_"  # how much is logged changes no result
MOST_CHANGES = 200_000  # characters of uncommitted changes that are kept
_TEXTS = ("*.py", "*.yaml", "*.yml", "*.toml")


class Source(Strict):
    """The checkout that the code runs from.

    ``diff`` is what ``git diff HEAD`` prints, ``untracked`` the text, by path, of Python, YAML and TOML files
    that git does not know, ``cut`` says that there was more of both than 200,000 characters.
    """

    commit: str
    diff: str = ""
    untracked: dict[str, str] = Field(default_factory=dict)
    cut: bool = False

    @property
    def state(self) -> str:
        """``clean``, or ``modified`` where there are uncommitted changes."""
        return "modified" if self.diff or self.untracked or self.cut else "clean"


class Environment(Strict):
    """What a process computes with.

    ``microseg`` is a hash of this package's files, ``packages`` the version of every installed distribution,
    ``settings`` the environment variables that libraries heed, ``threads`` those of TensorFlow within one
    operation (0: as many as there are cores), ``precision`` the dtype policy of Keras.
    """

    microseg: str
    python: str
    packages: dict[str, str]
    settings: dict[str, str]
    hardware: dict[str, Any]
    threads: int
    precision: str


def environment(precision: Precision = "auto") -> Environment:
    """Return what this process computes with, at a precision."""
    return Environment(
        microseg=package_hash(),
        python=platform.python_version(),
        packages=packages(),
        settings=settings(),
        hardware=runtime.hardware(),
        threads=runtime.thread_count(),
        precision=runtime.precision_policy(precision),
    )


def differences(then: Environment, now: Environment) -> list[str]:
    """Say in what two environments differ that may change a result; other packages are counted, last."""
    facts = {"code of microseg": "microseg", "Python": "python"} | {n: n for n in ("threads", "precision")}
    found = [_differ(what, getattr(then, name), getattr(now, name)) for what, name in facts.items()]
    found += [_differ(name, then.packages.get(name), now.packages.get(name)) for name in DECISIVE]
    found += [_differ(name, then.hardware.get(name), now.hardware.get(name)) for name in ("cpu", "gpus")]
    names = sorted(then.settings.keys() | now.settings.keys())
    found += [_differ(name, then.settings.get(name), now.settings.get(name)) for name in names]
    others = {*then.packages.items()} ^ {*now.packages.items()}
    count = len({name for name, _ in others} - {*DECISIVE, "microseg"})
    return [line for line in found if line] + ([counted(count, "other package")] if count else [])


def _differ(what: str, then: Any, now: Any) -> str:
    if then == now:
        return ""
    shown = [", ".join(one) if isinstance(one, list) else one for one in (then, now)]
    before, after = ("none" if one in (None, "") else one for one in shown)
    return f"{what} {before}, now {after}"


def settings() -> dict[str, str]:
    """Return the environment variables that change what libraries compute."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(SETTINGS) and not name.startswith(QUIET)
    }


@functools.cache
def packages() -> dict[str, str]:
    """Return the version of every installed distribution; of two with one name, that which is imported."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        if distribution.metadata["Name"]:  # an uninstallation that was broken off leaves one without
            found.setdefault(distribution.name.lower(), distribution.version)
    return dict(sorted(found.items()))


@functools.cache
def package_hash() -> str:
    """Return a hash (12 digits) of this package's files."""
    package = Path(microseg.__file__).parent
    files = sorted(package.rglob("*.py"))
    parts = (part for file in files for part in (str(file.relative_to(package)).encode(), file.read_bytes()))
    return content_hash(parts)[:12]


def code() -> dict[str, str]:
    """Return what decides a result besides data and configuration: versions, and a hash of this package."""
    known = packages()
    return {"microseg": package_hash()} | {name: known.get(name, "not installed") for name in DECISIVE}


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


def source(file: Path = Path(__file__)) -> Source | None:
    """Return the checkout that a file of code belongs to, with its uncommitted changes.

    Parameters
    ----------
    file : Path
        By default one of this package's.

    Returns
    -------
    Source or None
        None where git is missing or does not know the file: an installed package may lie in the folder of
        another project's checkout.
    """
    try:
        _git(file.parent, "ls-files", "--error-unmatch", file.name)
        top = Path(_git(file.parent, "rev-parse", "--show-toplevel").strip())
        commit = _git(top, "rev-parse", "HEAD").strip()
        diff = _git(top, "diff", "HEAD", "--no-color", "--no-ext-diff")
        names = _git(top, "ls-files", "-z", "--others", "--exclude-standard", "--", *_TEXTS)
    except (OSError, subprocess.SubprocessError):
        return None
    untracked = dict(_read(top, names.split("\0")[:-1], MOST_CHANGES - len(diff)))
    cut = len(diff) > MOST_CHANGES or len(untracked) < names.count("\0")
    return Source(commit=commit, diff=diff[:MOST_CHANGES], untracked=untracked, cut=cut)


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    return done.stdout.decode(errors="replace")


def _read(top: Path, names: list[str], room: int) -> Iterator[tuple[str, str]]:
    """Yield the texts of files as long as there is room for the whole of one."""
    for name in names:
        file = top / name
        if not file.is_file() or file.stat().st_size > room:
            continue
        text = file.read_text(encoding="utf-8", errors="replace")
        room -= len(text)
        yield name, text
