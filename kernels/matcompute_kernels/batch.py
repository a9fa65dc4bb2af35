"""Packed structures: the one argument type of every kernel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute_kernels.elements import MAX_Z
from matcompute_kernels.errors import KernelInputError

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

__all__ = ["Batch", "as_batch"]

_DTYPES = {"numbers": np.uint8, "positions": np.float64, "cell": np.float64, "pbc": np.bool_, "ptr": np.int64}


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """N structures with M sites in all, as five arrays.

    Structure ``i`` owns the sites ``ptr[i]:ptr[i + 1]``. Slices with step 1 share memory with their parent
    (only ``ptr`` is rebased); an index array copies the chosen sites.

    Parameters
    ----------
    numbers
        Atomic numbers, u1[M].
    positions
        Cartesian positions in Å, f8[M, 3].
    cell
        Lattice vectors in Å as rows, f8[N, 3, 3].
    pbc
        Periodicity along each lattice vector, bool[N, 3].
    ptr
        Site offsets, i8[N + 1], from 0 to M and never decreasing.

    Raises
    ------
    ValueError
        If the shapes do not belong together or ``ptr`` is not monotone.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    ptr: np.ndarray

    def __post_init__(self) -> None:
        for name, dtype in _DTYPES.items():
            array = getattr(self, name)
            if not (isinstance(array, np.ndarray) and array.dtype == dtype and array.flags.c_contiguous):
                object.__setattr__(self, name, _convert(name, array, dtype))
        m, n = self.numbers.shape[0], self.ptr.shape[0] - 1
        shapes = {"numbers": (m,), "positions": (m, 3), "cell": (n, 3, 3), "pbc": (n, 3), "ptr": (n + 1,)}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"Batch.{name} has shape {getattr(self, name).shape}, expected {shape}")
        if n < 0 or self.ptr[0] != 0 or self.ptr[-1] != m or (n > 0 and np.any(np.diff(self.ptr) < 0)):
            raise ValueError(f"Batch.ptr must rise from 0 to the number of sites ({m})")

    # -- making -----------------------------------------------------------------------------------------------

    @classmethod
    def empty(cls) -> Batch:
        """Return a batch of no structure."""
        return cls(
            np.empty(0, "u1"),
            np.empty((0, 3)),
            np.empty((0, 3, 3)),
            np.empty((0, 3), bool),
            np.zeros(1, "i8"),
        )

    @classmethod
    def from_atoms(cls, atoms: Iterable[Atoms]) -> Batch:
        """Pack ASE Atoms objects (numbers, positions, cell, pbc; nothing else is kept)."""
        items = list(atoms)
        if not items:
            return cls.empty()
        return cls(
            numbers=_numbers(np.concatenate([a.numbers for a in items])),
            positions=np.concatenate([a.positions for a in items]),
            cell=np.stack([a.cell.array for a in items]),
            pbc=np.stack([a.pbc for a in items]),
            ptr=_offsets([len(a) for a in items]),
        )

    @classmethod
    def from_structures(cls, structures: Iterable[Structure]) -> Batch:
        """Pack ordered pymatgen Structures.

        Raises
        ------
        ValueError
            If a site is disordered (more than one species, or partial occupancy).
        """
        items = list(structures)
        if not items:
            return cls.empty()
        for index, structure in enumerate(items):
            if not structure.is_ordered:
                raise ValueError(f"structure {index} ({structure.formula}) is disordered")
        return cls(
            numbers=_numbers(np.concatenate([np.asarray(s.atomic_numbers, dtype="i8") for s in items])),
            positions=np.concatenate([s.cart_coords for s in items]).reshape(-1, 3),
            cell=np.stack([s.lattice.matrix for s in items]),
            pbc=np.stack([np.asarray(s.lattice.pbc, dtype=bool) for s in items]),
            ptr=_offsets([len(s) for s in items]),
        )

    @classmethod
    def concatenate(cls, batches: Sequence[Batch]) -> Batch:
        """Join batches in order."""
        if not batches:
            return cls.empty()
        if len(batches) == 1:
            return batches[0]
        return cls(
            numbers=np.concatenate([b.numbers for b in batches]),
            positions=np.concatenate([b.positions for b in batches]),
            cell=np.concatenate([b.cell for b in batches]),
            pbc=np.concatenate([b.pbc for b in batches]),
            ptr=_offsets(np.concatenate([b.n_sites for b in batches])),
        )

    # -- taking -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.ptr.shape[0] - 1

    def __getitem__(self, key: int | slice | Sequence[int] | np.ndarray) -> Batch:
        """Return one structure (int), a view (slice of step 1) or a copy of chosen rows (index or bool array)."""
        if isinstance(key, int | np.integer):
            row = int(key) + len(self) if key < 0 else int(key)
            if not 0 <= row < len(self):
                raise IndexError(f"structure {key} of a batch of {len(self)}")
            key = slice(row, row + 1)
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step == 1:
                stop = max(start, stop)
                a, b = self.ptr[start], self.ptr[stop]
                return Batch(
                    self.numbers[a:b],
                    self.positions[a:b],
                    self.cell[start:stop],
                    self.pbc[start:stop],
                    self.ptr[start : stop + 1] - a,
                )
            key = np.arange(start, stop, step)
        rows = np.asarray(key)
        if rows.dtype == bool:
            if rows.shape != (len(self),):
                raise IndexError(f"mask of shape {rows.shape} for a batch of {len(self)}")
            rows = np.flatnonzero(rows)
        rows = rows.astype(np.int64, copy=False)
        sites = self.site_index(rows)
        ptr = _offsets(self.n_sites[rows])
        return Batch(self.numbers[sites], self.positions[sites], self.cell[rows], self.pbc[rows], ptr)

    def site_index(self, rows: np.ndarray) -> np.ndarray:
        """Return the site numbers that the given structures own, in their order, i8[sum of their sites]."""
        counts = self.n_sites[rows]
        shift = self.ptr[:-1][rows] - (np.cumsum(counts) - counts)
        return np.arange(counts.sum(), dtype=np.int64) + np.repeat(shift, counts)

    # -- looking ----------------------------------------------------------------------------------------------

    @property
    def n_sites(self) -> np.ndarray:
        """Sites of each structure, i8[N]."""
        return np.diff(self.ptr)

    @property
    def volumes(self) -> np.ndarray:
        """Cell volumes in Å^3, f8[N] (0 where a lattice vector is missing)."""
        cell = self.cell
        return np.abs(np.einsum("ni,ni->n", cell[:, 0], np.cross(cell[:, 1], cell[:, 2])))

    def formulas(self) -> list[str]:
        """Return reduced formulas with the symbols in alphabetical order (OPTIMADE's), such as ``AlNi3``."""
        from matcompute_kernels.formula import formula_bytes

        return formula_bytes(self.numbers, self.ptr).astype("U").tolist()

    def to_atoms(self, index: int) -> Atoms:
        """Return structure ``index`` as an ASE Atoms object (a copy)."""
        from ase import Atoms

        one = self[index]
        return Atoms(
            numbers=one.numbers.astype(int),
            positions=one.positions.copy(),
            cell=one.cell[0].copy(),
            pbc=one.pbc[0],
        )

    def to_structure(self, index: int) -> Structure:
        """Return structure ``index`` as a pymatgen Structure (a copy)."""
        from pymatgen.core import Lattice, Structure

        one = self[index]
        pbc = one.pbc[0]
        lattice = Lattice(one.cell[0], pbc=(bool(pbc[0]), bool(pbc[1]), bool(pbc[2])))
        return Structure(lattice, one.numbers.tolist(), one.positions, coords_are_cartesian=True)

    def iter_atoms(self) -> Iterator[Atoms]:
        """Yield each structure as ASE Atoms."""
        return (self.to_atoms(index) for index in range(len(self)))

    def iter_structures(self) -> Iterator[Structure]:
        """Yield each structure as a pymatgen Structure."""
        return (self.to_structure(index) for index in range(len(self)))


