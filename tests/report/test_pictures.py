"""The example pictures and the registry's decisions, as a page shows them."""

import base64
import json

import numpy as np
import pytest
from PIL import Image

from microseg.report import page, view


@pytest.fixture(scope="module")
def decided(client, start):
    """A study with example pictures, and a model that met Otsu's threshold and then a champion."""
    study = start("decided", folds=2)
    study.trial("trial-000", "completed", "all folds", (0.8, 0.9), 1)
    client.create_registered_model("cells")
    version = client.create_model_version("cells", "somewhere", run_id=study.parent)
    met = {"name": "cells", "version": 1, "metric": "dice", "images": 40, "level": 0.05}
    beaten = met | {"champion": None, "estimate": 0.31, "low": 0.2, "groups": 8, "outcome": "promoted"}
    unclear = met | {"champion": 3, "estimate": -0.01, "low": None, "groups": 4, "outcome": "undecided"}
    for name, decision, when in (("b", unclear, "2026-02"), ("a", beaten, "2026-01")):
        text = json.dumps(decision | {"when": when})
        client.set_model_version_tag("cells", version.version, f"microseg.decision.{name}", text)
    client.set_model_version_tag("cells", version.version, "microseg.decision", "undecided")
    return study


def test_only_the_hold_out_is_called_unbiased(client, decided):
    text = page(client, view(client, decided.read()))
    first = text.index(
        "Version 1 of model cells against Otsu&#39;s threshold on 40 images of 8 groups that no search has seen: "
        "+0.3100 in dice, mean over groups, lower bound +0.2000 (one-sided, at 0.05); promoted."
    )
    second = text.index(
        "\N{MINUS SIGN}0.0100 in dice, mean over groups; undecided, that cannot be decided with 4 groups."
    )
    assert first < second
    assert text.count("Hold-out, unbiased:") == 2 and "No hold-out figure exists yet" not in text


def test_without_a_decision_it_is_said_that_there_is_no_hold_out_figure(client, filled):
    text = page(client, view(client, filled.read()))
    assert "No hold-out figure exists yet" in text and "unbiased:" not in text


def test_pictures_are_inside_the_page_with_what_they_show(client, decided, tmp_path):
    Image.fromarray(np.full((4, 5, 3), 7, np.uint8)).save(tmp_path / "worst-0.png")
    one = {"kind": "worst", "fold": 1, "image": "cell <3>", "dice": 0.4321, "file": "worst-0.png"}
    (tmp_path / "examples.json").write_text(json.dumps({"examples": [one]}))
    client.log_artifacts(decided.parent, str(tmp_path), "examples")
    text = page(client, view(client, decided.read()))
    assert "cell &lt;3&gt;, fold 2, Dice 0.432" in text
    assert base64.b64encode((tmp_path / "worst-0.png").read_bytes()).decode() in text
