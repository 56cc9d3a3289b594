"""Optuna's samplers: which of them can search a space, and how each proposes the same after a restart."""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from microseg.config import SearchConfig
from microseg.errors import MicrosegError
from microseg.space import OneOf, Space

STARTUP = 8  # trials at random before TPE and GP model the objective
INFEASIBLE = "infeasible"  # the user attribute of a trial that could not be trained: 1.0

# A constraint as a system attribute of a trial. `Trial.set_constraint` writes it too, but needs a live trial,
# and to make one samples anew; the `constraints_func` of samplers is deprecated in Optuna 5.
_CONSTRAINT = f"constraints:{INFEASIBLE}"


def sampler(config: SearchConfig, number: int, costs: int) -> BaseSampler:
    """Return the sampler of one trial, whose proposal depends on the seed, the number and the storage alone.

    Parameters
    ----------
    config : SearchConfig
        Which sampler, and the seed of the study.
    number : int
        The number of the trial.
    costs : int
        How many objectives there are beside the metric.

    References
    ----------
    TPE: Watanabe 2023, arXiv:2304.11127. GP: Ament et al. 2023, arXiv:2310.20708. CMA-ES: Hansen 2016,
    arXiv:1604.00772. Scrambled Sobol points: Owen 1998, doi:10.1006/jcom.1998.0487.
    """
    study_seed = _study_seed(config)
    make: dict[str, Callable[[int], BaseSampler]] = {
        "tpe": _joint_tpe if costs == 0 else _tpe,
        "gp": _Gp,
        "cmaes": lambda seed: CmaEsSampler(seed=seed),
        "qmc": lambda _: _Sobol(study_seed, number),
        "random": lambda seed: RandomSampler(seed=seed),
    }
    single = make["tpe"] if config.sampler == "tpe" else make["random"]
    return _Repeatable(make[config.sampler], single, (study_seed, number), learns_constraints(config))


@contextlib.contextmanager
def _experimental() -> Iterator[None]:
    """Let Optuna make what it calls experimental without warning of it at each trial."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _tpe(seed: int) -> BaseSampler:
    # Optuna's own choice for two objectives: each parameter by itself
    return TPESampler(seed=seed, multivariate=False, constant_liar=True, n_startup_trials=STARTUP)


def _joint_tpe(seed: int) -> BaseSampler:
    with _experimental():  # `group`, which models what the branches of a one_of have jointly
        return TPESampler(
            seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=STARTUP
        )


def learns_constraints(config: SearchConfig) -> bool:
    """Whether the sampler keeps away from where trials were infeasible, told as PRUNED with the attribute.

    Only TPE reads trials that are not complete: to GP, CMA-ES and the others they do not exist.
    """
    return config.sampler == "tpe"


class _Gp(GPSampler):
    """The Gaussian process, forgetting what it had drawn for a proposal that was killed.

    Optuna would count that among the running trials, and so keep the trial away from itself.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed, n_startup_trials=STARTUP)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        for key in trial.system_attrs:
            if key.startswith("gp:relative_params"):
                study._storage.set_trial_system_attr(trial._trial_id, key, "")
        return super().sample_relative(study, trial, search_space)


class _Sobol(QMCSampler):
    """Sobol's sequence with a trial's number for the index.

    Optuna counts in the storage and before it stores the parameters, so that the point of a proposal that
    was killed would be lost, and all later ones moved by one. Scrambled: unscrambled the seed counts for
    nothing and the sequence begins in a corner.
    """

    def __init__(self, seed: int, number: int) -> None:
        with _experimental():
            super().__init__(seed=seed, scramble=True)
        self._number = number

    def _find_sample_id(self, study: Study, search_space: dict[str, BaseDistribution]) -> int:
        return self._number


class _Repeatable(BaseSampler):
    """Draws jointly by one seeded sampler, and what is drawn by itself by one seeded by its name.

    A proposal that was killed half way is sampled to the end with what it has from the storage; from one
    stream of random numbers the rest would differ from that of the uninterrupted proposal.
    """

    def __init__(
        self,
        joint: Callable[[int], BaseSampler],
        single: Callable[[int], BaseSampler],
        seed: tuple[int, int],
        learns: bool,
    ) -> None:
        self._joint = joint(_seeded(seed))
        self._single = single
        self._seed = seed
        self._learns = learns

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._joint.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._joint.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        single = self._single(_seeded(self._seed, param_name))
        return single.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        infeasible = float(trial.user_attrs.get(INFEASIBLE, 0.0))
        if self._learns and infeasible > 0:
            study._storage.set_trial_system_attr(trial._trial_id, _CONSTRAINT, infeasible)


def _study_seed(config: SearchConfig) -> int:
    """Return the seed of a study's proposals.

    A study that begins with the best of an earlier one would propose those again with the same seed.
    """
    return config.seed if config.warm_start is None else _seeded((config.seed,), config.warm_start.study)


def _seeded(seed: tuple[int, ...], name: str = "") -> int:
    return int(np.random.SeedSequence([*seed, *name.encode()]).generate_state(1)[0])


def check_sampler(config: SearchConfig, space: Space, source: str) -> None:
    """Refuse a sampler that would draw parts of a space at random without saying so.

    Raises
    ------
    MicrosegError
        With the reason, and the samplers that can.
    """
    reason = _unfit(config, space)
    if reason:
        raise MicrosegError(f"{source}: sampler {config.sampler} {reason}")


def _unfit(config: SearchConfig, space: Space) -> str | None:
    if config.sampler in ("tpe", "random"):
        return None
    if config.sampler == "gp" and importlib.util.find_spec("torch") is None:
        return "needs PyTorch, which is not installed; install microseg[gp], or set sampler: tpe"
    dimensions = space.dimensions()
    conditional = next((dimension.name for dimension in dimensions if dimension.conditional), None)
    if conditional:
        return (
            f"takes no conditional parameters, but only some options of a one_of have {conditional}; set "
            "sampler: tpe or random, or search each option by itself"
        )
    return _unfit_for_cmaes(config, space) if config.sampler == "cmaes" else None


def _unfit_for_cmaes(config: SearchConfig, space: Space) -> str | None:
    dimensions = space.dimensions()
    if config.against is not None:
        return f"has one objective, but against is {config.against}; set sampler: tpe, gp, qmc or random"
    choice = next((dimension.name for dimension in dimensions if isinstance(dimension.node, OneOf)), None)
    if choice:
        return f"takes numbers only, but {choice} is a choice; set sampler: tpe, gp, qmc or random, or fix it"
    if len(dimensions) < 2:
        return f"needs at least 2 ranges of numbers, the space has {len(dimensions)}; set sampler: tpe"
    return None
