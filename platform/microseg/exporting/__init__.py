"""A registered model for other programs: one network in their format, and what they must know of it."""

from microseg.exporting.formats import FORMATS, Exported, export
from microseg.exporting.source import Source

__all__ = ["FORMATS", "Exported", "Source", "export"]
