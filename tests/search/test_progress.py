"""The progress line: what a person wants to know, a forecast everywhere, the line only on a terminal."""

import io
import pickle
from types import SimpleNamespace

import pytest
from rich.console import Console

from microseg.config import SearchConfig
from microseg.search import incidents
from microseg.search.job import Job
from microseg.search.progress import Failures, ProgressLine

JOB = Job.model_construct(folds=(None,) * 3, epochs=9)


def line(console, trials=8, finished=2, gpu_hours=0.0, spent=None) -> ProgressLine:
    spending = SimpleNamespace(note=lambda: {"hours": 0.5, "gpu_hours": gpu_hours}, exhausted=lambda: spent)
    return ProgressLine(SearchConfig(space={}, trials=trials), finished, JOB, spending, console)


def result(number: int, fold: int, epoch: int, **more: object) -> dict:
    told = {"name": f"trial-{number:03d}", "fold": fold, "epoch": epoch, "objective": 0.5}
    return told | {"time_total_s": 10.0, "replayed": False} | more


def terminal(forced=True) -> Console:
    return Console(file=io.StringIO(), force_terminal=forced, width=120)


def test_it_says_trial_fold_epoch_best_and_time_left():
    with line(terminal()) as progress:
        progress.on_trial_result(0, [], None, result(2, 0, 4))
        text = progress._line(result(2, 0, 4)).plain
        assert text.startswith("2 of 8 done, at most ") and text.endswith(" left  trial-002 fold 1/3 epoch 4")
        for number, score in ((2, 0.7), (3, 0.9), (4, 0.8)):
            done = result(number, 2, 9, state="completed") | {"objective": score}
            progress.on_trial_complete(0, [], SimpleNamespace(last_result=done))
        progress.on_trial_error(0, [], SimpleNamespace(last_result=None))
        progress.on_trial_complete(0, [], SimpleNamespace(last_result=result(6, 0, 1)))  # pruned
        text = progress._line(result(7, 1, 2)).plain
    assert text.startswith("7 of 8 done, about ")
    assert text.endswith(" left  trial-007 fold 2/3 epoch 2  best 0.900 (trial-003)")


def test_a_narrow_terminal_cuts_the_line():
    console = Console(file=io.StringIO(), force_terminal=True, width=40, color_system=None)
    progress = line(console)
    progress.on_trial_result(0, [], None, result(0, 0, 1))
    console.print(progress._status.renderable)
    (text,) = console.file.getvalue().splitlines()
    assert "2 of 8 done" in text and text.endswith("…") and len(text) == 40


@pytest.mark.parametrize("forced", [True, False])
def test_the_line_is_drawn_on_a_terminal_only(forced):
    console = terminal(forced)
    with line(console) as progress:
        progress.on_trial_result(0, [], None, result(0, 0, 1))
        if progress._status:
            progress._status._live.refresh()
    assert bool(console.file.getvalue()) is forced


def test_a_forecast_is_printed_and_refreshed_everywhere():
    console = terminal(forced=False)
    with line(console, trials=8, finished=0, gpu_hours=0.25) as progress:
        for epoch in (1, 2, 3):
            progress.on_trial_result(0, [], None, result(0, 0, epoch))
        for number in range(8):
            progress.on_trial_complete(0, [], SimpleNamespace(last_result=result(number, 0, 9)))
    said = console.file.getvalue().splitlines()
    assert [text.split(" done")[0] for text in said] == ["0 of 8", "1 of 8", "2 of 8", "4 of 8"]
    assert "at most" in said[0] and all("in 30 min, about" in text for text in said[1:])
    assert all(text.endswith("to go (0.25 GPU-hours so far)") for text in said)


def test_a_trial_that_the_budget_interrupts_is_not_done():
    console = terminal(forced=False)
    progress = line(console, spent="the budget of 1 hours is spent")
    progress.on_trial_complete(0, [], SimpleNamespace(last_result=result(2, 0, 4)))
    assert progress._left() == 6 and console.file.getvalue() == ""


def test_the_first_forecast_is_an_upper_bound(monkeypatch):
    """With several trials at once the time is shared already, and a carried curve reports no epochs."""
    now = [100.0]
    monkeypatch.setattr("microseg.search.progress.time.monotonic", lambda: now[0])
    progress = line(terminal(forced=False), trials=4, finished=0)
    for _ in range(50):
        progress.on_trial_result(0, [], None, result(0, 0, 1))
        progress.on_trial_result(0, [], None, result(1, 0, 1))
    now[0] += 10.0  # 20 s for two epochs of two trials
    assert progress.forecast() == "at most 18 min"  # 4 trials x 3 folds x 9 epochs, 10 s each


def test_epochs_of_an_earlier_run_say_nothing_of_the_pace(monkeypatch):
    """A resumed trial reports them all within a second: the forecast was a fiftieth of the truth."""
    now = [100.0]
    monkeypatch.setattr("microseg.search.progress.time.monotonic", lambda: now[0])
    console = terminal(forced=False)
    progress = line(console, trials=4, finished=0)
    for fold in (0, 1):
        for epoch in range(1, 10):
            progress.on_trial_result(0, [], None, result(0, fold, epoch, replayed=True))
    assert not console.file.getvalue()
    progress.on_trial_result(0, [], None, result(0, 2, 1))
    assert progress.forecast() == "at most 18 min"  # 4 trials x 3 folds x 9 epochs, 10 s each


def test_the_time_left_falls_while_a_trial_trains(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("microseg.search.progress.time.monotonic", lambda: now[0])
    progress = line(terminal(forced=False), trials=4, finished=0)
    progress.on_trial_result(0, [], None, result(0, 0, 1) | {"time_total_s": 0.0})
    now[0] += 40.0
    progress.on_trial_complete(0, [], SimpleNamespace(last_result=result(0, 2, 9)))
    said = []
    for seconds in (0, 31, 500):  # the second trial takes longer than the first, and is but one
        now[0] = 140.0 + seconds
        said.append(progress.forecast())
    assert said == ["about 2 min", "about 89 s", "about 80 s"]


def test_why_an_attempt_failed_is_kept_for_the_next_and_handed_on_at_last(tmp_path):
    heard = []
    failures = Failures(
        JOB.model_copy(update={"workdir": tmp_path}), lambda settings, text: heard.append(text)
    )
    settings = {"trial": {"name": "trial-001"}, "config": {"accumulation": 2}}
    kept, text = tmp_path / "error.pkl", tmp_path / "error.txt"
    trial = SimpleNamespace(
        last_result={}, config=settings, pickled_error_file=str(kept), error_file=str(text)
    )
    kept.write_bytes(pickle.dumps(ValueError("no such thing")))
    failures.on_trial_recover(0, [], trial)
    text.write_text("Failure # 1 (occurred now)\nold\nFailure # 2 (occurred now)\nno room\n")
    failures.on_trial_recover(0, [], trial)  # of errors that Ray does not know it keeps the text only
    assert incidents.read(tmp_path / "trial-001") == [
        ("failed", "ValueError: no such thing", 2),
        ("failed", "RuntimeError: no room", 2),
    ]
    kept.write_bytes(pickle.dumps(ValueError("nor that")))
    failures.on_trial_error(0, [], trial)
    assert heard == ["ValueError: nor that"]
