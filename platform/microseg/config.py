"""Frozen, strict configuration models: what one trial is, and what a search is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from microseg.documents import read_yaml_text
from microseg.errors import MicrosegError
from microseg.errors import did_you_mean as did_you_mean
from microseg.errors import first_problem as first_problem

M = TypeVar("M", bound=BaseModel)

Precision = Literal["auto", "float32", "bfloat16", "float16"]


class Strict(BaseModel):
    """A frozen model that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Component(Strict):
    """A named entry of a table (architecture, loss, ...) and its keyword arguments."""

    name: str
    params: dict[str, Any] = {}


class TrialConfig(Strict):
    """Everything that defines one training: a point of a search space.

    ``tile`` is in pixels, ``epochs`` and ``patience`` count epochs of the fold, ``overlap`` is the
    fraction of a tile that neighbouring tiles share when a full image is predicted. ``foreground`` is
    the share of training patches that are placed on a foreground pixel, for objects so rare that
    random patches miss them. ``monitor`` is the validation metric that early stopping watches and
    whose best epoch is kept; in a search it is the search's metric. ``accumulation`` is the number of
    equal parts in which a batch goes through the network before the weights change once: it trains as the
    whole batch does (batch normalisation sees the parts) with the memory of a part.
    """

    model: Component
    loss: Component = Component(name="bce_dice")
    optimizer: Component = Component(name="adam")
    schedule: Component = Component(name="constant")
    augment: Component = Component(name="flips")
    preprocess: Component = Component(name="percentile")
    tile: int = Field(default=256, ge=16, le=4096)
    overlap: float = Field(default=0.25, ge=0.0, le=0.75)
    batch_size: int = Field(default=8, ge=1)
    accumulation: int = Field(default=1, ge=1)
    epochs: int = Field(default=50, ge=1)
    steps_per_epoch: int | None = Field(default=None, ge=1)
    patience: int = Field(default=15, ge=1)
    monitor: str = "val/dice"
    foreground: float = Field(default=0.0, ge=0.0, le=1.0)
    threshold: float = Field(default=0.5, gt=0.0, lt=1.0)
    precision: Precision = "auto"
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _equal_parts(self) -> TrialConfig:
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"accumulation must divide batch_size into equal parts; {self.accumulation} does not divide "
                f"{self.batch_size}"
            )
        return self


class AshaConfig(Strict):
    """Asynchronous successive halving (Li et al. 2020, arXiv:1810.05934) on the first fold's epochs."""

    grace: int = Field(default=3, ge=1)
    reduction: int = Field(default=3, ge=2)


class RaceConfig(Strict):
    """The paired race over folds (see `microseg.statistics.race`).

    ``margin`` multiplies the noise that was measured between folds: more keeps more trials.
    """

    margin: float = Field(default=1.0, gt=0.0)


class Constraint(Strict):
    """What a configuration must meet to be trained: where ``when`` holds, ``need`` must hold too.

    Both name parameters by path, such as ``model/params/depth`` or ``tile``, and say what they may be: a
    value, a list of values, or a mapping with ``min`` or ``max`` or both. ``when`` may be empty: always. A
    path that a configuration does not have meets no ``when``, and every ``need``.
    """

    when: dict[str, Any] = {}
    need: dict[str, Any] = Field(min_length=1)
    reason: str = ""


class Budget(Strict):
    """Where a search ends although it has not all its trials; resuming with more goes on.

    ``hours`` of wall time and ``gpu_hours`` are those of all runs of the study together.
    """

    hours: float | None = Field(default=None, gt=0.0)
    gpu_hours: float | None = Field(default=None, gt=0.0)


class WarmStart(Strict):
    """An earlier study whose ``best`` configurations are tried first, on the same data set or another."""

    study: str
    best: int = Field(default=5, ge=1)


Sampler = Literal["tpe", "gp", "cmaes", "qmc", "random"]
Cost = Literal["parameters", "inference_seconds"]
Candidate = Literal["ensemble", "best_fold", "retrained"]
Keep = Literal["models", "all", "finalists", "best"]


