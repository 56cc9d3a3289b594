"""One study from data set to candidate: composes the search, the report and the model that is served."""

from microseg.study.request import Request, StudyState, folder, read_state, single, splits_file
from microseg.study.run import Outcome, prepare, resume, search

__all__ = [
    "Outcome",
    "Request",
    "StudyState",
    "folder",
    "prepare",
    "read_state",
    "resume",
    "search",
    "single",
    "splits_file",
]
