"""The command line; heavy imports are inside the commands, so that --help answers at once."""

from microseg.cli import datasets, models, results, studies
from microseg.cli.root import app, main

__all__ = ["app", "datasets", "main", "models", "results", "studies"]
