"""One study from data set to candidate: composes the search, the report and the model that is served."""

from microseg.study.conclusion import Outcome
from microseg.study.request import (
    Prepared,
    Request,
    StudyState,
    folder,
    read_state,
    single,
    splits_file,
    state_file,
)
from microseg.study.run import describe, divide, prepare, resume, search

__all__ = [
    "Outcome",
    "Prepared",
    "Request",
    "StudyState",
    "describe",
    "divide",
    "folder",
    "prepare",
    "read_state",
    "resume",
    "search",
    "single",
    "splits_file",
    "state_file",
]
