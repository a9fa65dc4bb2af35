"""Neighbour lists of packed structures on a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from matcompute_kernels.batch import Batch, as_batch
from matcompute_kernels.checks import check_batch, check_dtype, check_positive
from matcompute_kernels.cuda.cells import DeviceCells, cell_bytes, cells_pay, put_cells
from matcompute_kernels.cuda.device import Device, default_device
from matcompute_kernels.cuda.launch import launch
from matcompute_kernels.cuda.pipeline import run_chunks
from matcompute_kernels.cuda.planner import plan_chunks
from matcompute_kernels.cuda.sources import KERNELS
from matcompute_kernels.errors import KernelInputError
from matcompute_kernels.neighbors import NeighborList, expected_pairs

__all__ = [
    "METHODS",
    "DevicePairs",
    "DeviceSites",
    "chosen_method",
    "device_pairs",
    "neighbor_list",
    "pair_bytes",
    "put_sites",
    "site_bytes",
]

METHODS = ("auto", "brute", "cells")

_MOST_PAIRS = 2**31 - 1


@dataclass(frozen=True, eq=False)
class DeviceSites:
    """A batch on a device: sites wrapped into their cells.

    Attributes
    ----------
    wrapped, fraction, wraps
        Wrapped positions in Å and fractional coordinates, f[M, 3]; lattice vectors taken off, i4[M, 3].
    owner, ptr, cell
        Structure of each site i4[M]; site offsets i8[N + 1]; lattice vectors f8[N, 3, 3].
    planes
        One over the distance of lattice planes in 1/Å, f[N, 3]; 0 where a vector is not periodic.
    real
        Type of f.
    cells
        The sites in bins; None: pairs are found by brute force.
    """

    wrapped: Any
    fraction: Any
    wraps: Any
    owner: Any
    ptr: Any
    cell: Any
    planes: Any
    real: np.dtype
    n_sites: int
    cells: DeviceCells | None = None


@dataclass(frozen=True, eq=False)
class DevicePairs:
    """A full neighbour list on a device; the arrays of :class:`matcompute_kernels.NeighborList`."""

    ptr: Any
    j: Any
    shift: Any
    distance: Any
    vector: Any


def chosen_method(batch: Batch, r_cut: float, method: str = "auto") -> str:
    """Return ``"brute"`` or ``"cells"``: what a batch is searched by.

    Raises
    ------
    KernelInputError
        If ``method`` is none of :data:`METHODS`.
    """
    if method not in METHODS:
        raise KernelInputError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if method == "auto":
        return "cells" if cells_pay(batch, r_cut) else "brute"
    return method


def site_bytes(batch: Batch, real: np.dtype, method: str) -> np.ndarray:
    """Bytes that :func:`put_sites` takes for each structure, i8[N]."""
    per_site = 24 + 12 + 4 + 6 * real.itemsize
    sites = batch.n_sites * per_site + 8 + 2 * 72 + 3 * real.itemsize
    return sites + cell_bytes(batch, real) if method == "cells" else sites


def pair_bytes(batch: Batch, r_cut: float, real: np.dtype, shifts: bool = False) -> np.ndarray:
    """Bytes of the pairs of each structure, estimated from its density, and half of that more, i8[N].

    The counts and offsets of the sites are in it.
    """
    each = 4 + 4 * real.itemsize + 12 * shifts
    return np.ceil(1.5 * expected_pairs(batch, r_cut)).astype(np.int64) * each + 12 * batch.n_sites + 8


def put_sites(
    batch: Batch, real: np.dtype, device: Device, r_cut: float, method: str = "brute"
) -> DeviceSites:
    """Copy a checked batch to the device, wrap its sites and, for ``"cells"``, sort them into bins.

    Raises
    ------
    KernelInputError
        If a structure has more sites and images along two vectors within ``r_cut`` than a 32-bit number counts.
    """
    cell = np.where(batch.pbc[:, :, None], batch.cell, 0.0)
    # Columns of the pseudo-inverse: dual to the periodic vectors, in the space that these span.
    dual = np.ascontiguousarray(np.linalg.pinv(cell).transpose(0, 2, 1))
    planes = np.linalg.norm(dual, axis=2)
    items = batch.n_sites * np.prod(2.0 * np.ceil(1.01 * r_cut * planes[:, 1:] + 1.0) + 3.0, axis=1)
    if items.size and items.max() > _MOST_PAIRS:
        raise KernelInputError("too many images for a GPU; give a smaller cutoff", int(np.argmax(items)))
    n_sites = len(batch.numbers)
    positions = device.put(batch.positions)
    owner = device.put(np.repeat(np.arange(len(batch), dtype=np.int32), batch.n_sites))
    vectors = device.put(cell)
    wrapped, fraction = device.empty((n_sites, 3), real), device.empty((n_sites, 3), real)
    wraps = device.empty((n_sites, 3), np.int32)
    launch(
        "wrap_sites",
        -(-n_sites // KERNELS["wrap_sites"].threads),
        [positions, owner, vectors, device.put(dual), np.int32(n_sites), wrapped, fraction, wraps],
        real=real,
        device=device,
    )
    cells = None
    if method == "cells":
        cells = put_cells(batch, r_cut, positions, owner, wraps, wrapped, device)
    ptr, lengths = device.put(batch.ptr), device.put(planes.astype(real))
    return DeviceSites(wrapped, fraction, wraps, owner, ptr, vectors, lengths, real, n_sites, cells)


def device_pairs(
    sites: DeviceSites,
    r_cut: float,
    device: Device,
    *,
    first: int = 0,
    last: int | None = None,
    shifts: bool = False,
) -> DevicePairs:
    """Find the pairs of the centres ``first:last``; nothing but their number comes to the host.

    ``shift`` is empty unless ``shifts``.
    """
    last = sites.n_sites if last is None else last
    n_centres = last - first
    count = device.empty(n_centres, np.int32)
    none_i, none_f = device.empty(0, np.int32), device.empty(0, sites.real)
    head: list[Any]
    if sites.cells is None:
        kernel, grid = "find_pairs", n_centres
        head = [sites.wrapped, sites.fraction, sites.wraps, sites.owner, sites.ptr, sites.cell, sites.planes]
        head += [np.float64(r_cut), np.int32(first), count]
    else:
        kernel, grid = "find_near", -(-n_centres * device.warp // KERNELS["find_near"].threads)
        c = sites.cells
        head = [sites.wrapped, c.sorted, c.site, c.bin, c.start, c.first, c.grid, sites.wraps, sites.owner]
        head += [sites.cell, np.float64(r_cut), np.int32(first), np.int32(last), count]
    offsets = device.empty(0, np.int64)
    for fill in (0, 2 if shifts else 1):
        if fill:
            offsets = device.offsets(count)
            n = int(device.get(offsets[-1:])[0])
            if n > _MOST_PAIRS:
                raise KernelInputError(
                    f"{n} pairs are too many for one list; give fewer structures at a time"
                )
            tail = [device.empty(n, np.int32), device.empty((n if shifts else 0, 3), np.int32)]
            tail += [device.empty(n, sites.real), device.empty((n, 3), sites.real)]
        else:
            tail = [none_i, none_i, none_f, none_f]
        launch(
            kernel,
            grid,
            [*head, offsets, *tail],
            real=sites.real,
            constants={"FILL": fill},
            device=device,
        )
    return DevicePairs(offsets, *tail)


def neighbor_list(
    batch: Any,
    r_cut: float,
    *,
    dtype: Any = np.float64,
    method: str = "auto",
    device: Device | None = None,
) -> NeighborList:
    """Find all pairs of atoms closer than a cutoff on a GPU, over periodic images.

    The full list of :func:`matcompute_kernels.neighbor_list`, in another order within a site.

    Parameters
    ----------
    batch
        Packed structures, or ASE Atoms or pymatgen Structures.
    r_cut
        Cutoff in Å.
    dtype
        Type of the arithmetic and of distances and vectors. In float32 distances are good to about 1e-6 of the cell's
        size, and a pair that close to the cutoff may be on either side.
    method
        ``"cells"``: sites are sorted into bins first; ``"brute"``: each site with all images of all; ``"auto"``: bins
        where they leave half of the candidates or less.
    device
        A device or the emulator; None: this process's GPU.

    Raises
    ------
    KernelInputError
        If a structure is unfit, does not fit into the device or r_cut is not positive.
    CudaError
        If CUDA cannot be used.
    """
    packed = as_batch(batch)
    check_positive(r_cut=r_cut)
    real = check_dtype(dtype)
    check_batch(packed)
    way = chosen_method(packed, float(r_cut), method)
    device = default_device() if device is None else device
    sizes = site_bytes(packed, real, way) + pair_bytes(packed, r_cut, real, shifts=True)
    parts: list[tuple[np.ndarray, ...]] = []

    def start(first: int, last: int) -> Callable[[], None]:
        sites = put_sites(packed[first:last], real, device, r_cut, way)
        pairs = device_pairs(sites, float(r_cut), device, shifts=True)
        before = int(packed.ptr[first])

        def fetch() -> None:
            counts = np.diff(device.get(pairs.ptr))
            j = device.get(pairs.j)
            j += before
            rest = (device.get(array) for array in (pairs.shift, pairs.distance, pairs.vector))
            parts.append((counts, j, *rest))

        return fetch

    run_chunks(plan_chunks(sizes, device.free_bytes()), device, start)
    empty = (np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros((0, 3), np.int32))
    parts.append((*empty, np.zeros(0, real), np.zeros((0, 3), real)))
    counts, j, shift, distance, vector = (np.concatenate(arrays) for arrays in zip(*parts))
    ptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return NeighborList(ptr, j, shift, distance, vector, float(r_cut))
