"""Neighbour lists of packed structures on a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from matcompute_kernels.batch import Batch, as_batch
from matcompute_kernels.checks import check_batch, check_dtype, check_positive
from matcompute_kernels.cuda.device import Device, default_device
from matcompute_kernels.cuda.launch import launch
from matcompute_kernels.cuda.sources import KERNELS
from matcompute_kernels.errors import KernelInputError
from matcompute_kernels.neighbors import NeighborList

__all__ = ["DevicePairs", "DeviceSites", "device_pairs", "neighbor_list", "put_sites", "site_bytes"]

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


@dataclass(frozen=True, eq=False)
class DevicePairs:
    """A full neighbour list on a device; the arrays of :class:`matcompute_kernels.NeighborList`."""

    ptr: Any
    j: Any
    shift: Any
    distance: Any
    vector: Any


def site_bytes(batch: Batch, real: np.dtype) -> np.ndarray:
    """Bytes that :func:`put_sites` takes for each structure, i8[N]."""
    per_site = 24 + 12 + 4 + 6 * real.itemsize
    return batch.n_sites * per_site + 8 + 2 * 72 + 3 * real.itemsize


def put_sites(batch: Batch, real: np.dtype, device: Device, r_cut: float) -> DeviceSites:
    """Copy a checked batch to the device and wrap its sites.

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
    owner = np.repeat(np.arange(len(batch), dtype=np.int32), batch.n_sites)
    sites = DeviceSites(
        device.empty((n_sites, 3), real),
        device.empty((n_sites, 3), real),
        device.empty((n_sites, 3), np.int32),
        device.put(owner),
        device.put(batch.ptr),
        device.put(cell),
        device.put(planes.astype(real)),
        real,
        n_sites,
    )
    launch(
        "wrap_sites",
        -(-n_sites // KERNELS["wrap_sites"].threads),
        [
            device.put(batch.positions),
            sites.owner,
            sites.cell,
            device.put(dual),
            np.int32(n_sites),
            sites.wrapped,
            sites.fraction,
            sites.wraps,
        ],
        real=real,
        device=device,
    )
    return sites


def device_pairs(
    sites: DeviceSites, r_cut: float, device: Device, *, first: int = 0, last: int | None = None
) -> DevicePairs:
    """Find the pairs of the centres ``first:last``; nothing but their number comes to the host."""
    n_centres = (sites.n_sites if last is None else last) - first
    count = device.empty(n_centres, np.int32)
    none_i, none_f = device.empty(0, np.int32), device.empty(0, sites.real)
    head = [sites.wrapped, sites.fraction, sites.wraps, sites.owner, sites.ptr, sites.cell, sites.planes]
    head += [np.float64(r_cut), np.int32(first), count]
    offsets = device.empty(0, np.int64)
    for fill in (0, 1):
        if fill:
            offsets = device.offsets(count)
            n = int(device.get(offsets[-1:])[0])
            if n > _MOST_PAIRS:
                raise KernelInputError(
                    f"{n} pairs are too many for one list; give fewer structures at a time"
                )
            tail = [device.empty(n, np.int32), device.empty((n, 3), np.int32)]
            tail += [device.empty(n, sites.real), device.empty((n, 3), sites.real)]
        else:
            tail = [none_i, none_i, none_f, none_f]
        launch(
            "find_pairs",
            n_centres,
            [*head, offsets, *tail],
            real=sites.real,
            constants={"FILL": fill},
            device=device,
        )
    return DevicePairs(offsets, *tail)


def neighbor_list(
    batch: Any, r_cut: float, *, dtype: Any = np.float64, device: Device | None = None
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
    device
        A device or the emulator; None: this process's GPU.

    Raises
    ------
    KernelInputError
        If a structure is unfit or r_cut is not positive.
    CudaError
        If CUDA cannot be used.
    """
    packed = as_batch(batch)
    check_positive(r_cut=r_cut)
    real = check_dtype(dtype)
    check_batch(packed)
    device = default_device() if device is None else device
    pairs = device_pairs(put_sites(packed, real, device, r_cut), float(r_cut), device)
    j, shift, distance, vector = (
        device.get(array) for array in (pairs.j, pairs.shift, pairs.distance, pairs.vector)
    )
    return NeighborList(device.get(pairs.ptr), j, shift, distance, vector, float(r_cut))
