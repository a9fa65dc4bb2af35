"""Estimated work of a stage: evaluations of its task times the cost of one evaluation of its calculator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from matcompute.campaign.adapters import calculator_adapter, parameters_model, task_adapter

if TYPE_CHECKING:
    from matcompute.campaign.model import Stage

__all__ = ["structure_costs"]


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
    if stage.is_gate or stage.calculator is None:
        return np.zeros(len(n_sites))
    task = task_adapter(stage.kind)
    evaluations = float(task.evaluations(parameters_model(task).model_validate(stage.parameters)))
    one = calculator_adapter(stage.calculator.name).evaluation_cost(np.asarray(n_sites, dtype=float))
    return np.broadcast_to(np.asarray(one, dtype=float) * evaluations, (len(n_sites),)).copy()
