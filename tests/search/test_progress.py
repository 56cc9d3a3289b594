"""The progress line: what a person wants to know, and nothing where no person looks."""

import io
from types import SimpleNamespace

from rich.console import Console

from microseg.search.progress import ErrorText, ProgressLine


def result(number: int, fold: int, epoch: int, **more: object) -> dict:
    return {"number": number, "fold": fold, "epoch": epoch, "objective": 0.5, **more}


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120)


def test_it_says_trial_fold_epoch_best_and_time_left():
    with ProgressLine(total=8, finished=2, folds=3, mode="max", console=terminal()) as line:
        assert line._line(result(2, 0, 4)) == "trial 3/8  fold 1/3  epoch 4"
        for number, score in ((2, 0.7), (3, 0.9), (4, 0.8)):
            done = result(number, 2, 9, state="completed") | {"objective": score}
            line.on_trial_complete(0, [], SimpleNamespace(last_result=done))
        line.on_trial_error(0, [], SimpleNamespace(last_result=None))
        line.on_trial_complete(0, [], SimpleNamespace(last_result=result(6, 0, 1)))  # pruned
        text = line._line(result(7, 1, 2))
    assert text.startswith("trial 8/8  fold 2/3  epoch 2  best 0.900 (trial-003)  about 0 s left")


def test_it_is_drawn_on_a_terminal_and_silent_elsewhere():
    for forced in (True, False):
        console = Console(file=io.StringIO(), force_terminal=forced, width=120)
        with ProgressLine(1, 0, 1, "max", console) as line:
            line.on_trial_result(0, [], None, result(0, 0, 1))
            if line._status:
                line._status._live.refresh()
        assert bool(console.file.getvalue()) is forced


def test_the_last_line_of_an_error_is_handed_on():
    heard = []
    error = "Traceback (most recent call last):\n  File x\nValueError: no such thing\n"
    trial = SimpleNamespace(config={"trial": 1}, get_error=lambda: error)
    ErrorText(lambda settings, text: heard.append((settings, text))).on_trial_error(0, [], trial)
    assert heard == [({"trial": 1}, "ValueError: no such thing")]
