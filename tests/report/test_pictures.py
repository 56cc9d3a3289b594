"""The example pictures and the registry's decisions, as a page shows them."""

import base64
import json

import numpy as np
import pytest
from PIL import Image

from microseg.report import page, view


@pytest.fixture(scope="module")
def decided(client, start):
    """A study whose model met Otsu's threshold, and whose second one a champion."""
    study = start("decided", folds=2)
    study.trial("trial-000", "completed", "all folds", (0.8, 0.9), 1)
    met = {"name": "cells", "metric": "dice", "images": 40, "level": 0.025, "use": 1}
    beaten = {
        "version": 1,
        "champion": None,
        "estimate": 0.31,
        "low": 0.2,
        "groups": 8,
        "outcome": "promoted",
    }
    unclear = {
        "version": 2,
        "champion": 1,
        "estimate": -0.01,
        "low": None,
        "groups": 4,
        "outcome": "undecided",
    }
    groups = [{"group": name, "challenger": value} for name, value in (("a", 0.9), ("b", 0.8))]
    for decision, when in ((unclear, "2026-02"), (beaten, "2026-01")):
        place = f"decisions/cells-{decision['version']}/decision-1"
        document = {"decision": met | decision | {"when": when}, "groups": groups, "images": []}
        client.log_dict(study.parent, document, f"{place}.json")
        client.log_text(study.parent, "<html>", f"{place}.html")
    return study


def test_only_the_hold_out_is_called_unbiased(client, decided):
    text = page(client, view(client, decided.read()))
    first = text.index(
        "version 1 of model cells has dice 0.8500 on 40 images that no search has seen (mean over 8 groups, use 1 of "
        "this hold-out), +0.3100 against Otsu&#39;s threshold (lower bound +0.2000, one-sided at 0.025): promoted."
    )
    second = text.index("\N{MINUS SIGN}0.0100 against version 1: cannot be decided with 4 groups.")
    assert first < second
    assert text.count("Hold-out, unbiased:") == 2 and "No hold-out figure exists yet" not in text


def test_the_figure_of_a_network_that_nobody_knows_is_not_called_unbiased(client, start):
    study = start("old.h5", folds=2, **{"microseg.origin": "network"})
    study.trial("trial-000", "completed", "imported", (0.8, 0.9), 1)
    met = {"name": "old", "version": 1, "champion": None, "metric": "dice", "images": 40, "groups": 8}
    met |= {"level": 0.025, "use": 1, "estimate": 0.3, "low": -0.2, "outcome": "kept", "when": "2026-01"}
    met |= {"notes": ["What version 1 was trained on is not known"]}
    document = {"decision": met, "groups": [{"group": "a", "challenger": 0.9}], "images": []}
    client.log_dict(study.parent, document, "decisions/old-1/decision-1.json")
    text = page(client, view(client, study.read()))
    assert "<strong>Hold-out:</strong> version 1 of model old" in text
    assert ": not promoted. What version 1 was trained on is not known.</p>" in text
    assert "perhaps on these very images" in text
    assert "selection scores" not in text and "unbiased:" not in text and "out of fold" not in text


def test_a_table_of_results_has_no_network_to_promote(client, start):
    study = start("a table", folds=2, **{"microseg.origin": "table"})
    study.trial("trial-000", "completed", "imported", (0.8, 0.9), 1)
    text = page(client, view(client, study.read()))
    assert "No hold-out figure exists.</p>" in text and "microseg promote" not in text
    assert "taken from a table" in text and "selection scores" in text and "early stopping" not in text


def test_without_a_decision_it_is_said_that_there_is_no_hold_out_figure(client, filled):
    text = page(client, view(client, filled.read()))
    assert "No hold-out figure exists yet" in text and "unbiased:" not in text


def test_pictures_are_inside_the_page_with_what_they_show(client, decided, tmp_path):
    Image.fromarray(np.full((4, 5, 3), 7, np.uint8)).save(tmp_path / "worst-0.jpg")
    one = {"kind": "worst", "fold": 1, "image": "cell <3>", "dice": 0.4321, "file": "worst-0.jpg"}
    (tmp_path / "examples.json").write_text(json.dumps({"examples": [one]}))
    client.log_artifacts(decided.parent, str(tmp_path), "examples")
    text = page(client, view(client, decided.read()))
    assert "cell &lt;3&gt;, fold 2, Dice 0.432" in text
    assert base64.b64encode((tmp_path / "worst-0.jpg").read_bytes()).decode() in text
