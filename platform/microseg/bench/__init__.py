"""What this machine can do with the platform, measured: `run.bench`, behind ``microseg bench``.

Nothing is imported here: what `start` measures must not be loaded by the process that measures.
"""
