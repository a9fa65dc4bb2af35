"""Many-body tensor representations of degree 2 on a device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from matcompute_kernels.batch import Batch
from matcompute_kernels.cuda.device import Device, chosen_device
from matcompute_kernels.cuda.launch import launch
from matcompute_kernels.cuda.neighbors import chosen_method, device_pairs, pair_bytes, put_sites, site_bytes
from matcompute_kernels.cuda.pipeline import run_chunks
from matcompute_kernels.cuda.planner import plan_chunks
from matcompute_kernels.cuda.sources import KERNELS
from matcompute_kernels.descriptors.broadening import Broadening
from matcompute_kernels.descriptors.many_body import Weighting
from matcompute_kernels.errors import KernelInputError

__all__ = ["MOST_BINS", "mbtr", "pair_spectra"]

#: Bins of a spectrum: tiles of them are the second axis of a grid.
MOST_BINS = 8_000_000


def mbtr(
    batch: Any,
    species: Iterable[int | str],
    geometry: str | Mapping[str, Any] = "inverse_distance",
    grid: Mapping[str, Any] | None = None,
    weighting: str | Mapping[str, Any] | None = None,
    *,
    dtype: Any = np.float64,
    backend: str = "auto",
    device: Device | None = None,
    **options: Any,
) -> Any:
    """MBTR of degree k = 2; definitions, parameters and result of :func:`matcompute_kernels.mbtr`.

    ``dtype`` is also the type of the arithmetic; sums are in float64. ``backend`` and ``device`` as in
    :func:`matcompute_kernels.cuda.rdf`.

    Parameters
    ----------
    options
        ``normalization``, ``normalize_gaussians``, ``periodic`` and ``sparse``.

    Raises
    ------
    KernelInputError
        If a structure is unfit, a parameter is wrong, or the geometry function is not of two atoms.
    CudaError
        If CUDA is asked for and cannot be used.
    """
    from matcompute_kernels.descriptors.mbtr import spectra

    chosen = chosen_device(backend, device)
    unknown = options.keys() - {"normalization", "normalize_gaussians", "periodic", "sparse"}
    if unknown:
        raise KernelInputError(f"mbtr on a GPU does not take {', '.join(sorted(unknown))}")
    return spectra(batch, species, geometry, grid, weighting, dtype=dtype, device=chosen, **options)


def pair_spectra(
    batch: Batch,
    element: np.ndarray,
    rows: np.ndarray,
    geometry: int,
    weights: Weighting,
    r_cut: float,
    broadening: Broadening,
    real: np.dtype,
    device: Device,
) -> np.ndarray:
    """Return the spectra of pairs of elements, f8[B, n].

    Parameters
    ----------
    batch, element
        Checked structures and the element number of each site, [M].
    rows
        Structure, lower and higher element of each spectrum, i4[B, 3], by rising structure.
    geometry
        0: distance, 1: inverse distance.
    weights, r_cut
        Weighting of a pair, and how far pairs reach in Å.
    broadening
        Bins.
    real
        Type of the arithmetic.

    Raises
    ------
    KernelInputError
        If there are too many bins, or one structure does not fit into the device.
    """
    n = broadening.n
    if n > MOST_BINS:
        raise KernelInputError(f"{n} bins are too many for a GPU (at most {MOST_BINS}); use backend='numba'")
    start_of = np.searchsorted(rows[:, 0], np.arange(len(batch) + 1))
    kinds = element.astype(np.int32)
    way = chosen_method(batch, r_cut)
    sizes = site_bytes(batch, real, way) + pair_bytes(batch, r_cut, real) + 4 * batch.n_sites + 8
    sizes = sizes + np.diff(start_of) * (12 + n * real.itemsize)
    out = np.zeros((len(rows), n))
    code = {"unity": 0, "exp": 1, "inverse_square": 2}[weights.function]
    low, width, scale = broadening.numbers[4:7]

    def start(first: int, last: int) -> Callable[[], None]:
        a, b = int(batch.ptr[first]), int(batch.ptr[last])
        part, here = batch[first:last], slice(int(start_of[first]), int(start_of[last]))
        pairs = device_pairs(put_sites(part, real, device, r_cut, way), r_cut, device)
        own = rows[here] - np.array([first, 0, 0], np.int32)
        values = device.empty((len(own), n), real)
        launch(
            "pair_spectra",
            (len(own), -(-n // (KERNELS["pair_spectra"].threads - 1))),
            [
                *(device.put(own), device.put(part.ptr), pairs.ptr, pairs.j, pairs.distance),
                *(device.put(kinds[a:b]), np.float64(weights.scale), np.float64(weights.longest)),
                *(np.int32(n), np.float64(low), np.float64(width), np.float64(scale), values),
            ],
            real=real,
            constants={"GEOMETRY": geometry, "WEIGHT": code},
            device=device,
        )

        def fetch() -> None:
            out[here] = device.get(values)

        return fetch

    run_chunks(plan_chunks(sizes, device.free_bytes()), device, start)
    return out
