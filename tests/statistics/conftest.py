"""The published table, and figures that tests show."""

import os
import sys
from pathlib import Path

import pandas as pd
import pytest


@pytest.fixture(scope="session")
def results(project):
    """Return the results of 44 published configurations on 5 folds; without the file its tests fail."""
    shared = Path(os.environ.get("MICROSEG_SHARED", project.parent / "shared"))
    table = pd.read_csv(shared / "reference" / "afm_cv_results.csv")
    assert len(table) == 44
    return table


@pytest.fixture(scope="session")
def published(results):
    """Return their fold scores, a row for each configuration."""
    return [tuple(row) for row in results[[f"fold{k}" for k in range(1, 6)]].to_numpy().tolist()]


@pytest.fixture
def say(capsys):
    """Return a function that shows a line of measured figures, also of a test that passes."""

    def line(text):
        with capsys.disabled():
            sys.stdout.write(f"\n{text}\n")

    return line
