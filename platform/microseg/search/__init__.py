"""Ray Tune and Optuna: proposes configurations, trains them, stops those that cannot win.

Ray reads its environment when it is imported, so it is set here, before any module of this package can:
what Tune reads below, the rest by `microseg.cluster`.
"""

import os

import microseg.cluster  # noqa: F401

# A worker would start in a folder of its own, where relative paths mean something else.
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C is an interruption, not the end of a study
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the newer output engine prints even when told to be silent
