"""Networks that were trained elsewhere: into the registry, and into the comparison with our own."""

from microseg.importing.run import IMPORTED, OPTIMISTIC, Imported, ImportRequest, import_model

__all__ = ["IMPORTED", "OPTIMISTIC", "ImportRequest", "Imported", "import_model"]
