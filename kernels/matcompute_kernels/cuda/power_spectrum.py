"""SOAP power spectra on a device."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from matcompute_kernels.batch import Batch, as_batch
from matcompute_kernels.checks import check_batch, check_dtype, check_positive, species_index
from matcompute_kernels.cuda.device import Device, chosen_device
from matcompute_kernels.cuda.launch import launch
from matcompute_kernels.cuda.neighbors import chosen_method, device_pairs, pair_bytes, put_sites, site_bytes
from matcompute_kernels.cuda.pipeline import run_chunks
from matcompute_kernels.cuda.planner import plan_chunks
from matcompute_kernels.cuda.sources import KERNELS
from matcompute_kernels.descriptors.many_body import local_species
from matcompute_kernels.descriptors.soap_layout import BlockSparse, SoapLayout
from matcompute_kernels.errors import KernelInputError

__all__ = ["fits", "most_species", "soap"]

#: Bytes of shared memory that every device gives a block.
_SHARED = 48 * 1024
_CHUNK = 8  # as in soap.cu
#: Sites of a structure that a block of an average takes.
_SLICE = 8


def soap(
    batch: Any,
    species: Iterable[int | str],
    r_cut: float,
    n_max: int,
    l_max: int,
    sigma: float = 0.5,
    convention: str = "dscribe-gto",
    average: str = "off",
    sparse: bool = False,
    *,
    dtype: Any = np.float64,
    backend: str = "auto",
    device: Device | None = None,
) -> np.ndarray | BlockSparse:
    """SOAP power spectra; definitions and parameters of :func:`matcompute_kernels.soap`, without compression.

    Averages are taken on the device: the rows of sites are never stored. Sparse rows are made and copied as blocks of
    species pairs. ``dtype`` is also the type of the arithmetic. ``backend`` and ``device`` as in
    :func:`matcompute_kernels.cuda.rdf`.

    Returns
    -------
    ndarray or BlockSparse
        [sites, features], or [structures, features] for an average.

    Raises
    ------
    KernelInputError
        On bad parameters or an unfit structure, and if the coefficients of a structure's species do not fit into a
        block's shared memory (13 species of one structure for n_max 8, l_max 6 in float64, 29 in float32).
    CudaError
        If CUDA is asked for and cannot be used.
    """
    from matcompute_kernels.descriptors.soap_model import checked_layout
    from matcompute_kernels.descriptors.soap_radial import radial_table, reach

    chosen = chosen_device(backend, device)
    if chosen is None:
        from matcompute_kernels.descriptors.soap import soap as on_cpu

        return on_cpu(batch, species, r_cut, n_max, l_max, sigma, convention, average, None, sparse, dtype)
    packed = as_batch(batch)
    real = check_dtype(dtype)
    layout = checked_layout(species, n_max, l_max, convention, None)
    check_positive(r_cut=r_cut, sigma=sigma)
    if average not in ("off", "inner", "outer"):
        raise KernelInputError(f"average must be off, inner or outer, not {average!r}")
    check_batch(packed, layout.species.tolist())
    channel = species_index(packed, layout.species)
    own = _OwnSpecies.of(channel, packed.ptr, len(layout.names))
    if not fits(own.most, n_max, l_max, real):
        raise KernelInputError(
            f"{own.most} species in a structure with n_max={n_max} and l_max={l_max} do not fit into a block's shared "
            "memory; use float32 or backend='numba'",
            int(np.argmax(own.count)),
        )
    far = reach(convention, r_cut, sigma)
    table = radial_table(convention, float(r_cut), n_max, l_max, float(sigma))
    arrays = _tables(table, n_max, l_max, convention, real)
    width = _width(arrays[4].shape[0], arrays[5].shape[0], own.most)
    out = _Out(layout, packed, own, average, sparse, real)
    way = chosen_method(packed, far)
    sizes = site_bytes(packed, real, way) + pair_bytes(packed, far, real) + 4 * packed.n_sites + 8
    coefficients = own.most * n_max * (l_max + 1) ** 2
    part_width = coefficients if average == "inner" else width
    slices = packed.n_sites if average == "off" else -(-packed.n_sites // _SLICE)
    row = width if sparse else layout.n_features
    if average == "off":
        sizes = sizes + slices * (row * real.itemsize + 20) + 8 + 8 * own.most
    else:
        sizes = sizes + slices * (part_width * real.itemsize + 16) + row * real.itemsize + 48 + 8 * own.most
    plan = plan_chunks(sizes, chosen.free_bytes(), fixed=sum(a.nbytes for a in arrays))
    pieces, centre, recurrence, l_scale, same, cross = (chosen.put(a) for a in arrays)
    mixed = np.float64(np.sqrt(2.0) if "featomic" in convention else 1.0)
    codes = [l_scale, mixed, same, np.int32(same.shape[0]), cross, np.int32(cross.shape[0])]
    sizes_of = {"N_MAX": n_max, "L_MAX": l_max, "SPECIES": own.most}

    def start(first: int, last: int) -> Callable[[], None]:
        part = packed[first:last]
        a, b = int(packed.ptr[first]), int(packed.ptr[last])
        sites = put_sites(part, real, chosen, far, way)
        pairs = device_pairs(sites, far, chosen)
        local = chosen.put(own.channel[a:b])

        def expand(
            slices: np.ndarray, places: np.ndarray, kinds: np.ndarray, n: int, what: int, to: Any
        ) -> None:
            launch(
                "soap",
                len(slices) - 1,
                [
                    *(chosen.put(slices), chosen.put(places), sites.owner, chosen.put(kinds), np.int32(n)),
                    *(pairs.ptr, pairs.j, pairs.distance, pairs.vector, local),
                    *(pieces, np.int32(table.pieces.shape[0]), np.float64(table.scale), centre, recurrence),
                    *(*codes, to),
                ],
                real=real,
                constants={
                    **sizes_of,
                    "WHAT": what,
                    "SPARSE": int(sparse and what == 0),
                    "TERMS": table.pieces.shape[3],
                },
                device=chosen,
            )

        if average == "off":
            bits = None
            if sparse:
                on_device = chosen.empty(b - a, np.int32)
                launch(
                    "soap_species",
                    -(-(b - a) * chosen.warp // KERNELS["soap_species"].threads),
                    [pairs.ptr, pairs.j, local, np.int32(b - a), on_device],
                    real=real,
                    device=chosen,
                )
                bits = chosen.get(on_device)
            places, total = out.rows(first, last, bits)
            values = chosen.empty(total, real) if sparse else chosen.zeros(total, real)
            kinds = own.kinds[first:last]
            expand(np.arange(b - a + 1), places, kinds, len(layout.names), 0, values)
        else:
            slices, first_slice = _slices(part.ptr)
            parts = chosen.zeros((len(slices) - 1) * part_width, real)
            counted = np.tile(np.arange(own.most, dtype=np.int32), (last - first, 1))
            places = np.arange(len(slices) - 1) * part_width
            expand(slices, places, counted, own.most, 2 if average == "inner" else 1, parts)
            places, total = out.rows(first, last, None)
            values = chosen.empty(total, real) if sparse else chosen.zeros(total, real)
            count = own.count[first:last].astype(np.int32)
            launch(
                "soap_mean",
                (last - first, own.most * (own.most + 1) // 2),
                [
                    *(sites.ptr, chosen.put(first_slice), chosen.put(places)),
                    chosen.put(counted if sparse else own.kinds[first:last]),
                    chosen.put(count),
                    chosen.put(count if sparse else np.full_like(count, len(layout.names))),
                    *(parts, np.int64(part_width), *codes, values),
                ],
                real=real,
                constants={**sizes_of, "INNER": int(average == "inner")},
                device=chosen,
            )

        def fetch() -> None:
            out.values.append(chosen.get(values))

        return fetch

    run_chunks(plan, chosen, start)
    return out.result()


@dataclass(frozen=True, eq=False)
class _OwnSpecies:
    """Species of each structure, numbered from 0: ``channel`` i4[M], ``kinds`` i4[N, most] (the rest 0), ``count``."""

    channel: np.ndarray
    kinds: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, channel: np.ndarray, ptr: np.ndarray, n_species: int) -> _OwnSpecies:
        kinds, count = local_species(channel, ptr, n_species)
        owner = np.repeat(np.arange(len(count)), np.diff(ptr))
        place = np.zeros(kinds.shape, np.int32)
        rows, columns = np.nonzero(kinds >= 0)
        place[rows, kinds[rows, columns]] = columns
        most = max(1, int(count.max(initial=1)))
        kept = np.maximum(kinds[:, :most], 0).astype(np.int32)
        return cls(place[owner, channel], np.ascontiguousarray(kept), count)

    @property
    def most(self) -> int:
        return self.kinds.shape[1]


def _width(n_same: int, n_cross: int, n: int) -> int:
    """Return the columns of a row of ``n`` species."""
    return n * n_same + n * (n - 1) // 2 * n_cross


class _Out:
    """Rows as they come, chunk by chunk, and what is made of them."""

    def __init__(
        self, layout: SoapLayout, batch: Batch, own: _OwnSpecies, average: str, sparse: bool, real: np.dtype
    ) -> None:
        self.layout, self.batch, self.own, self.real = layout, batch, own, real
        self.per_site, self.sparse = average == "off", sparse
        self.values: list[np.ndarray] = []
        self.counts: list[np.ndarray] = []
        self.blocks: list[np.ndarray] = []

    def rows(self, first: int, last: int, bits: np.ndarray | None) -> tuple[np.ndarray, int]:
        """Return where the rows of the structures ``first:last`` begin among their values, and how many these are."""
        structures = np.arange(first, last)
        if self.per_site:
            structures = np.repeat(structures, self.batch.n_sites[first:last])
        if not self.sparse:
            n = self.layout.n_features
            return np.arange(len(structures)) * n, len(structures) * n
        if bits is None:
            bits = (1 << self.own.count[structures]) - 1
        low, high = np.triu_indices(self.own.most)
        there = ((bits[:, None] >> low) & (bits[:, None] >> high) & 1).astype(bool)
        row, pair = np.nonzero(there)
        kinds = self.own.kinds[structures[row]]
        chosen = np.arange(len(row))
        block = self.layout.lookup[kinds[chosen, low[pair]], kinds[chosen, high[pair]]]
        widths = np.bincount(row, np.diff(self.layout.offset)[block], len(structures)).astype(np.int64)
        self.counts.append(there.sum(axis=1))
        self.blocks.append(block.astype(np.int32))
        ends = np.cumsum(widths)
        return ends - widths, int(ends[-1]) if len(ends) else 0

    def result(self) -> np.ndarray | BlockSparse:
        values = np.concatenate([np.zeros(0, self.real), *self.values])
        if not self.sparse:
            return values.reshape(-1, self.layout.n_features)
        block = np.concatenate([np.zeros(0, np.int32), *self.blocks])
        row_ptr = np.cumsum(np.concatenate([[0], *self.counts])).astype(np.int64)
        sizes = np.diff(self.layout.offset)[block]
        return BlockSparse(self.layout, values, row_ptr, block, np.cumsum(np.concatenate([[0], sizes])))


def _slices(ptr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut structures into slices of _SLICE sites: first site of each (and the end), first slice of each structure."""
    n = -(-np.diff(ptr) // _SLICE)
    first = np.concatenate([[0], np.cumsum(n)]).astype(np.int64)
    number = np.arange(first[-1]) - np.repeat(first[:-1], n)
    return np.append(np.repeat(ptr[:-1], n) + _SLICE * number, ptr[-1]).astype(np.int64), first


def most_species(batch: Batch) -> int:
    """Return the largest number of elements that a structure of a batch has."""
    owner = np.repeat(np.arange(len(batch)), batch.n_sites)
    own = np.unique(owner * 256 + batch.numbers) // 256
    return int(np.bincount(own).max()) if len(own) else 1


def fits(n_species: int, n_max: int, l_max: int, real: np.dtype) -> bool:
    """Return whether the coefficients of so many species (of one structure) fit into a block's shared memory."""
    if n_species > 31:  # bits of soap_species
        return False
    side = l_max + 1
    coefficients = n_species * n_max * side * side
    staged = _CHUNK * (side * side + side * n_max)
    return (coefficients + staged) * real.itemsize + 4 * (_CHUNK + n_species) <= _SHARED


def _tables(table: Any, n_max: int, l_max: int, convention: str, real: np.dtype) -> list[np.ndarray]:
    """Radial pieces [intervals, terms, l, n], centre, recurrence, factors of l, and (l, n, n') of a block's columns."""
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
