"""What the machine can do at most: the product of two large matrices."""

from __future__ import annotations

import time

from keras import ops, random

from microseg.bench.turns import Way

SIDES = (1024, 2048, 4096, 8192)
LONG = 0.25  # seconds that a product lasts, at least, on a machine for which the largest is not too small


def product(dtype: str) -> tuple[Way, float]:
    """Return a way to multiply two square matrices, and its operations, 2 n^3.

    Parameters
    ----------
    dtype : str
        Of both matrices, such as ``bfloat16``.
    """
    for side in SIDES:
        way = _product(side, dtype)
        way()
        if way() >= LONG:
            break
    return way, 2.0 * side**3


def _product(side: int, dtype: str) -> Way:
    left, right = (ops.cast(random.normal((side, side), seed=seed), dtype) for seed in (0, 1))

    def way() -> float:
        start = time.perf_counter()
        # A single number is read back: accelerators compute when a value is asked for.
        float(ops.cast(ops.matmul(left, right)[0, 0], "float32"))
        return time.perf_counter() - start

    return way
