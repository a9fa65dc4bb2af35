"""Numba and CUDA kernels on packed structures; knows no other part of matcompute."""

from __future__ import annotations

from matcompute_kernels.batch import Batch
from matcompute_kernels.structure_hash import entry_ids, structure_hash

__all__ = ["Batch", "entry_ids", "structure_hash"]
