"""Smooth overlap of atomic positions (SOAP): the power spectrum of the neighbour density."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute_kernels.batch import Batch, as_batch
from matcompute_kernels.checks import (
    check_batch,
    check_dtype,
    check_integer,
    check_mapping,
    check_positive,
    check_species,
    species_index,
)
from matcompute_kernels.descriptors.soap_kernel import BLOCK
from matcompute_kernels.descriptors.soap_layout import BlockSparse, SoapLayout, soap_layout
from matcompute_kernels.descriptors.soap_radial import radial_table, reach
from matcompute_kernels.descriptors.soap_rows import GROUP, count_site_blocks, site_rows, structure_rows
from matcompute_kernels.errors import KernelInputError
from matcompute_kernels.harmonics import recurrence
from matcompute_kernels.neighbors import NeighborList, check_neighbors, neighbor_list, site_chunks
from matcompute_kernels.vec8 import aligned_zeros

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

__all__ = ["CONVENTIONS", "Model", "checked_layout", "density", "labels", "soap"]

CONVENTIONS = ("dscribe-gto", "featomic-gto", "polynomial")
#: Pairs of a chunk, at 56 bytes each; up to ten times as many where one structure is large (see ``site_chunks``).
_CHUNK_PAIRS = 120_000


def soap(
    batch: Batch | Atoms | Structure | Iterable[Any],
    species: Iterable[int | str],
    r_cut: float,
    n_max: int,
    l_max: int,
    sigma: float = 0.5,
    convention: str = "dscribe-gto",
    average: str = "off",
    compression: str | Mapping[str, Any] | None = None,
    sparse: bool = False,
    dtype: Any = "float64",
    *,
    weighting: Mapping[str, Any] | None = None,
    smoothing: float | None = None,
    scaling: Mapping[str, float] | None = None,
    neighbors: NeighborList | None = None,
    threads: int = 1,
) -> np.ndarray | BlockSparse:
    """Compute the SOAP power spectrum of sites or structures, over periodic images.

    Parameters
    ----------
    batch
        Packed structures, or ASE Atoms or pymatgen Structures.
    species
        Elements that columns are made for, as symbols or atomic numbers.
    r_cut
        Cutoff in Å. In the dscribe conventions it belongs to the radial functions, and neighbours count up to
        ``r_cut + sigma·√(-2 ln 10⁻³)``.
    n_max
        Number of radial functions (featomic's ``max_radial`` is one less).
    l_max
        Highest angular momentum, at most 20.
    sigma
        Width of the atoms' Gaussians in Å.
    convention
        ``"dscribe-gto"``: p = π√(8/(2l + 1)) Σ_m c c', columns Z ≤ Z', l, n, n' (n' ≥ n if Z = Z').
        ``"featomic-gto"``: p = (-1)^l/√(2l + 1) Σ_m c c', times √2 if Z ≠ Z', columns Z ≤ Z', l, n, n' (all n, n').
        ``"polynomial"``: dscribe's polynomial radial functions by exact mathematics (dscribe's own numbers differ by a
        few 10⁻⁶ of the largest feature), columns as dscribe-gto.
    average
        ``"off"``: a row per site. ``"outer"``: mean of the rows of a structure. ``"inner"``: power spectrum of the mean
        coefficients of a structure.
    compression
        None; ``"mu1nu1"``, ``"mu2"`` (Darby et al., npj Comput. Mater. 8, 166 (2022)); ``"crossover"``: equal species
        only; or a mapping with the keys ``mode`` (these, or ``"groups"``), ``groups`` (lists of elements that
        share a channel), ``pairs`` (the only pairs of elements to write) and ``species_weighting`` (factor of each
        element's density).
    sparse
        Return a :class:`BlockSparse` that holds only the pairs of species that occur in a row.
    dtype
        float64 or float32 of the result (computed in float64).
    weighting
        dscribe's density weighting: ``function`` ``"poly"`` (c, m, r0), ``"pow"`` (c, d, m, r0) or ``"exp"``
        (c, d, r0), and ``w0``, the weight of the central atom.
    smoothing
        Width in Å of featomic's shifted-cosine smoothing below r_cut; None: a step.
    scaling
        ``scale`` (Å), ``rate`` and ``exponent`` of the density's decay rate/(rate + (r/scale)^exponent): Willatt et
        al., Phys. Chem. Chem. Phys. 20, 29661 (2018).
    neighbors
        A full neighbour list of the batch that reaches at least as far; None: made here, chunk by chunk.
    threads
        Threads to use; the result does not depend on it.

    Returns
    -------
    ndarray or BlockSparse
        [sites, features], or [structures, features] for an average. Pages of a dense array that stay zero are never
        touched. Beside the result, 10 MB a thread are used, and up to 100 MB where one structure has 10⁵ atoms.

    Raises
    ------
    KernelInputError
        On bad parameters; on a structure with no atoms, positions that are not finite, a singular cell or an element
        not in species (``index`` names it).

    Notes
    -----
    Definitions: dscribe 2.1 ``soap.py`` and ``ext/soapGTO.cpp``; featomic 0.6 ``soap/power_spectrum.rs``. Bartók,
    Kondor and Csányi, Phys. Rev. B 87, 184115 (2013). Radial functions come from tables that are accurate to 2·10⁻¹²
    of the largest value.
    """
    batch = as_batch(batch)
    dtype = check_dtype(dtype)
    layout = checked_layout(species, n_max, l_max, convention, compression)
    check_positive(r_cut=r_cut, sigma=sigma)
    if average not in ("off", "inner", "outer"):
        raise KernelInputError(f"average must be off, inner or outer, not {average!r}")
    check_integer(1, 1024, threads=threads)
    check_batch(batch, layout.species.tolist())
    kind, parameters, centre_weight = density(r_cut, weighting, smoothing, scaling)
    far = reach(convention, r_cut, sigma)
    check_neighbors(neighbors, batch, far)
    if neighbors is not None:
        neighbors = neighbors.within(far)
    model = Model(batch, layout, convention, float(r_cut), float(sigma), kind, parameters, centre_weight)
    tasks = _tasks(batch, far)
    rows = len(batch.numbers) if average == "off" else len(batch)
    if sparse and average == "off":
        return model.sparse_sites(tasks, neighbors, dtype, threads)
    if sparse:
        row_ptr, value_start, total = model.structure_blocks()
        values, block = np.zeros(total), np.zeros(int(row_ptr[-1]), np.int32)
        base, block_base = value_start, row_ptr[:-1]
    else:
        out = np.zeros((rows, layout.n_features), dtype if average == "off" else np.float64)
        values, block = out.reshape(-1), np.zeros(0, np.int32)
        base, block_base = np.arange(rows) * layout.n_features, np.zeros(rows, np.int64)

    def work(chunks: list[tuple[int, int]]) -> None:
        space = model.workspace(average)
        for first, last in chunks:
            pairs = model.pairs(neighbors, first, last)
            if average == "off":
                model.site_rows(pairs, space, values, base[first:last], block_base[first:last], block)
            else:
                model.structure_rows(pairs, space, average, values, base, block_base, block)

    _run(work, tasks, threads)
    values = values.astype(dtype, copy=False)
    if not sparse:
        return values.reshape(rows, layout.n_features)
    sizes = np.diff(layout.offset)[block]
    return BlockSparse(layout, values, row_ptr, block, np.concatenate([[0], np.cumsum(sizes)]))


def labels(
    species: Iterable[int | str],
    n_max: int,
    l_max: int,
    convention: str = "dscribe-gto",
    compression: str | Mapping[str, Any] | None = None,
    **_: Any,
) -> list[str]:
    """Name of each column of :func:`soap`, such as ``Na-Cl l=0 n=1 n=2`` (radial functions counted from 0)."""
    return checked_layout(species, n_max, l_max, convention, compression).labels()


def checked_layout(species: Any, n_max: int, l_max: int, convention: str, compression: Any) -> SoapLayout:
    """Check the parameters that give the columns, and return these."""
    if convention not in CONVENTIONS:
        raise KernelInputError(f"convention must be one of {', '.join(CONVENTIONS)}, not {convention!r}")
    check_integer(1, 64, n_max=n_max)
    check_integer(0, 20, l_max=l_max)
    numbers = tuple(check_species(species).tolist())
    if compression is None or isinstance(compression, str):
        return _kept_layout(numbers, int(n_max), int(l_max), convention, compression)
    return soap_layout(numbers, int(n_max), int(l_max), convention, compression)


@lru_cache(maxsize=256)
def _kept_layout(
    numbers: tuple[int, ...], n_max: int, l_max: int, convention: str, compression: str | None
) -> SoapLayout:
    return soap_layout(numbers, n_max, l_max, convention, compression)


def density(
    r_cut: float,
    weighting: Mapping[str, Any] | None,
    smoothing: float | None,
    scaling: Mapping[str, float] | None,
) -> tuple[int, np.ndarray, float]:
    """Check what weights the density; return kind and parameters of ``density_weight`` and the centre's own weight."""
    check_mapping(weighting=weighting, scaling=scaling)
    centre_weight = -1.0
    if weighting is not None:
        weighting = dict(weighting)
        if weighting.get("w0") is not None:
            centre_weight = float(weighting["w0"])
            if not 0.0 <= centre_weight < np.inf:
                raise KernelInputError(f"w0 must not be negative, not {centre_weight}")
        needed = {None: (), "poly": ("r0", "c", "m"), "pow": ("r0", "c", "d", "m"), "exp": ("r0", "c", "d")}
        function = weighting.get("function")
        if function not in needed:
            raise KernelInputError(f"weighting function must be poly, pow or exp, not {function!r}")
        if function is not None:
            if smoothing is not None or scaling is not None:
                raise KernelInputError("give either weighting or smoothing and scaling")
            missing = [key for key in needed[function] if weighting.get(key) is None]
            if missing:
                raise KernelInputError(f"weighting function {function} needs {', '.join(missing)}")
            check_positive(r0=weighting["r0"])
            values = [float(weighting[key]) for key in needed[function]]
            return {"poly": 2, "pow": 3, "exp": 4}[function], np.array(values + [0.0] * 5)[:5], centre_weight
    if smoothing is None and scaling is None:
        return 0, np.zeros(5), centre_weight
    parameters = np.array([float(r_cut), 0.0, 0.0, 1.0, 1.0])
    if smoothing is not None:
        check_positive(smoothing=smoothing)
        parameters[1] = smoothing
    if scaling is not None:
        missing = [key for key in ("scale", "rate", "exponent") if key not in scaling]
        if missing:
            raise KernelInputError(f"scaling needs {', '.join(missing)}")
        parameters[2:] = [scaling["scale"], scaling["rate"], scaling["exponent"]]
        check_positive(scale=parameters[2], rate=parameters[3], exponent=parameters[4])
    return 1, parameters, centre_weight


def _tasks(batch: Batch, far: float) -> list[list[tuple[int, int]]]:
    """Chunks of sites; the chunks of one structure follow each other in one task (their sums have one order)."""
    tasks: list[list[tuple[int, int]]] = []
    edge = -1
    for first, last in site_chunks(batch, far, _CHUNK_PAIRS):
        if first == edge or not tasks:
            tasks.append([])
        tasks[-1].append((first, last))
        inside = np.searchsorted(batch.ptr, last)
        edge = last if batch.ptr[inside] == last else -1
    return tasks


def _run(work: Any, tasks: list[Any], threads: int) -> None:
    if threads == 1 or len(tasks) == 1:
        for task in tasks:
            work(task)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, tasks):
            pass


class Model:
    """Arrays that every chunk of one call needs, and the calls of the kernels with them."""

    def __init__(
        self,
        batch: Batch,
        layout: SoapLayout,
        convention: str,
        r_cut: float,
        sigma: float,
        kind: int,
        parameters: np.ndarray,
        centre_weight: float,
    ) -> None:
        self.batch, self.layout = batch, layout
        self.far = reach(convention, r_cut, sigma)
        table = radial_table(convention, r_cut, layout.n_max, layout.l_max, sigma)
        place = species_index(batch, layout.species)
        order = np.arange(layout.l_max + 1)
        if convention == "featomic-gto":
            l_scale, cross = (-1.0) ** order / np.sqrt(2 * order + 1), np.sqrt(2.0)
        else:
            l_scale, cross = np.pi * np.sqrt(8.0 / (2 * order + 1)), 1.0
        self.channel = layout.channel[place]
        self.wide = table.pieces.shape[2] * 8
        self.common = (
            self.channel,
            layout.weight[place],
            kind,
            parameters,
            centre_weight,
            table.pieces,
            table.scale,
            table.centre,
            recurrence(layout.l_max),
            l_scale,
            cross,
            layout.n_max,
            layout.lookup,
            layout.triangle,
            layout.offset,
        )

    def pairs(self, neighbors: NeighborList | None, first: int, last: int) -> NeighborList:
        """Neighbours of a chunk."""
        if neighbors is None:
            return neighbor_list(self.batch, self.far, sites=(first, last), check=False)
        a, b = neighbors.ptr[first], neighbors.ptr[last]
        return NeighborList(
            neighbors.ptr[first : last + 1] - a,
            neighbors.j[a:b],
            neighbors.shift[a:b],
            neighbors.distance[a:b],
            neighbors.vector[a:b],
            neighbors.r_cut,
            True,
            first,
        )

    def workspace(self, average: str) -> tuple[np.ndarray, ...]:
        """Harmonics, radial functions and coefficients of one thread."""
        n_lm = (self.layout.l_max + 1) ** 2
        group = GROUP if average == "outer" else 1
        slots = min(len(self.layout.names), 120) + 1
        return (
            aligned_zeros((n_lm, BLOCK)),
            aligned_zeros((BLOCK, (self.layout.l_max + 1) * self.wide)),
            aligned_zeros((slots, group * n_lm, self.wide)),
        )

    def ordered(self, pairs: NeighborList) -> tuple[np.ndarray, np.ndarray]:
        """Room for the neighbours of one site, in the order of their channels."""
        room = (int(pairs.counts.max(initial=0)) // 8 + 2) * 8
        return aligned_zeros((4, room)), aligned_zeros((room,))

    def site_rows(
        self,
        pairs: NeighborList,
        space: tuple,
        out: np.ndarray,
        base: np.ndarray,
        block_base: np.ndarray,
        block: np.ndarray,
    ) -> None:
        """Write the rows of a chunk of sites."""
        write: Any = site_rows
        write(
            pairs.ptr,
            pairs.j,
            pairs.distance,
            pairs.vector,
            pairs.first,
            *self.common,
            *self.ordered(pairs),
            *space,
            out,
            base,
            block_base,
            block,
        )

    def structure_rows(
        self,
        pairs: NeighborList,
        space: tuple,
        average: str,
        out: np.ndarray,
        base: np.ndarray,
        block_base: np.ndarray,
        block: np.ndarray,
    ) -> None:
        """Add a chunk of sites to the averages of their structures."""
        write: Any = structure_rows
        write(
            pairs.ptr,
            pairs.j,
            pairs.distance,
            pairs.vector,
            pairs.first,
            self.batch.ptr,
            average == "inner",
            *self.common,
            *self.ordered(pairs),
            *space,
            out,
            base,
            block_base,
            block,
        )

    def structure_blocks(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Block pointers of the structures' rows, where their values start, and how many values there are."""
        n_channels = len(self.layout.names)
        there = np.zeros((len(self.batch), n_channels), dtype=bool)
        there[np.repeat(np.arange(len(self.batch)), self.batch.n_sites), self.channel] = True
        first, second = self.layout.pairs.T
        sizes = np.diff(self.layout.offset)
        n_blocks, n_values = np.zeros(len(self.batch), np.int64), np.zeros(len(self.batch), np.int64)
        for a, b, size in zip(first, second, sizes):
            both = there[:, a] & (there[:, b] if b < n_channels else True)
            n_blocks += both
            n_values += both * size
        start = np.concatenate([[0], np.cumsum(n_values)])
        return np.concatenate([[0], np.cumsum(n_blocks)]), start[:-1], int(start[-1])

    def sparse_sites(
        self, tasks: list[Any], neighbors: NeighborList | None, dtype: np.dtype, threads: int
    ) -> BlockSparse:
        """Rows of sites with the blocks that occur only; the room they need is known chunk by chunk."""
        sizes = np.diff(self.layout.offset)
        parts: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        # One thread writes the rows one after the other into room for all blocks of each structure; what is not
        # needed was never touched and is given back. Threads write chunks of their own, joined at the end.
        room = np.empty(self.most_site_values() if threads == 1 else 0, dtype)
        used = 0

        def work(chunks: list[tuple[int, int]]) -> None:
            nonlocal used
            space = self.workspace("off")
            for first, last in chunks:
                pairs = self.pairs(neighbors, first, last)
                n_blocks, n_values = np.zeros(last - first, np.int64), np.zeros(last - first, np.int64)
                count_site_blocks(
                    pairs.ptr, pairs.j, first, self.channel, self.layout.lookup, sizes, n_blocks, n_values
                )
                n = int(n_values.sum())
                values = room[used : used + n] if threads == 1 else np.empty(n, dtype)
                block = np.empty(int(n_blocks.sum()), np.int32)
                self.site_rows(
                    pairs,
                    space,
                    values,
                    np.cumsum(n_values) - n_values,
                    np.cumsum(n_blocks) - n_blocks,
                    block,
                )
                used += n
                parts[first] = n_blocks, values, block

        _run(work, tasks, threads)
        nothing = np.empty(0, np.int64), np.empty(0, dtype), np.empty(0, np.int32)
        chosen = [parts.pop(first) for first in sorted(parts)] or [nothing]
        n_blocks = np.concatenate([part[0] for part in chosen])
        block = np.concatenate([part[2] for part in chosen])
        if threads == 1:
            chosen.clear()
            room.resize(used, refcheck=False)
            values = room
        else:
            values = _join([part[1] for part in chosen])
        row_ptr = np.concatenate([[0], np.cumsum(n_blocks)])
        return BlockSparse(
            self.layout, values, row_ptr, block, np.concatenate([[0], np.cumsum(sizes[block])])
        )

    def most_site_values(self) -> int:
        """Values of all sites if each saw all species of its structure."""
        _, start, total = self.structure_blocks()
        return int((np.diff(np.append(start, total)) * self.batch.n_sites).sum())


def _join(parts: list[np.ndarray]) -> np.ndarray:
    """Concatenate without holding everything twice: the first part grows in place, the others go as they are copied."""
    if len(parts) == 1:
        return parts[0]
    out = parts[0]
    used = len(out)
    out.resize(sum(map(len, parts)), refcheck=False)
    for k in range(1, len(parts)):
        out[used : used + len(parts[k])] = parts[k]
        used += len(parts[k])
        parts[k] = out[:0]
    return out