def as_batch(structures: Batch | Atoms | Structure | Iterable[Atoms | Structure]) -> Batch:
    """Return any of the inputs that a kernel takes as a batch.

    Parameters
    ----------
    structures
        A batch (returned as it is), one ASE Atoms or pymatgen Structure, or an iterable of them (also mixed).

    Raises
    ------
    KernelInputError
        If an item is neither, is a disordered structure, or its arrays are not numbers; ``index`` names it.
    """
    if isinstance(structures, Batch):
        return structures
    if _kind(structures) is not None:
        structures = [structures]  # type: ignore[list-item]
    try:
        items = list(structures)  # type: ignore[arg-type, unused-ignore]
    except TypeError:
        raise KernelInputError(
            f"expected a Batch, ASE Atoms, pymatgen Structures or a list of them, not {type(structures).__name__}"
        ) from None
    kinds = [_kind(item) for item in items]
    for index, (item, kind) in enumerate(zip(items, kinds)):
        if kind is None:
            raise KernelInputError(
                f"expected ASE Atoms or a pymatgen Structure, not {type(item).__name__}", index
            )
        if kind == "structure" and not item.is_ordered:
            raise KernelInputError("disordered (a site has several species or partial occupancy)", index)
    try:
        if set(kinds) <= {"atoms"}:
            return Batch.from_atoms(items)
        if set(kinds) == {"structure"}:
            return Batch.from_structures(items)
    except (TypeError, ValueError):
        pass  # one of them is at fault: find out which
    singles = []
    for index, (item, kind) in enumerate(zip(items, kinds)):
        try:
            singles.append(Batch.from_atoms([item]) if kind == "atoms" else Batch.from_structures([item]))
        except (TypeError, ValueError) as error:
            raise KernelInputError(str(error), index) from error
    return Batch.concatenate(singles)


def _kind(item: Any) -> str | None:
    if hasattr(item, "cart_coords") and hasattr(item, "lattice"):
        return "structure"
    if hasattr(item, "positions") and hasattr(item, "numbers") and hasattr(item, "get_pbc"):
        return "atoms"
    return None


def _convert(name: str, array: Any, dtype: type) -> np.ndarray:
    if name == "numbers":
        return _numbers(np.asarray(array))
    if np.iscomplexobj(array):
        raise ValueError(f"Batch.{name} must be real numbers")
    return np.ascontiguousarray(array, dtype=dtype)


def _numbers(numbers: np.ndarray) -> np.ndarray:
    if numbers.size and not (numbers.min() >= 0 and numbers.max() <= MAX_Z):
        raise ValueError(f"atomic numbers must lie between 0 and {MAX_Z}")
    if numbers.dtype.kind not in "iu" and (numbers != np.floor(numbers)).any():
        raise ValueError("atomic numbers must be integers")
    return np.ascontiguousarray(numbers, dtype=np.uint8)


def _offsets(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    ptr = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=ptr[1:])
    return ptr
