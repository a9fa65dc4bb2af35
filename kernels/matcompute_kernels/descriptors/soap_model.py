"""What one SOAP call needs: its columns, its density, and the arrays that every chunk hands to the kernels."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from matcompute_kernels.batch import Batch
from matcompute_kernels.checks import (
    check_integer,
    check_mapping,
    check_positive,
    check_species,
)
from matcompute_kernels.descriptors.soap_kernel import BLOCK
from matcompute_kernels.descriptors.soap_layout import BlockSparse, SoapLayout, soap_layout
from matcompute_kernels.descriptors.soap_radial import radial_table, reach
from matcompute_kernels.descriptors.soap_rows import (
    GROUP,
    count_site_blocks,
    count_structure_blocks,
    site_rows,
    structure_rows,
)
from matcompute_kernels.errors import KernelInputError
from matcompute_kernels.harmonics import recurrence
from matcompute_kernels.neighbors import NeighborList, neighbor_list
from matcompute_kernels.tasks import share
from matcompute_kernels.vec8 import aligned_zeros

__all__ = ["CONVENTIONS", "Model", "Setting", "checked_layout", "checked_setting", "density"]

CONVENTIONS = ("dscribe-gto", "featomic-gto", "polynomial")

_NO_PARAMETERS = np.zeros(5)
#: Bytes of work space that a thread keeps from call to call.
_MOST_KEPT = 1 << 20
#: A list of so few pairs has a site with no more: its work space costs less than to look for the longest row.
_FEW_PAIRS = 4096


@dataclass(frozen=True, eq=False)
class Setting:
    """What does not depend on the structures of a call: checked parameters and columns.

    Attributes
    ----------
    layout
        Columns.
    table
        Arguments of :func:`radial_table` (which keeps fewer tables than there are settings kept).
    far
        Distance in Å up to which neighbours count.
    l_scale
        Factor of each l, f8[l_max + 1].
    cross
        Factor of blocks of two different channels.
    """

    layout: SoapLayout
    table: tuple[str, float, int, int, float]
    far: float
    l_scale: np.ndarray
    cross: float


def checked_layout(species: Any, n_max: int, l_max: int, convention: str, compression: Any) -> SoapLayout:
    """Check the parameters that give the columns, and return these."""
    if convention not in CONVENTIONS:
        raise KernelInputError(f"convention must be one of {', '.join(CONVENTIONS)}, not {convention!r}")
    check_integer(1, 64, n_max=n_max)
    check_integer(0, 20, l_max=l_max)
    numbers = tuple(check_species(species).tolist())
    return soap_layout(numbers, int(n_max), int(l_max), convention, compression)


def checked_setting(
    species: Any, r_cut: float, n_max: int, l_max: int, sigma: float, convention: str, compression: Any
) -> Setting:
    """Check the parameters of a call; what was found is kept for calls with the same ones."""
    rest = r_cut, n_max, l_max, sigma, convention, compression
    try:
        items = species if isinstance(species, str) else tuple(species)
    except TypeError:
        return _setting(species, *rest)
    try:
        return _kept_setting(items, tuple(map(type, items)), *rest)
    except TypeError:  # something that cannot be hashed, such as the mapping of a compression
        return _setting(items, *rest)


@lru_cache(maxsize=256, typed=True)
def _kept_setting(species: Any, _kinds: tuple[type, ...], *rest: Any) -> Setting:
    return _setting(species, *rest)


def _setting(
    species: Any, r_cut: float, n_max: int, l_max: int, sigma: float, convention: str, compression: Any
) -> Setting:
    layout = checked_layout(species, n_max, l_max, convention, compression)
    check_positive(r_cut=r_cut, sigma=sigma)
    order = np.arange(layout.l_max + 1)
    if convention == "featomic-gto":
        l_scale, cross = (-1.0) ** order / np.sqrt(2 * order + 1), np.sqrt(2.0)
    else:
        l_scale, cross = np.pi * np.sqrt(8.0 / (2 * order + 1)), 1.0
    table = convention, float(r_cut), layout.n_max, layout.l_max, float(sigma)
    return Setting(layout, table, reach(convention, float(r_cut), float(sigma)), l_scale, cross)


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
        return 0, _NO_PARAMETERS, centre_weight
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


def _n_bytes(arrays: tuple[np.ndarray, ...]) -> int:
    return sum(a.nbytes for a in arrays)


class _Spaces(threading.local):
    """Work spaces that this thread keeps: structure by structure, calls have the same few shapes again and again."""

    def __init__(self) -> None:
        self.kept: dict[tuple[tuple[int, ...], ...], tuple[np.ndarray, ...]] = {}

    def get(self, *shapes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
        """Return arrays of these shapes; what is in them does not matter."""
        arrays = self.kept.get(shapes)
        if arrays is None:
            arrays = tuple(aligned_zeros(shape) for shape in shapes)
            size = _n_bytes(arrays)
            if size <= _MOST_KEPT:
                if size + sum(map(_n_bytes, self.kept.values())) > _MOST_KEPT:
                    self.kept.clear()
                self.kept[shapes] = arrays
        return arrays


_spaces = _Spaces()


class Model:
    """Arrays that every chunk of one call needs, and the calls of the kernels with them."""

    def __init__(self, batch: Batch, setting: Setting, weights: tuple[int, np.ndarray, float]) -> None:
        self.batch, self.far = batch, setting.far
        self.layout = layout = setting.layout
        table = radial_table(*setting.table)
        channel, weight = layout.by_number
        self.channel = channel[batch.numbers]
        self.wide = table.pieces.shape[2] * 8
        self.common = (
            self.channel,
            weight[batch.numbers],
            *weights,
            table.pieces,
            table.scale,
            table.centre,
            recurrence(layout.l_max),
            setting.l_scale,
            setting.cross,
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
        """Harmonics, radial functions and coefficients of one thread (what is in them does not matter)."""
        n_lm = (self.layout.l_max + 1) ** 2
        group = GROUP if average == "outer" else 1
        slots = min(len(self.layout.names), 120) + 1
        radial = (BLOCK, (self.layout.l_max + 1) * self.wide)
        return _spaces.get((n_lm, BLOCK), radial, (slots, group * n_lm, self.wide))

    def ordered(self, pairs: NeighborList) -> tuple[np.ndarray, ...]:
        """Room for the neighbours of one site, in the order of their channels."""
        most = len(pairs.j)
        if most > _FEW_PAIRS:
            most = int((pairs.ptr[1:] - pairs.ptr[:-1]).max())
        room = 64 + max(64, 1 << most.bit_length())  # few different sizes, so that what is kept mostly fits
        return _spaces.get((4, room), (room,))

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
        n_blocks, n_values = np.zeros(len(self.batch), np.int64), np.zeros(len(self.batch), np.int64)
        sizes = np.diff(self.layout.offset)
        count_structure_blocks(self.batch.ptr, self.channel, self.layout.lookup, sizes, n_blocks, n_values)
        start = np.concatenate([[0], np.cumsum(n_values)])
        return np.concatenate([[0], np.cumsum(n_blocks)]), start[:-1], int(start[-1])

    def fill(self) -> float:
        """Return the part of dense rows that is not zero by its species alone (structures weigh the same)."""
        if not len(self.batch):
            return 1.0
        return self.structure_blocks()[2] / (len(self.batch) * self.layout.n_features)

    def sparse_sites(
        self, tasks: list[Any], neighbors: NeighborList | None, dtype: np.dtype, threads: int
    ) -> BlockSparse:
        """Rows of sites with the blocks that occur only; the room they need is known chunk by chunk."""
        sizes = np.diff(self.layout.offset)
        chunks = [chunk for task in tasks for chunk in task]
        # Chunks are written one after the other into room for all blocks of each structure; what is not needed is
        # never touched, and given back. Threads take their places in order, as soon as they know how much they need:
        # arrays of their own would be new memory for each chunk, which takes longer than to fill it.
        room = np.empty(self.most_site_values(), dtype)
        places = _Places()
        n_blocks = np.zeros(len(self.batch.numbers), np.int64)
        blocks = [np.empty(0, np.int32)] * len(chunks)
        kept = threading.local()

        def work(number: int) -> None:
            first, last = chunks[number]
            counts, n_values = n_blocks[first:last], np.zeros(last - first, np.int64)
            needed = 0
            try:
                if not hasattr(kept, "space"):
                    kept.space = self.workspace("off")
                pairs = self.pairs(neighbors, first, last)
                count_site_blocks(
                    pairs.ptr, pairs.j, first, self.channel, self.layout.lookup, sizes, counts, n_values
                )
                needed = int(n_values.sum())
            finally:
                # A chunk that fails takes none, so that those behind it do not wait for ever.
                begin, end = places.take(number, needed)
            blocks[number] = np.empty(int(counts.sum()), np.int32)
            self.site_rows(
                pairs,
                kept.space,
                room[begin:end],
                np.cumsum(n_values) - n_values,
                np.cumsum(counts) - counts,
                blocks[number],
            )

        share(work, range(len(chunks)), threads)
        block = np.concatenate([*blocks, np.empty(0, np.int32)])
        room.resize(places.used, refcheck=False)
        row_ptr = np.concatenate([[0], np.cumsum(n_blocks)])
        return BlockSparse(self.layout, room, row_ptr, block, np.concatenate([[0], np.cumsum(sizes[block])]))

    def most_site_values(self) -> int:
        """Values of all sites if each saw all species of its structure."""
        _, start, total = self.structure_blocks()
        return int((np.diff(np.append(start, total)) * self.batch.n_sites).sum())


class _Places:
    """Places in one array, given to threads in the order of their chunks."""

    def __init__(self) -> None:
        self.used = 0
        self._next = 0
        self._turn = threading.Condition()

    def take(self, number: int, n: int) -> tuple[int, int]:
        """Return begin and end of the place of a chunk, once all before it have theirs."""
        with self._turn:
            self._turn.wait_for(lambda: self._next == number)
            begin = self.used
            self.used += n
            self._next += 1
            self._turn.notify_all()
            return begin, self.used
