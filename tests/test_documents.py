"""YAML files that attack whoever reads them: one line each, at once."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from microseg.config import read_yaml
from microseg.documents import MOST, read_yaml_text
from microseg.errors import MicrosegError

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
HOSTILE = {
    "a thousand million laughs": (LAUGHS, f"aliases stand for more than {MOST} values"),
    "keys of keys": ("{{{" + "? " * 2000 + "x", ""),
    "a list in itself": ("&a [*a]", "aliases stand for more than"),
    "a mapping in itself": ("&a {b: *a}", "aliases stand for more than"),
    "deep lists": ("[" * 500, "nested too deeply"),
    "deep mappings": ("{a: " * 500, "nested too deeply"),
    "an object of Python": ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
    "a name of Python": ("!!python/name:os.system ''", "could not determine a constructor"),
    "a module of Python": ("!!python/module:os ''", "could not determine a constructor"),
    "a number of 100,000 digits": ("a: " + "9" * 100_000, "Exceeds the limit"),
    "a day that is none": ("a: 2026-99-99", "month must be in 1..12"),
    "a key twice": ("trials: 3\nfolds: 5\ntrials: 300\n", "the key 'trials' is stated twice"),
    "a key twice, below": ("space: {tile: 64, tile: 128}", "the key 'tile' is stated twice"),
    "two documents": ("a: 1\n---\nb: 2\n", "expected a single document"),
    "an unknown alias": ("a: *b", "undefined alias"),
    "no text": ("a: \x00", "special characters are not allowed"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_document_is_refused_in_one_line(tmp_path, name):
    text, reason = HOSTILE[name]
    path = tmp_path / "hostile.yaml"
    path.write_text(text)
    with pytest.raises(MicrosegError) as caught:
        read_yaml(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: not valid YAML: ") and reason in said
    assert "\n" not in said and len(said) < 1000


def test_aliases_and_merged_mappings_mean_what_they_did():
    text = "base: &base {a: 1, b: [2, 3]}\nother: {<<: *base, a: 4}\nsame: *base\n"
    assert read_yaml_text(text) == yaml.safe_load(text)
    assert read_yaml_text("") is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("abc: -#", max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=25, deadline=None)
@given(VALUES)
def test_every_value_is_read_as_it_was_written(value):
    assert read_yaml_text(yaml.safe_dump(value)) == value
