"""Groups: those that a division tears apart, and those that names or a table suggest and nobody stated."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from microseg.data.audit.findings import Division, Finding, Level, shown
from microseg.data.entries import read_rows
from microseg.data.manifest import Item, Manifest
from microseg.folds import make_folds

# Words that number the slices, frames or fields of one specimen; what stands before them names it.
AXIS_WORDS = "z|slice|plane|layer|section|t|time|tp|timepoint|frame|s|series|site|fov|field"
# How microscopes and people number images; the first that divides all names into sessions is proposed.
_SESSION_PATTERNS = (
    r"^(.+)_\d+(?=_|$)",
    r"^(.+)[-\s]\d+(?=[-\s]|$)",
    r"^(.*[^\d])\d+$",
    r"^([^_-]+)[_-]",
)
_SPLIT_WORDS = {"train", "training", "valid", "validation", "val", "test"}
_COLUMN_WORDS = re.compile(
    r"(?<![a-z])(group|session|specimen|sample|patient|donor|subject|animal|mouse|rat|slide|dish|well|plate|stack"
    r"|movie|video|experiment|batch|day|date|case)(s|id|[^a-z]|$)",
    re.IGNORECASE,
)
_USUAL_FOLDS = 5


def session_regex(names: Sequence[str]) -> str | None:
    """Propose a group regex for file names that carry a stack or session and a running number.

    Returns
    -------
    str or None
        A pattern that divides the names into 2 sessions or more with 2 images each on average.
    """
    words = {found.group(1) for name in names if (found := _first_axis(name))}
    stacks = [rf"^(.+?)[\s_.-]{word}[\s_-]?\d+(?=[\s_.-]|$)" for word in sorted(words)]
    for pattern in (*stacks, *_SESSION_PATTERNS):
        matches = [re.search(pattern, name) for name in names]
        sessions = {match.group(1) for match in matches if match}
        if all(matches) and 2 <= len(sessions) <= len(names) / 2:
            return pattern
    return None


def _first_axis(name: str) -> re.Match[str] | None:
    return re.search(rf"(?<=[ _.-])({AXIS_WORDS})[ _-]?\d+(?=[ _.-]|$)", name, re.IGNORECASE)


def split_groups(manifest: Manifest, division: Division) -> Iterator[Finding]:
    """Report groups that a division has on both of its sides."""
    groups: defaultdict[str, list[Item]] = defaultdict(list)
    for item in manifest.items:
        groups[item.group].append(item)
    divided: defaultdict[tuple[Level, str], list[str]] = defaultdict(list)
    for group, items in groups.items():
        divided[division.apart(items)].append(group)
    for (level, where), names in divided.items():
        if level != "note":
            text = f"{len(names)} groups have images {where}: {shown(names)}"
            concerned = tuple(item.name for name in names for item in groups[name])
            advice = "divide by whole groups"
            yield Finding(level=level, check="split_group", text=text, advice=advice, items=concerned)


def unstated_groups(manifest: Manifest, division: Division) -> Iterator[Finding]:
    """Report groups that a column or the file names suggest, where every image is a group of its own."""
    if len(manifest.groups) < len(manifest.items):
        return
    columns = [*_columns(Path(manifest.source))]
    pattern = session_regex([item.images[0].stem for item in manifest.items])
    if columns:
        text = f"every image is a group of its own, but the table has the column {' and '.join(columns)}"
        advice = f"if it tells specimens or sessions apart, state --group-column {columns[0]}"
        yield Finding(level="warn", check="unstated_groups", text=text, advice=advice)
    if pattern:
        yield _sessions(manifest, pattern, division)
    if not columns and not pattern:
        text = "every image is a group of its own"
        advice = "images of one specimen or session need a common group"
        yield Finding(level="note", check="unstated_groups", text=text, advice=advice)


def _sessions(manifest: Manifest, pattern: str, division: Division) -> Finding:
    groups = {item.name: _group(item, pattern) for item in manifest.items}
    sessions: defaultdict[str, list[Item]] = defaultdict(list)
    for item in manifest.items:
        if groups[item.name].lower() not in _SPLIT_WORDS:
            sessions[groups[item.name]].append(item)
    advice = f"if so, state --group-regex '{pattern}': {_preview(manifest, groups, division)}"
    mixed = [session for session, items in sessions.items() if len({item.split for item in items}) > 1]
    if mixed:
        items = tuple(item.name for session in mixed for item in sessions[session])
        text = f"the given split divides {len(mixed)} of the {len(sessions)} sessions that file names suggest"
        text += f" ({shown(sorted(mixed))})"
        return Finding(level="warn", check="unstated_groups", text=text, advice=advice, items=items)
    count = f"{len(sessions)} sessions ({shown(sorted(sessions))})"
    text = f"file names suggest {count}, but every image is a group of its own"
    return Finding(level="warn", check="unstated_groups", text=text, advice=advice)


def _group(item: Item, pattern: str) -> str:
    found = re.search(pattern, item.images[0].stem)
    return found.group(1) if found else item.name


def _preview(manifest: Manifest, groups: Mapping[str, str], division: Division) -> str:
    """Say what folds of whole groups would look like."""
    items = tuple(
        item.model_copy(update={"group": groups[item.name]})
        for item in manifest.items
        if item.split != "test"
    )
    grouped = manifest.model_copy(update={"items": items})
    wanted = division.folds if division.folds > 1 else _USUAL_FOLDS  # a given split is one fold
    count = min(wanted, len(grouped.groups))
    if count < 2:
        return "but a single group cannot be divided into folds"
    folds = make_folds(grouped, count, 0)
    sizes = [f"{len({groups[name] for name in fold.valid})} ({len(fold.valid)})" for fold in folds]
    return f"{count} folds then validate on {', '.join(sizes)} groups (images)"


def _columns(source: Path) -> Iterator[str]:
    """Yield the columns of a data set's table that may name groups: a few values, each for several images."""
    table = source / "manifest.csv" if source.is_dir() else source
    if table.suffix.lower() != ".csv" or not table.is_file():
        return
    rows = read_rows(table)
    for name in rows[0]:
        values = {row[name] for row in rows} - {""}
        if _COLUMN_WORDS.search(name) and 2 <= len(values) <= len(rows) / 2:
            yield f"'{name}'"
