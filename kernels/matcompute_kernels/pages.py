"""Zeros whose memory is only taken where something is written."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from math import prod

import numpy as np

__all__ = ["lazy_zeros"]

#: Smaller arrays are better off with NumPy's huge pages: a small page costs a fifth of a huge one, threads that ask for
#: small pages get in each other's way, and that much memory is there.
_LEAST = 1 << 27


def lazy_zeros(shape: tuple[int, ...], dtype: np.dtype, fill: Callable[[], float]) -> np.ndarray:
    """Return zeros; an array that stays mostly zero takes memory by small pages, where it is written.

    NumPy asks for huge pages of 2 MB, of which a row of many species fills a few kB each: the memory, and the time in
    which the system clears it, would be that of all zeros.

    Parameters
    ----------
    shape, dtype
        Of the array.
    fill
        Tells the part of it that will be written, between 0 and 1; only asked for a large array.
    """
    size = prod(shape) * np.dtype(dtype).itemsize
    if size < _LEAST or fill() > 0.3:
        return np.zeros(shape, dtype)
    # Private: a page of a shared mapping, which is Python's choice if not told, takes the system twice as long.
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    memory = mmap.mmap(-1, size, **private)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, dtype).reshape(shape)
