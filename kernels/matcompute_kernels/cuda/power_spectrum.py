"""SOAP power spectra on a device."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from matcompute_kernels.batch import as_batch
from matcompute_kernels.checks import check_batch, check_dtype, check_positive, species_index
from matcompute_kernels.cuda.device import Device, chosen_device
from matcompute_kernels.cuda.launch import launch
from matcompute_kernels.cuda.neighbors import chosen_method, device_pairs, pair_bytes, put_sites, site_bytes
from matcompute_kernels.cuda.pipeline import run_chunks
from matcompute_kernels.cuda.planner import plan_chunks
from matcompute_kernels.errors import KernelInputError

__all__ = ["fits", "soap"]

#: Bytes of shared memory that every device gives a block.
_SHARED = 48 * 1024
_CHUNK = 8  # as in soap.cu


def soap(
    batch: Any,
    species: Iterable[int | str],
    r_cut: float,
    n_max: int,
    l_max: int,
    sigma: float = 0.5,
    convention: str = "dscribe-gto",
    average: str = "off",
    *,
    dtype: Any = np.float64,
    backend: str = "auto",
    device: Device | None = None,
) -> np.ndarray:
    """SOAP power spectra; definitions and parameters of :func:`matcompute_kernels.soap`, dense, without compression.

    Averages are taken on the device: the rows of sites are never stored. ``dtype`` is also the type of the
    arithmetic. ``backend`` and ``device`` as in :func:`matcompute_kernels.cuda.rdf`.

    Returns
    -------
    ndarray
        [sites, features], or [structures, features] for an average.

    Raises
    ------
    KernelInputError
        On bad parameters or an unfit structure, and if the coefficients of all species do not fit into a block's
        shared memory (12 species for n_max 8, l_max 6 in float64; twice as many in float32).
    CudaError
        If CUDA is asked for and cannot be used.
    """
    from matcompute_kernels.descriptors.soap_model import checked_layout
    from matcompute_kernels.descriptors.soap_radial import radial_table, reach

    chosen = chosen_device(backend, device)
    if chosen is None:
        from matcompute_kernels.descriptors.soap import soap as on_cpu

        dense = on_cpu(batch, species, r_cut, n_max, l_max, sigma, convention, average, dtype=dtype)
        assert isinstance(dense, np.ndarray)
        return dense
    packed = as_batch(batch)
    real = check_dtype(dtype)
    layout = checked_layout(species, n_max, l_max, convention, None)
    check_positive(r_cut=r_cut, sigma=sigma)
    if average not in ("off", "inner", "outer"):
        raise KernelInputError(f"average must be off, inner or outer, not {average!r}")
    check_batch(packed, layout.species.tolist())
    n_species = len(layout.names)
    if not fits(n_species, n_max, l_max, real):
        raise KernelInputError(
            f"{n_species} species with n_max={n_max} and l_max={l_max} do not fit into a block's shared memory; give "
            "only the species of these structures, float32, or backend='numba'"
        )
    far = reach(convention, r_cut, sigma)
    channel = species_index(packed, layout.species).astype(np.int32)
    table = radial_table(convention, float(r_cut), n_max, l_max, float(sigma))
    tables = _tables(table, n_max, l_max, convention, real)
    intervals = table.pieces.shape[0]
    rows = len(packed.numbers) if average == "off" else len(packed)
    out = np.empty((rows, layout.n_features), real)
    way = chosen_method(packed, far)
    sizes = site_bytes(packed, real, way) + pair_bytes(packed, far, real) + 4 * packed.n_sites + 8
    n_rows = packed.n_sites if average == "off" else np.ones(len(packed), np.int64)
    sizes = sizes + n_rows * (layout.n_features * real.itemsize + 8)
    plan = plan_chunks(sizes, chosen.free_bytes(), fixed=sum(a.nbytes for a in tables))
    pieces, centre, recurrence, l_scale, same, cross = (chosen.put(a) for a in tables)

    def start(first: int, last: int) -> Callable[[], None]:
        part = packed[first:last]
        a, b = int(packed.ptr[first]), int(packed.ptr[last])
        pairs = device_pairs(put_sites(part, real, chosen, far, way), far, chosen)
        row_ptr = np.arange(b - a + 1, dtype=np.int64) if average == "off" else part.ptr
        values = chosen.zeros((len(row_ptr) - 1, layout.n_features), real)
        launch(
            "soap",
            len(row_ptr) - 1,
            [
                *(chosen.put(row_ptr), pairs.ptr, pairs.j, pairs.distance, pairs.vector),
                *(chosen.put(channel[a:b]), pieces, np.int32(intervals), np.float64(table.scale)),
                *(centre, recurrence, l_scale, np.float64(np.sqrt(2.0) if "featomic" in convention else 1.0)),
                *(same, np.int32(same.shape[0]), cross, np.int32(cross.shape[0]), values),
            ],
            real=real,
            constants={
                "N_MAX": n_max,
                "L_MAX": l_max,
                "SPECIES": n_species,
                "INNER": int(average == "inner"),
            },
            device=chosen,
        )

        def fetch() -> None:
            target = slice(a, b) if average == "off" else slice(first, last)
            out[target] = chosen.get(values)

        return fetch

    run_chunks(plan, chosen, start)
    return out


def fits(n_species: int, n_max: int, l_max: int, real: np.dtype) -> bool:
    """Return whether the coefficients of so many species fit into a block's shared memory."""
    side = l_max + 1
    coefficients = n_species * n_max * side * side
    staged = _CHUNK * (side * side + side * n_max)
    return (coefficients + staged) * real.itemsize + 4 * (_CHUNK + n_species) <= _SHARED


def _tables(table: Any, n_max: int, l_max: int, convention: str, real: np.dtype) -> list[np.ndarray]:
    """Radial pieces [intervals, 6, l, n], centre, recurrence, factors of l, and (l, n, n') of a block's columns."""
    from matcompute_kernels.harmonics import recurrence

    intervals, side, blocks, terms, lanes = table.pieces.shape
    pieces = table.pieces.transpose(0, 3, 1, 2, 4).reshape(intervals, terms, side, blocks * lanes)[
        ..., :n_max
    ]
    order = np.arange(l_max + 1)
    featomic = convention == "featomic-gto"
    l_scale = (-1.0) ** order / np.sqrt(2 * order + 1) if featomic else np.pi * np.sqrt(8.0 / (2 * order + 1))
    square = [l | a << 8 | b << 16 for l in range(side) for a in range(n_max) for b in range(n_max)]
    upper = [code for code in square if featomic or code >> 16 >= code >> 8 & 255]
    reals = [pieces, table.centre[:n_max], recurrence(l_max), l_scale]
    return [
        *(np.ascontiguousarray(a, dtype=real) for a in reals),
        np.array(upper, np.int32),
        np.array(square, np.int32),
    ]
