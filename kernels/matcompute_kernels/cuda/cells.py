"""Sites of packed structures sorted into bins on a device: the cell lists of large structures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from matcompute_kernels.batch import Batch
from matcompute_kernels.cell_images import turn_cell
from matcompute_kernels.compiled import njit
from matcompute_kernels.cuda.device import Device
from matcompute_kernels.cuda.launch import launch
from matcompute_kernels.cuda.sources import KERNELS

__all__ = ["DeviceCells", "Grid", "cell_bytes", "cells_pay", "make_grid", "put_cells"]

#: Threads that work side by side, for the choice of a method.
_WARP, _BLOCK = 32, 128


@dataclass(frozen=True, eq=False)
class Grid:
    """Bins along the lattice vectors of each structure, and along its open directions over the extent of its sites.

    Attributes
    ----------
    dual
        Rows d and offsets b with d · r + b the fractional coordinate along each vector, f8[N, 3, 4].
    numbers
        Bins, bins that the cutoff reaches, whether periodic, each along three vectors: i4[N, 9].
    first
        Bin 0 of each structure, i8[N + 1].
    """

    dual: np.ndarray
    numbers: np.ndarray
    first: np.ndarray


@dataclass(frozen=True, eq=False)
class DeviceCells:
    """A grid on a device with the sites in it.

    Attributes
    ----------
    grid, first
        ``Grid.numbers`` and ``Grid.first``.
    bin
        Bin of each site, i4[M].
    start
        Place of each bin's first site, i8[bins + 1].
    site, sorted
        Site at each place, i4[M], and its wrapped position, f[M, 3].
    """

    grid: Any
    first: Any
    bin: Any
    start: Any
    site: Any
    sorted: Any


def make_grid(batch: Batch, r_cut: float) -> Grid:
    """Return bins that are about a cutoff wide, no more of them than a structure has sites."""
    n = len(batch)
    cell = np.where(batch.pbc[:, :, None], batch.cell, 0.0)
    dual = np.zeros((n, 3, 4))
    dual[:, :, :3] = np.linalg.pinv(cell).transpose(0, 2, 1)
    _open_directions(batch.positions, batch.cell, batch.pbc, batch.ptr, dual)
    per_length = np.linalg.norm(dual[:, :, :3], axis=2)
    most = np.maximum(batch.n_sites, 1)
    bins = np.minimum(1.0 / (per_length * r_cut * (1.0 + 1e-8)), most[:, None]).astype(np.int64)
    bins = np.maximum(bins, 1)
    while True:
        over = np.flatnonzero(bins.prod(axis=1) > most)
        if not len(over):
            break
        widest = np.argmax(bins[over], axis=1)
        bins[over, widest] = (bins[over, widest] + 1) // 2
    # A little more than needed: the distance decides.
    reach = np.ceil(r_cut * per_length * bins * (1.0 + 1e-9) + 1e-9)
    reach = np.where(batch.pbc, reach, np.minimum(reach, bins - 1))
    numbers = np.concatenate([bins, reach, batch.pbc], axis=1).astype(np.int32)
    return Grid(dual, numbers, np.concatenate([[0], np.cumsum(bins.prod(axis=1))]))


def cells_pay(batch: Batch, r_cut: float) -> bool:
    """Return whether bins save at least half of the threads' turns that brute force takes.

    Threads of a warp take the sites of a run side by side (a run of fewer takes a turn of the whole warp). By brute
    force those of a block take each site with the images along two vectors, and loop over those along the first.
    """
    if not len(batch):
        return False
    numbers = make_grid(batch, r_cut).numbers.astype(np.float64)
    bins, reach = numbers[:, :3], numbers[:, 3:6]
    sites = batch.n_sites.astype(np.float64)
    across = np.minimum(2 * reach + 1, np.where(batch.pbc, np.inf, bins))
    runs = np.ceil(across[:, 0] / bins[:, 0]) * across[:, 1] * across[:, 2]
    candidates = sites * (across / bins).prod(axis=1)
    images = np.where(batch.pbc, 2 * np.ceil(reach / bins) + 1, 1.0)
    brute = np.maximum(sites * images[:, 1] * images[:, 2], _BLOCK) * np.maximum(1.0, 2 * reach / bins)[:, 0]
    return bool(2 * (sites * np.maximum(candidates, _WARP * runs)).sum() <= (sites * brute).sum())


def cell_bytes(batch: Batch, real: np.dtype) -> np.ndarray:
    """Bytes that :func:`put_cells` takes for each structure at most, i8[N]."""
    # Numbers of a bin (no more bins than sites) and of a site, while they are sorted; grid and dual of a structure.
    return batch.n_sites * (12 + 12 + 3 * real.itemsize) + 36 + 96 + 8 + 8


def put_cells(
    batch: Batch, r_cut: float, positions: Any, owner: Any, wraps: Any, wrapped: Any, device: Device
) -> DeviceCells:
    """Sort sites that are on the device; each site's bin has its sites in rising order."""
    grid = make_grid(batch, r_cut)
    n_sites, n_bins = len(batch.numbers), int(grid.first[-1])
    numbers, first = device.put(grid.numbers), device.put(grid.first)
    bin_, count = device.empty(n_sites, np.int32), device.zeros(n_bins, np.int32)
    real = wrapped.dtype
    blocks = -(-n_sites // KERNELS["bin_sites"].threads)
    launch(
        "bin_sites",
        blocks,
        [positions, wraps, owner, device.put(grid.dual), numbers, first, np.int32(n_sites), bin_, count],
        real=real,
        device=device,
    )
    start = device.offsets(count)
    placed, site = device.empty(n_sites, np.int32), device.empty(n_sites, np.int32)
    sorted_ = device.empty((n_sites, 3), real)
    launch("place_sites", blocks, [bin_, start, np.int32(n_sites), count, placed], real=real, device=device)
    launch(
        "sort_bins",
        blocks,
        [bin_, start, placed, wrapped, np.int32(n_sites), site, sorted_],
        real=real,
        device=device,
    )
    return DeviceCells(numbers, first, bin_, start, site, sorted_)


@njit(cache=True, nogil=True)
def _open_directions(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, ptr: np.ndarray, dual: np.ndarray
) -> None:
    """Give each direction that is not periodic a coordinate from 0 to 1 over the sites. OUTPUT: dual f8[N, 3, 4]."""
    axes, frame, tri = np.zeros(3, np.int64), np.zeros((3, 3)), np.zeros((3, 3))
    for s in range(pbc.shape[0]):
        n_periodic = turn_cell(cell[s], pbc[s], axes, frame, tri)
        for k in range(n_periodic, 3):
            low, high = np.inf, -np.inf
            for i in range(ptr[s], ptr[s + 1]):
                x = (
                    positions[i, 0] * frame[k, 0]
                    + positions[i, 1] * frame[k, 1]
                    + positions[i, 2] * frame[k, 2]
                )
                low, high = min(low, x), max(high, x)
            length = (high - low) * (1.0 + 1e-9) + 1e-6
            for c in range(3):
                dual[s, axes[k], c] = frame[k, c] / length
            dual[s, axes[k], 3] = -low / length
