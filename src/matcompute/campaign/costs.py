"""Estimated work of a stage: evaluations of its task times the cost of one evaluation of its calculator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from matcompute.campaign.adapters import (
    calculator_adapter,
    is_per_structure,
    parameters_model,
    stage_parameters,
)
from matcompute.campaign.batches import MAX_BATCH_SIZE

if TYPE_CHECKING:
    from matcompute.campaign.model import Stage

__all__ = ["batch_limit", "structure_costs"]

#: Results of a batch at most: the node program and the merge hold a batch's in memory.
_BATCH_BYTES = 256e6


def structure_costs(stage: Stage, n_sites: np.ndarray) -> np.ndarray:
    """Return the estimated work of structures in a compute stage, in core-seconds.

    Parameters
    ----------
    stage
        A compute stage.
    n_sites
        Sites of each structure, i8[n].

    Returns
    -------
    numpy.ndarray
        f8[n].
    """
    if stage.is_gate:
        return np.zeros(len(n_sites))
    task, parameters = stage_parameters(stage)
    if stage.calculator is None:
        seconds = task.seconds(parameters, np.asarray(n_sites))
        return np.broadcast_to(np.asarray(seconds, dtype=float), (len(n_sites),)).copy()
    evaluations = float(task.evaluations(parameters))
    adapter = calculator_adapter(stage.calculator.name)
    sites = np.asarray(n_sites, dtype=float)
    if is_per_structure(stage):
        own = parameters_model(adapter).model_validate(stage.calculator.parameters)
        one = adapter.evaluation_cost(sites, own)
    else:
        one = adapter.evaluation_cost(sites)
    return np.broadcast_to(np.asarray(one, dtype=float) * evaluations, (len(n_sites),)).copy()


def batch_limit(stage: Stage, n_sites: np.ndarray) -> int:
    """Return how many structures a batch of a compute stage may hold, so that its results fit into memory."""
    if stage.is_gate or not len(n_sites):
        return MAX_BATCH_SIZE
    if is_per_structure(stage):
        return 1
    task, parameters = stage_parameters(stage)
    size = getattr(task, "result_bytes", None)  # of tasks older than this hook
    if size is None:
        return MAX_BATCH_SIZE
    each = float(size(parameters, float(np.mean(n_sites))))
    return int(np.clip(_BATCH_BYTES / max(each, 1.0), 1, MAX_BATCH_SIZE))
