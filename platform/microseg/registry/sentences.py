"""A decision in plain words."""

from __future__ import annotations

from microseg.registry.decision import Decision
from microseg.statistics import FEWEST_GROUPS


def sentences(decision: Decision) -> list[str]:
    """Say what was decided, by which numbers, and what this hold-out could have shown."""
    return [_outcome(decision), _numbers(decision), _reach(decision), *decision.notes]


def _outcome(decision: Decision) -> str:
    name, version = decision.name, decision.version
    if decision.outcome == "undecided":
        return f"{name}: cannot be decided with {decision.groups} groups; {_stays(decision)}"
    if decision.outcome == "promoted":
        return f"{name}: version {version} is better than {decision.rival} on the hold-out"
    return f"{name}: version {version} is not shown to be better than {decision.rival}; {_stays(decision)}"


def _stays(decision: Decision) -> str:
    return "there is still no champion" if decision.champion is None else f"{decision.rival} stays champion"


def _numbers(decision: Decision) -> str:
    gain = (
        f"Gain in {decision.metric} {decision.estimate:+.4f}, the mean over {decision.groups} groups "
        f"({decision.images} images) of a group's mean paired difference"
    )
    if decision.low is None:
        return gain
    return (
        f"{gain}; lower bound {decision.low:+.4f} at the one-sided level {decision.level:.3g}; asked for: "
        f"a bound above 0 and a gain of at least {decision.least:g}"
    )


def _reach(decision: Decision) -> str:
    if decision.resolvable is None:
        return f"A hold-out decides from {FEWEST_GROUPS} groups on; add groups (specimens, sessions, slides)"
    return (
        f"Use {decision.use} of this hold-out; the smallest gain that it could have resolved this time is "
        f"{decision.resolvable:.4f}"
    )
