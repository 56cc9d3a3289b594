"""The front of a model server: follows an alias of the registry, limits requests, trims errors, counts.

``mlflow models serve`` resolves an alias once, has no limit of size, and answers mistakes with stack traces.
"""

from microseg.serving.front.options import FrontOptions
from microseg.serving.front.running import run, serve

__all__ = ["FrontOptions", "run", "serve"]
