"""How numbers and names are written for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def number(value: float | None) -> str:
    """Return a score with four decimals, or nothing for none."""
    return "" if value is None else f"{value:.4f}"


def cost(value: float | None) -> str:
    """Return a cost, whole numbers in groups of three digits; empty where it was not measured."""
    if value is None:
        return ""
    return f"{value:,.0f}".replace(",", " ") if value >= 1000 else f"{value:.3g}"


def probability(value: float) -> str:
    """Return a p-value with two digits, no smaller than it can be trusted to be."""
    return "< 0.001" if value < 0.001 else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def difference(value: float) -> str:
    """Return a difference of scores with its sign and four decimals."""
    return f"{value:+.4f}".replace("-", "\N{MINUS SIGN}")


def listed(names: Sequence[str], most: int = 12) -> str:
    """Return names as a list in words; of many only the first."""
    shown = list(names[:most])
    if len(names) > most:
        return f"{', '.join(shown)} and {len(names) - most} more"
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))


def headings(paths: Sequence[str]) -> list[str]:
    """Return paths as headings: of ``model/params/depth`` as much as tells it from the others, ``depth``."""
    parts = [_named(path) for path in paths]
    last = Counter(names[-1] for names in parts)
    return [names[-1] if last[names[-1]] == 1 else " ".join(names) for names in parts]


def _named(path: str) -> list[str]:
    return [part.replace("_", " ") for part in path.split("/") if part not in ("params", "name")]


def rounded(value: str) -> str:
    """Return a parameter's value with at most four significant digits."""
    try:
        number = float(value)
    except ValueError:
        return value
    return value if number.is_integer() else f"{number:.4g}"
