"""How far items lie from a reference set."""

from __future__ import annotations

from typing import Any

import numpy as np

from matcompute_kernels.errors import KernelInputError
from matcompute_kernels.screening.knn import knn

__all__ = ["novelty"]


def novelty(
    features: Any, reference: Any, *, k: int = 1, metric: str = "euclidean", relative: bool = False
) -> np.ndarray:
    """Return the mean distance of each item to its k nearest reference items.

    Parameters
    ----------
    features
        [N, F], the items in question.
    reference
        [R, F], what is known.
    k
        Number of reference items; 1 gives the distance to the nearest.
    metric
        ``"euclidean"``, ``"manhattan"`` or ``"cosine"`` (see :func:`~matcompute_kernels.screening.knn.knn`).
    relative
        Divide by the median of the same quantity within the reference set (each without itself): values above 1 lie
        farther out than a typical known item.

    Returns
    -------
    numpy.ndarray
        f8[N].

    Raises
    ------
    KernelInputError
        If features are no finite matrix, or the reference set is too small.
    """
    if features is None:
        raise KernelInputError("features must be a matrix of numbers, one row for each item")
    values = knn(reference, k, queries=features, metric=metric)[0].mean(axis=1)
    if relative:
        scale = float(np.median(knn(reference, k, metric=metric)[0].mean(axis=1)))
        if scale == 0.0:
            raise KernelInputError("relative novelty: most reference items are duplicates of one another")
        values = values / scale
    return values
