"""Checks that every kernel makes before it touches an array; the error names the structure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute_kernels.compiled import njit
from matcompute_kernels.elements import MAX_Z, SYMBOLS
from matcompute_kernels.errors import KernelInputError

if TYPE_CHECKING:
    from matcompute_kernels.batch import Batch

__all__ = [
    "check_batch",
    "check_dtype",
    "check_integer",
    "check_mapping",
    "check_positive",
    "check_species",
    "species_index",
    "structure_problems",
]

#: Smallest volume that the periodic vectors span, in units of the product of their lengths.
FLATTEST = 1e-6

_ELEMENTS = np.arange(256) > 0


def structure_problems(batch: Batch, species: Iterable[int | str] | None = None) -> dict[int, str]:
    """Return what makes structures unfit for any kernel, by number in the batch.

    A job calls this first, gives the named structures a status and goes on with the rest.

    Parameters
    ----------
    batch
        Packed structures.
    species
        Elements that the descriptor knows, as symbols or atomic numbers; None: all.

    Returns
    -------
    dict
        Number of the structure → text; empty if all are fit.
    """
    problems: dict[int, str] = {}
    counts = np.diff(batch.ptr)
    for i in np.flatnonzero(counts == 0).tolist():
        problems.setdefault(i, "no atoms")

    def first_sites(bad: np.ndarray) -> list[tuple[int, int]]:
        sites = np.flatnonzero(bad)
        owners = np.searchsorted(batch.ptr, sites, side="right") - 1
        return list(zip(owners.tolist(), sites.tolist()))

    for i, k in first_sites(~np.isfinite(batch.positions).all(axis=1)):
        problems.setdefault(i, f"position of atom {k - int(batch.ptr[i])} is not finite")
    finite = np.isfinite(batch.cell).all(axis=(1, 2))
    for i in np.flatnonzero(~finite).tolist():
        problems.setdefault(i, "cell is not finite")
    flat = finite & (
        _normalized_volume(np.where(finite[:, None, None], batch.cell, 0.0), batch.pbc) < FLATTEST
    )
    for i in np.flatnonzero(flat).tolist():
        problems.setdefault(
            i,
            "singular cell: the periodic lattice vectors are zero or linearly dependent; set pbc or cell",
        )
    for i, k in first_sites(batch.numbers == 0) if species is None else []:
        problems.setdefault(i, f"atom {k - int(batch.ptr[i])} is no element (atomic number 0)")
    if species is not None:
        known = np.zeros(256, dtype=bool)
        known[check_species(species)] = True
        for i, k in first_sites(~known[batch.numbers]):
            z = int(batch.numbers[k])
            problems.setdefault(
                i, f"element {SYMBOLS[z]} (Z={z}) of atom {k - int(batch.ptr[i])} is not in species"
            )
    return dict(sorted(problems.items()))


def check_batch(
    batch: Batch, species: Iterable[int | str] | None = None, known: np.ndarray | None = None
) -> None:
    """Raise :class:`KernelInputError` for the first unfit structure (see :func:`structure_problems`).

    ``known`` tells for each atomic number whether it is in ``species``, bool[256], if the caller has that.
    """
    if known is None:
        known = _ELEMENTS
        if species is not None:
            known = np.zeros(256, dtype=np.bool_)
            known[check_species(species)] = True
    if _all_fit(batch.numbers, batch.positions, batch.cell, batch.pbc, batch.ptr, known):
        return
    problems = structure_problems(batch, species)
    if problems:
        index, text = next(iter(problems.items()))
        raise KernelInputError(text, index)


@njit(cache=True, nogil=True)
def _all_fit(
    numbers: np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray,
    pbc: np.ndarray,
    ptr: np.ndarray,
    known: np.ndarray,
) -> bool:
    """Whether :func:`structure_problems` has nothing to tell: one pass, no temporaries."""
    for k in range(numbers.shape[0]):
        if not (known[numbers[k]] and np.isfinite(positions[k, 0] + positions[k, 1] + positions[k, 2])):
            return False
    unit = np.zeros((3, 3))
    for i in range(ptr.shape[0] - 1):
        if ptr[i] == ptr[i + 1]:
            return False
        for k in range(3):
            x, y, z = cell[i, k, 0], cell[i, k, 1], cell[i, k, 2]
            length = np.sqrt(x * x + y * y + z * z)
            if not np.isfinite(length):
                return False
            unit[k] = 0.0
            if length > 0.0:
                unit[k, 0], unit[k, 1], unit[k, 2] = x / length, y / length, z / length
        a, b, c = unit[0], unit[1], unit[2]
        ab = a[0] * b[0] + a[1] * b[1] + a[2] * b[2] if pbc[i, 0] and pbc[i, 1] else 0.0
        bc = b[0] * c[0] + b[1] * c[1] + b[2] * c[2] if pbc[i, 1] and pbc[i, 2] else 0.0
        ca = c[0] * a[0] + c[1] * a[1] + c[2] * a[2] if pbc[i, 2] and pbc[i, 0] else 0.0
        for k in range(3):
            if pbc[i, k] and unit[k, 0] == 0.0 and unit[k, 1] == 0.0 and unit[k, 2] == 0.0:
                return False
        # A little stricter than FLATTEST: what fails here is looked at again.
        if 1.0 + 2.0 * ab * bc * ca - ab * ab - bc * bc - ca * ca < 1.01 * FLATTEST * FLATTEST + 1e-14:
            return False
    return True


def check_species(species: Iterable[int | str]) -> np.ndarray:
    """Return the elements as sorted unique atomic numbers, u1[S].

    Raises
    ------
    KernelInputError
        If the list is empty or has an unknown element.
    """
    if isinstance(species, str):
        species = [species]
    if not isinstance(species, Iterable):
        raise KernelInputError(f"species must be a list of symbols or atomic numbers, not {species!r}")
    items = tuple(species)
    try:
        return _numbers(items, tuple(map(type, items))).copy()
    except TypeError:  # an item that cannot be hashed is no element either
        return _numbers.__wrapped__(items, ())


@lru_cache(maxsize=256)
def _numbers(species: tuple[Any, ...], _kinds: tuple[type, ...]) -> np.ndarray:
    """:func:`check_species`, kept for the next call with this list (1 == True: the kinds belong to the key)."""
    numbers = []
    for item in species:
        if isinstance(item, str):
            if item not in SYMBOLS:
                raise KernelInputError(f"species has {item!r}, which is no chemical symbol")
            numbers.append(SYMBOLS.index(item))
        elif isinstance(item, Integral) and 0 <= int(item) <= MAX_Z:
            numbers.append(int(item))
        else:
            raise KernelInputError(f"species has {item!r}; give symbols or atomic numbers up to {MAX_Z}")
    if not numbers:
        raise KernelInputError("species is empty; give at least one element")
    return np.unique(np.array(numbers, dtype=np.uint8))


def species_index(batch: Batch, species: np.ndarray) -> np.ndarray:
    """Return the place of each site's element in ``species`` (from :func:`check_species`), i8[M].

    Raises
    ------
    KernelInputError
        If a site's element is not in ``species``.
    """
    place = np.full(256, -1, dtype=np.int64)
    place[species] = np.arange(len(species))
    index = place[batch.numbers]
    if index.size and index.min() < 0:
        check_batch(batch, species.tolist())
    return index


def check_positive(**values: float) -> None:
    """Raise if a named parameter is no finite number above zero, as in ``check_positive(r_cut=r_cut)``."""
    for name, value in values.items():
        if type(value) is float and 0.0 < value < np.inf:
            continue
        if isinstance(value, bool) or not isinstance(value, Real) or not (0 < float(value) < np.inf):
            raise KernelInputError(f"{name} must be a finite number above 0, not {value!r}")


def check_integer(low: int, high: int, **values: int) -> None:
    """Raise if a named parameter is no integer in [low, high]."""
    for name, value in values.items():
        if type(value) is int and low <= value <= high:
            continue
        if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) <= high:
            raise KernelInputError(f"{name} must be an integer from {low} to {high}, not {value!r}")


def check_mapping(**values: Any) -> None:
    """Raise if a named parameter is neither None nor a mapping."""
    for name, value in values.items():
        if value is not None and not isinstance(value, Mapping):
            raise KernelInputError(f"{name} must be a mapping, not {value!r}")


def check_dtype(dtype: object) -> np.dtype:
    """Return ``dtype`` as float64 or float32.

    Raises
    ------
    KernelInputError
        If it is anything else.
    """
    try:
        result = np.dtype(dtype)  # type: ignore[call-overload]
    except TypeError:
        result = np.dtype(object)
    if result not in (np.dtype(np.float64), np.dtype(np.float32)):
        raise KernelInputError(f"dtype must be float64 or float32, not {dtype!r}")
    return result


def _normalized_volume(cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Volume that the periodic vectors span over the product of their lengths, f8[N]; 1 if none is periodic."""
    length = np.linalg.norm(cell, axis=2)
    unit = cell / np.where(length > 0, length, 1.0)[:, :, None]
    gram = np.where((pbc[:, :, None] & pbc[:, None, :]), unit @ unit.transpose(0, 2, 1), np.eye(3))
    return np.sqrt(np.maximum(np.linalg.det(gram), 0.0))
