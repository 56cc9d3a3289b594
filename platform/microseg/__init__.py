"""microseg: find, prove and serve the best segmentation network for your own microscopy images."""

from microseg.errors import MicrosegError

__version__ = "0.1.0"

__all__ = ["MicrosegError", "__version__"]
