"""The published table, and figures that tests show."""

import sys

import pytest
from replay import results as published_results
from replay import scores_of


@pytest.fixture(scope="session")
def results():
    """Return the results of 44 published configurations on 5 folds; without the file its tests fail."""
    table = published_results()
    assert len(table) == 44
    return table


@pytest.fixture(scope="session")
def published(results):
    """Return their fold scores, a row for each configuration."""
    return scores_of(results)


@pytest.fixture
def say(capsys):
    """Return a function that shows a line of measured figures, also of a test that passes."""

    def line(text):
        with capsys.disabled():
            sys.stdout.write(f"\n{text}\n")

    return line