class SearchConfig(Strict):
    """A search: the space, how many trials, what is compared, and how the data is divided.

    ``space`` has the shape of a `TrialConfig` with distributions in place of values (see
    `microseg.space`); ``constraints`` refuse points of it, and ``start_with`` names points, or files such as
    a ``best.yaml``, that are tried first. ``holdout`` is the fraction of groups set aside that no search
    sees. ``against`` is a cost that is searched to be low beside the metric: parameters of the network, or
    seconds to predict a megapixel; there is no ASHA then, and only rivals that cost no more end a trial.
    ``gpus_per_trial`` is a number or a fraction; ``auto`` packs as many trials on a GPU as the memory
    measured in earlier ones allows. Of ``brief`` curves MLflow has the losses, the Dice and the metric by
    epoch; all others are in the history of each fold's ``result.json``. After the search, the best
    ``finalists`` are trained ``replicates`` times more, with other seeds. ``candidate`` is what is registered
    of the best trial: the ensemble of its folds, the network of its best fold, or one that is trained once
    more on all images of the folds. ``keep`` is what MLflow still has of networks and pictures once the study
    has ended: ``models``, the network of every completed fold, and pictures of the ``finalists``;
    ``finalists`` or ``best``, both of the best ``finalists`` or of the best trial alone, with their repeats;
    ``all``, everything, and pictures of every fold are drawn, where else only a trial's first fold has them.
    """

    space: dict[str, Any]
    trials: int = Field(default=20, ge=1)
    metric: str = "val/dice"
    mode: Literal["max", "min"] = "max"
    folds: int | Literal["given"] = 5
    holdout: float = Field(default=0.2, ge=0.0, lt=0.9)
    against: Cost | None = None
    asha: AshaConfig | None = AshaConfig()
    race: RaceConfig | None = RaceConfig()
    sampler: Sampler = "tpe"
    constraints: tuple[Constraint, ...] = ()
    start_with: tuple[dict[str, Any] | str, ...] = ()
    warm_start: WarmStart | None = None
    budget: Budget | None = None
    curves: Literal["all", "brief"] = "all"
    replicates: int = Field(default=0, ge=0)
    finalists: int = Field(default=3, ge=1)
    candidate: Candidate = "ensemble"
    keep: Keep = "models"
    concurrency: int = Field(default=1, ge=1)
    gpus_per_trial: Annotated[float, Field(ge=0.0)] | Literal["auto"] | None = None
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _no_asha_against_a_cost(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("against"):
            if values.get("asha"):
                raise ValueError(
                    f"asha compares trials by the metric alone and would stop those that cost little; with "
                    f"against: {values['against']} leave asha out"
                )
            return values | {"asha": None}
        return values

    @model_validator(mode="after")
    def _at_least_one_fold(self) -> SearchConfig:
        if isinstance(self.folds, int) and self.folds < 1:
            raise ValueError("folds must be a whole number of at least 1, or 'given'")
        return self


def parse(model: type[M], values: Any, source: str) -> M:
    """Validate plain values as a model, or refuse in one line that names the source.

    Raises
    ------
    MicrosegError
        If a key is unknown or a value does not fit.
    """
    if not isinstance(values, dict):
        raise MicrosegError(f"{source}: expected a mapping of keys to values, got {type(values).__name__}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise MicrosegError(f"{source}: {first_problem(error, model)}") from error


def read_yaml(path: Path) -> Any:
    """Read one YAML document; a missing or malformed file is one clear line.

    Raises
    ------
    MicrosegError
        If the file is missing, unreadable or no YAML.
    """
    try:
        return read_yaml_text(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MicrosegError(f"{path}: no such file; give the path of a YAML file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise MicrosegError(f"{path}: cannot be read ({error})") from error
    except ValueError as error:
        raise MicrosegError(f"{path}: not valid YAML: {error}") from error


def read_search(path: Path) -> SearchConfig:
    """Read a search-space YAML (see `search_spaces/`).

    Raises
    ------
    MicrosegError
        If the file cannot be read or does not describe a search.
    """
    return parse(SearchConfig, read_yaml(path), str(path))


def read_trial(path: Path) -> TrialConfig:
    """Read one configuration, such as the `best.yaml` that a search leaves.

    Raises
    ------
    MicrosegError
        If the file cannot be read or does not describe a trial.
    """
    return parse(TrialConfig, read_yaml(path), str(path))
