"""YAML from files that anybody may have written: values only, each key once, and no larger than it looks."""

from __future__ import annotations

from typing import Any

import yaml

from microseg.errors import one_line

# Values of a document once all its aliases are written out: a manifest of a million images has fewer, while
# ten lines of ten aliases each stand for ten thousand million.
MOST = 20_000_000


class _Loader(yaml.SafeLoader):
    """Builds no objects but plain ones; PyYAML itself lets the last of two equal keys win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that is stated twice; what is merged in by ``<<`` may be overridden."""
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge" or not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' is stated twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml_text(text: str) -> Any:
    """Return the value of one YAML document.

    Parameters
    ----------
    text : str
        The document.

    Raises
    ------
    ValueError
        If it is no YAML, names a type of Python, states a key twice, is nested without end, or has aliases
        that stand for more values than the memory holds; the text is one line.
    """
    try:
        return _read(_Loader(text))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except yaml.YAMLError as error:
        raise ValueError(one_line(error)) from error


def _read(loader: _Loader) -> Any:
    node = loader.get_single_node()
    if node is None:
        return None
    if _values(node, {}) > MOST:
        raise ValueError(f"its aliases stand for more than {MOST} values")
    return loader.construct_document(node)


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """Count a node and all below it, an alias as often as it is used."""
    if not isinstance(node.value, list):
        return 1
    if id(node) not in known:
        known[id(node)] = MOST + 1  # until it is counted: a node within itself has no end
        parts = [part for entry in node.value for part in (entry if isinstance(entry, tuple) else (entry,))]
        known[id(node)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(node)]
