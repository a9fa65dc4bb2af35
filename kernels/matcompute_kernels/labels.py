"""Names of the columns that a descriptor writes."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from matcompute_kernels import _WHERE
from matcompute_kernels.errors import KernelInputError

__all__ = ["feature_labels"]


def feature_labels(name: str, **parameters: Any) -> list[str]:
    """Return the name of each column of a descriptor.

    Parameters
    ----------
    name
        Public name of the descriptor, such as ``"soap"``.
    **parameters
        The parameters that the descriptor itself is called with (those that do not change the columns are ignored).

    Returns
    -------
    list of str
        One label per column, in the order of the columns.

    Raises
    ------
    KernelInputError
        If no descriptor has this name, or it has no labels.

    Examples
    --------
    >>> feature_labels("soap", species=["Na", "Cl"], n_max=2, l_max=0)[:3]
    ['Na-Na l=0 n=0 n=0', 'Na-Na l=0 n=0 n=1', 'Na-Na l=0 n=1 n=1']
    """
    module = _WHERE.get(name, "")
    labels = None
    if module.startswith("descriptors."):
        labels = getattr(import_module(f"matcompute_kernels.{module}"), "labels", None)
    if labels is None:
        known = ", ".join(sorted(n for n, m in _WHERE.items() if m.startswith("descriptors.")))
        raise KernelInputError(f"no feature labels for {name!r}; descriptors are {known}")
    return labels(**parameters)
