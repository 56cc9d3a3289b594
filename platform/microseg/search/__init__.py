"""Ray Tune and Optuna: proposes configurations, trains them, stops those that cannot win.

Ray reads its environment when it is imported, so it is set here, before any module of this package can.
"""

import os

# Under `uv run` Ray would build a new environment for its workers.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
# A worker would start in a folder of its own, where relative paths mean something else.
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# A trial without a share of a GPU would see all of them, and TensorFlow would take them.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C is an interruption, not the end of a study
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the newer output engine prints even when told to be silent
