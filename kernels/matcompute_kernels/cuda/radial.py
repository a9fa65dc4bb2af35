"""Radial distribution functions on a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from matcompute_kernels.batch import as_batch
from matcompute_kernels.checks import check_batch, check_dtype
from matcompute_kernels.cuda.device import Device, chosen_device
from matcompute_kernels.cuda.launch import launch
from matcompute_kernels.cuda.neighbors import chosen_method, put_sites, site_bytes
from matcompute_kernels.cuda.pipeline import run_chunks
from matcompute_kernels.cuda.planner import plan_chunks
from matcompute_kernels.descriptors.pair_histogram import (
    TOLERANCE,
    bin_edges,
    check_volumes,
    shell_volumes,
)
from matcompute_kernels.errors import KernelInputError

__all__ = ["rdf"]

#: Bins of a block's shared memory (32 kB of the 48 kB that every device has).
MOST_BINS = 8192


def rdf(
    batch: Any,
    r_cut: float = 20.0,
    bin_size: float = 0.1,
    *,
    per_atom: bool = False,
    dtype: Any = np.float64,
    backend: str = "auto",
    device: Device | None = None,
) -> np.ndarray:
    """Radial distribution function; definition and parameters of :func:`matcompute_kernels.rdf`.

    Parameters
    ----------
    dtype
        float64 or float32 of the arithmetic and the result. In float32 a distance that is within about 1e-6 of the
        cell's size of an edge may count in the bin on the other side.
    backend
        ``"cuda"``, ``"numba"`` or ``"auto"``.
    device
        A device or the emulator; None: by ``backend``.

    Returns
    -------
    ndarray
        f[N, B].

    Raises
    ------
    KernelInputError
        If a structure is unfit or has no volume, or a parameter is wrong.
    CudaError
        If CUDA is asked for and cannot be used.
    """
    chosen = chosen_device(backend, device)
    if chosen is None:
        from matcompute_kernels.descriptors.rdf import rdf as on_cpu

        return on_cpu(batch, r_cut, bin_size, per_atom=per_atom, dtype=dtype)
    edges = bin_edges(r_cut, bin_size)
    real = check_dtype(dtype)
    packed = as_batch(batch)
    check_batch(packed)
    volumes = check_volumes(packed)
    bins = len(edges) - 1
    if bins > MOST_BINS:
        raise KernelInputError(
            f"{bins} bins are too many for a GPU (at most {MOST_BINS}); use backend='numba'"
        )
    out = np.zeros((len(packed), bins))
    way = chosen_method(packed, float(r_cut))
    sizes = site_bytes(packed, real, way) + 4 * bins
    plan = plan_chunks(sizes, chosen.free_bytes(), fixed=2 * edges.nbytes)  # one for each buffer

    def start(first: int, last: int) -> Callable[[], None]:
        # The tolerance belongs to the reach: a distance just below it is at the last edge.
        sites = put_sites(packed[first:last], real, chosen, r_cut + 2 * TOLERANCE, way)
        counts = chosen.zeros((last - first, bins), np.uint32)
        if sites.cells is None:
            head = [sites.wrapped, sites.fraction, sites.owner, sites.ptr, sites.cell, sites.planes]
        else:
            c = sites.cells
            head = [sites.wrapped, c.sorted, c.site, c.bin, c.start, c.first, c.grid, sites.owner, sites.cell]
        launch(
            "count_pairs" if sites.cells is None else "count_near",
            sites.n_sites,
            [*head, np.float64(r_cut), np.float64(TOLERANCE), chosen.put(edges), counts],
            real=real,
            constants={"BINS": bins},
            device=chosen,
        )

        def fetch() -> None:
            out[first:last] = chosen.get(counts)

        return fetch

    run_chunks(plan, chosen, start)
    out /= shell_volumes(edges)
    out /= (packed.n_sites / volumes)[:, None]
    if per_atom:
        out /= packed.n_sites[:, None]
    return out.astype(real, copy=False)
