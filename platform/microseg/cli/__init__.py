"""The command line; heavy imports are inside the commands, so that --help answers at once."""

from microseg.cli import datasets, export, models, results, retention, serving, studies
from microseg.cli.root import app, main

__all__ = ["app", "datasets", "export", "main", "models", "results", "retention", "serving", "studies"]
