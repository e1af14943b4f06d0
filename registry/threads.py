"""Threads that wait must not look busy: on two cores they take one from whoever has work.

NumPy's OpenBLAS has a thread per core. When it starts and after each product, such a thread turns in a loop
for 2^26 ticks of the clock (some 30 ms) before it sleeps, unless its environment says less before NumPy is
imported. Children inherit what is set here. A user's own setting wins.
"""

from __future__ import annotations

import os

_TICKS = "4"  # 2^4, the least that it takes (OpenBLAS, driver/others/blas_server.c)


def no_spinning() -> None:
    """Call before NumPy is imported."""
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", _TICKS)
