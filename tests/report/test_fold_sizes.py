"""The sizes of folds, for the corrected test: stated, counted, or taken to be equal."""

import pytest

from microseg.report import view
from microseg.tracking.artifacts import find_json


def test_sizes_are_counted_where_the_folds_are_listed(client, start):
    study = start("listed", folds=2)
    folds = [
        {"index": 0, "train": list("abcd"), "valid": ["e"]},
        {"index": 1, "train": ["e"], "valid": list("abcd")},
    ]
    client.log_dict(study.parent, {"folds": folds}, "provenance.json")
    ratio = view(client, study.read()).ratio
    assert ratio.value == pytest.approx((1 / 4 + 4 / 1) / 2)
    assert ratio.source == "on average 2.5 images of a fold validate and 2.5 train"


def test_what_is_stated_with_imported_results_is_taken(client, start):
    ratio = view(client, start("stated", folds=5, **{"microseg.test_to_train": "0.3"}).read()).ratio
    assert (ratio.value, ratio.source) == (0.3, "as stated for these results")


def test_without_either_folds_are_taken_to_be_equal_and_it_is_said(client, start):
    ratio = view(client, start("unlisted", folds=5).read()).ratio
    assert ratio.value == pytest.approx(0.25) and "not known" in ratio.source


def test_one_fold_has_no_ratio(client, start):
    assert view(client, start("single", folds=1, **{"microseg.test_to_train": "0.3"}).read()).ratio is None


def test_a_file_that_is_not_there_is_none(client, start):
    study = start("files")
    client.log_dict(study.parent, {"a": 1}, "folder/there.json")
    assert find_json(client, study.parent, "folder/there.json") == {"a": 1}
    assert find_json(client, study.parent, "folder/missing.json") is None
    assert find_json(client, study.parent, "missing/there.json") is None
