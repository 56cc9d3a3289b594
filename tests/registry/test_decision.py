"""A decision: what the gate says of a table of scores, in numbers, words and a picture."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from microseg.registry import ImageScore, Meeting, Overlay, decide, page, sentences
from microseg.registry.decision import by_group

MEETING = Meeting(name="cells", version=3, champion=2, hold_out="f" * 64, metric="dice", least=0.005)


def scores(gain, groups=8, images=3, spread=0.01):
    """Scores whose mean over groups is exactly the gain."""
    rng = np.random.default_rng(1)
    shifts = rng.normal(0, spread, groups)
    shifts -= shifts.mean()
    return [
        ImageScore(
            image=f"{group}-{number}", group=f"session {group}", champion=0.8, challenger=0.8 + gain + shifts[group]
        )
        for group in range(groups)
        for number in range(images)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("table", "use", "outcome"),
    [
        (scores(0.03), 1, "promoted"),
        (scores(0.03, spread=0.05), 1, "kept"),
        (scores(0.003, spread=0.0001), 1, "kept"),
        (scores(0.015, spread=0.014), 1, "promoted"),
        (scores(0.015, spread=0.014), 9, "kept"),
        (scores(-0.03), 1, "kept"),
        (scores(0.3, groups=5), 1, "undecided"),
    ],
)
def test_the_outcome_follows_the_interval_the_gain_and_the_use(table, use, outcome):
    decision = decide(MEETING, table, use)
    assert decision.outcome == outcome
    assert decision.estimate == pytest.approx(np.mean([one.difference for one in table]))
    assert (decision.groups, decision.images, decision.use) == (len(by_group(table)), len(table), use)
    assert decision.version == 3 and decision.user


def test_groups_are_listed_from_the_largest_loss_on():
    differences = [one.challenger - one.champion for one in by_group(scores(0.0, spread=0.05))]
    assert differences == sorted(differences) and len(differences) == 8


@pytest.mark.parametrize(
    ("table", "champion", "said"),
    [
        (scores(0.03), 2, "cells: version 3 is better than version 2 on the hold-out"),
        (
            scores(0.0),
            2,
            "cells: version 3 is not shown to be better than version 2; version 2 stays champion",
        ),
        (scores(0.0), None, "not shown to be better than Otsu's threshold; there is still no champion"),
        (scores(0.03, groups=2), 2, "cells: cannot be decided with 2 groups; version 2 stays champion"),
    ],
)
def test_what_was_decided_is_said_in_words(table, champion, said):
    meeting = MEETING.model_copy(update={"champion": champion})
    assert said in sentences(decide(meeting, table, 1))[0]


def test_the_words_hold_the_numbers():
    decision = decide(MEETING, scores(0.03), 2)
    text = " ".join(sentences(decision))
    assert (
        "Gain in dice +0.0300, the mean over 8 groups (24 images)" in text and f"{decision.low:+.4f}" in text
    )
    assert "Use 2 of this hold-out" in text and f"{decision.resolvable:.4f}" in text
    assert "add groups" in " ".join(sentences(decide(MEETING, scores(0.03, groups=2), 1)))


def test_the_page_calls_nothing_unbiased_where_nobody_knows_what_was_trained_on():
    table = scores(0.03)
    assert "so the figures are unbiased" in page(decide(MEETING, table, 1), table, [])
    noted = MEETING.model_copy(update={"notes": ("What version 3 was trained on is not known",)})
    text = page(decide(noted, table, 1), table, [])
    assert "unbiased" not in text and "What version 3 was trained on is not known." in text


@pytest.mark.parametrize("groups", [2, 8, 90])
def test_the_page_is_whole_and_opens_offline(groups):
    table = scores(0.03, groups=groups)
    picture = np.zeros((4, 6, 3), np.uint8)
    html = page(decide(MEETING, table, 1), table, [Overlay(table[0], "Worst <for> it", picture)])
    figure = html[html.index("<svg") : html.index("</svg>") + len("</svg>")]
    assert ET.fromstring(figure) is not None
    assert html.count("<tr><td>session") == groups
    assert "Worst &lt;for&gt; it: 0-0 (session 0), 0.8000 and" in html
    assert html.count('src="data:image/png;base64,') == html.count("src=") == 1 and "<script" not in html
