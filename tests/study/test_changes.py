"""A study goes on as it began, or says in one line what differs."""

import pytest

from microseg.config import SearchConfig
from microseg.errors import MicrosegError
from microseg.study import Request, StudyState
from microseg.study.changes import FIXED, FREE, digest, refuse_changes, refuse_data
from microseg.tracking import environment

BASE = {"space": {"model": {"name": "unet"}, "tile": {"choice": [32, 64]}}, "trials": 4}


def request(tmp_path, **changes) -> Request:
    return Request(name="first", data=tmp_path, config=SearchConfig.model_validate(BASE | changes))


def state(tmp_path, **changes) -> StudyState:
    values = {"request": request(tmp_path), "digest": "d" * 64, "code": environment.code(), "run_id": "r"}
    return StudyState.model_validate(values | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"trials": 9},
        {"budget": {"hours": 2}},
        {"replicates": 3, "finalists": 1},
        {"concurrency": 2, "gpus_per_trial": 0.5, "curves": "brief"},
    ],
)
def test_how_much_is_done_and_how_much_at_once_may_change(tmp_path, changes):
    refuse_changes(state(tmp_path), request(tmp_path, **changes), force=False)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"folds": 3}, "began with folds: 5, now 3 was given; scores would not compare"),
        ({"seed": 1}, "began with seed: 0, now 1 was given"),
        ({"against": "parameters"}, "began with against: None, now parameters was given"),
    ],
)
def test_what_a_score_means_may_not_change_even_when_forced(tmp_path, changes, said):
    for force in (False, True):
        with pytest.raises(MicrosegError, match=said):
            refuse_changes(state(tmp_path), request(tmp_path, **changes), force)


def test_another_space_is_refused_unless_forced(tmp_path):
    other = request(tmp_path, space={"model": {"name": "unet"}, "tile": {"choice": [32, 128]}})
    with pytest.raises(
        MicrosegError, match=r"another space \(digest [0-9a-f]{12}, now [0-9a-f]{12}\); leave --space out"
    ):
        refuse_changes(state(tmp_path), other, force=False)
    refuse_changes(state(tmp_path), other, force=True)


def test_other_code_is_refused_unless_forced(tmp_path):
    began = state(tmp_path, code=environment.code() | {"microseg": "0" * 12, "keras": "3.0.0"})
    with pytest.raises(
        MicrosegError, match=r"other code \(microseg 0{12}, now [0-9a-f]{12}; keras 3.0.0, now "
    ):
        refuse_changes(began, request(tmp_path), force=False)
    refuse_changes(began, request(tmp_path), force=True)


def test_other_images_are_refused_unless_forced(tmp_path):
    refuse_data(state(tmp_path), "d" * 64, force=False)
    with pytest.raises(
        MicrosegError, match=r"has changed since it began \(digest d{12}, now e{12}\); restore"
    ):
        refuse_data(state(tmp_path), "e" * 64, force=False)
    refuse_data(state(tmp_path), "e" * 64, force=True)


def test_every_field_is_free_fixed_or_in_the_digest(tmp_path):
    """A field that is added later is in the digest until somebody decides otherwise."""
    assert not set(FREE) & set(FIXED)
    assert {*FREE, *FIXED} <= set(SearchConfig.model_fields)
    one, other = request(tmp_path).config, request(tmp_path, sampler="random").config
    assert digest(one) != digest(other)


def test_the_digest_of_the_code_is_that_of_its_files(tmp_path, monkeypatch):
    import microseg

    (tmp_path / "__init__.py").write_text("")
    monkeypatch.setattr(microseg, "__file__", str(tmp_path / "__init__.py"))
    digests = set()
    for text in ("a = 1\n", "a = 2\n"):
        (tmp_path / "module.py").write_text(text)
        environment.package_hash.cache_clear()
        digests.add(environment.code()["microseg"])
    environment.package_hash.cache_clear()
    assert len(digests) == 2
