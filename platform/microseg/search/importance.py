"""Which parameters decide whether a trial is among the best: PED-ANOVA over trials that are complete."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

FEWEST = 10  # trials: of fewer, the best quarter is no sample
_BEST = 0.25  # of the trials: the best tenth of a usual study is so few that chance leads the list
_FEW = 8  # values: these were choices, and a density over their range would see structure in its gaps
_WIDE = (
    20  # times that the largest value is the smallest, from which on a parameter is searched by its logarithm
)


def importances(parameters: Sequence[Mapping[str, str]], scores: Sequence[float]) -> dict[str, float]:
    """Return the share of each parameter in telling the best quarter of the trials from all.

    Parameters
    ----------
    parameters : sequence of mapping
        The parameters of each trial as text by path; those of a branch of the space may be missing.
    scores : sequence of float
        The score of each, larger is better.

    Returns
    -------
    dict
        Shares that add up to 1, the largest first; empty below `FEWEST` trials, or where parameters or scores
        do not differ.

    References
    ----------
    Watanabe, Bansal and Hutter 2023, PED-ANOVA, arXiv:2304.10255.
    """
    if len(scores) < FEWEST or len(set(scores)) < 2:
        return {}
    known = _distributions(parameters)
    if not known:
        return {}
    from optuna.importance import PedAnovaImportanceEvaluator  # loads scikit-learn: a second of each command

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a study in memory announces itself
    study = optuna.create_study(direction="maximize")
    optuna.logging.set_verbosity(level)
    for own, score in zip(parameters, scores, strict=True):
        values = {name: _value(own[name], known[name]) for name in own if name in known}
        own_space = {name: known[name] for name in values}
        study.add_trial(optuna.create_trial(params=values, distributions=own_space, value=score))
    evaluator = PedAnovaImportanceEvaluator(target_quantile=_BEST)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


def _distributions(parameters: Sequence[Mapping[str, str]]) -> dict[str, BaseDistribution]:
    """Return, for each parameter in which trials differ, the range or the choices that they span."""
    names = dict.fromkeys(name for own in parameters for name in own)
    values = {name: sorted({own[name] for own in parameters if name in own}) for name in names}
    return {name: _distribution(found) for name, found in values.items() if len(found) > 1}


def _distribution(values: Sequence[str]) -> BaseDistribution:
    numbers = [_number(value) for value in values]
    if len(values) <= _FEW or not all(map(math.isfinite, numbers)):
        return CategoricalDistribution(values)
    low, high = min(numbers), max(numbers)
    return FloatDistribution(low, high, log=low > 0 and high >= _WIDE * low)


def _value(text: str, distribution: BaseDistribution) -> str | float:
    return text if isinstance(distribution, CategoricalDistribution) else _number(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
