"""The command line; heavy imports are inside the commands, so that --help answers at once."""

from microseg.cli import datasets, export, machine, models, results, retention, serving, studies
from microseg.cli.root import app, main

__all__ = [
    "app",
    "datasets",
    "export",
    "machine",
    "main",
    "models",
    "results",
    "retention",
    "serving",
    "studies",
]
