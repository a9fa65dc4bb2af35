"""Chemical compositions as three arrays: what formula-based kernels take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from matcompute_kernels.batch import Batch
from matcompute_kernels.compiled import njit
from matcompute_kernels.elements import MAX_Z, SYMBOL_BYTES, SYMBOLS
from matcompute_kernels.errors import KernelInputError

__all__ = ["Compositions", "as_compositions"]

_DEPTH = 16  # nested brackets
_ELEMENT_OF: dict[str, int] = {s: z for z, s in enumerate(SYMBOLS) if z}

#: Atomic number of a one- or two-letter symbol at [first letter, second letter + 1].
_LETTERS = np.zeros((26, 27), dtype=np.int64)
for _z in range(1, MAX_Z + 1):
    _a, _b = SYMBOL_BYTES[_z]
    _LETTERS[_a - 65, _b - 96 if _b else 0] = _z
_LETTERS[ord("D") - 65, 0] = _LETTERS[ord("T") - 65, 0] = 1  # deuterium and tritium count as hydrogen


@dataclass(frozen=True, slots=True, eq=False)
class Compositions:
    """N compositions; composition ``i`` owns the entries ``ptr[i]:ptr[i + 1]``.

    Parameters
    ----------
    numbers
        Atomic numbers, i8[K], each at most once in a composition.
    amounts
        Amounts, f8[K], above 0, as written (not normalised).
    ptr
        Offsets, i8[N + 1].
    """

    numbers: np.ndarray
    amounts: np.ndarray
    ptr: np.ndarray

    def __len__(self) -> int:
        return self.ptr.shape[0] - 1

    @property
    def totals(self) -> np.ndarray:
        """Number of atoms of each composition as written, f8[N]."""
        return np.add.reduceat(self.amounts, self.ptr[:-1]) if len(self) else np.zeros(0)


@njit(cache=True)
def _parse(
    text: np.ndarray, letters: np.ndarray, numbers: np.ndarray, amounts: np.ndarray, ptr: np.ndarray
) -> tuple:
    """Parse null-padded formulas (u1[N, W]) into the OUTPUT arrays; return (bad row or -1, position, reason)."""
    n, width = text.shape
    amount = np.zeros((_DEPTH, 119))  # per bracket level
    order = np.zeros(119, dtype=np.int64)
    seen = np.zeros(119, dtype=np.bool_)
    levels = np.zeros(_DEPTH, dtype=np.int64)
    used = 0
    for row in range(n):
        line = text[row]
        depth, count, at, group = 0, 0, 0, -1
        while at < width and line[at] != 0:
            c = line[at]
            start = at
            z = 0
            if 65 <= c <= 90:
                second = line[at + 1] if at + 1 < width else np.uint8(0)
                if 97 <= second <= 122 and letters[c - 65, second - 96] > 0:
                    z = letters[c - 65, second - 96]
                    at += 2
                elif not 97 <= second <= 122 and letters[c - 65, 0] > 0:
                    z = letters[c - 65, 0]
                    at += 1
                else:
                    return row, start, 1
            elif c == 40 or c == 91 or c == 123:
                depth += 1
                if depth >= _DEPTH:
                    return row, start, 2
                levels[depth] = c
                amount[depth, :] = 0.0
                at += 1
                continue
            elif c == 41 or c == 93 or c == 125:
                opening = 40 if c == 41 else c - 2
                if depth == 0 or levels[depth] != opening:
                    return row, start, 3
                group = depth
                at += 1
            elif c == 32 or c == 9:
                at += 1
                continue
            else:
                return row, start, 1
            # the number that follows
            value, scale, digits, fraction = 0.0, 1.0, 0, False
            while at < width and (48 <= line[at] <= 57 or (line[at] == 46 and not fraction)):
                if line[at] == 46:
                    fraction = True
                else:
                    value = value * 10.0 + (line[at] - 48)
                    digits += 1
                    if fraction:
                        scale *= 10.0
                at += 1
            value = value / scale if digits > 0 else 1.0
            if fraction and digits == 0:
                return row, at - 1, 1
            if z > 0:
                amount[depth, z] += value
                if not seen[z]:
                    seen[z] = True
                    order[count] = z
                    count += 1
            else:
                for k in range(count):
                    amount[depth - 1, order[k]] += value * amount[group, order[k]]
                depth -= 1
        kept = 0
        for k in range(count):
            z = order[k]
            if depth == 0 and amount[0, z] > 0.0:
                numbers[used + kept] = z
                amounts[used + kept] = amount[0, z]
                kept += 1
            amount[0, z] = 0.0
            seen[z] = False
        if depth != 0:
            return row, at, 3
        if kept == 0:
            return row, 0, 4
        used += kept
        ptr[row + 1] = used
    return -1, used, 0


def as_compositions(compositions: Any) -> Compositions:
    """Return any accepted form of compositions as arrays.

    Parameters
    ----------
    compositions
        Formulas (``"Mg2SiO4"``, ``"Ca(OH)2"``, ``"Li0.5CoO2"``), mappings symbol → amount, pymatgen Compositions,
        a :class:`~matcompute_kernels.batch.Batch` (each structure's own composition), a :class:`Compositions`, or
        an array f8[N, Z] whose column ``z - 1`` is the amount of the element with atomic number ``z``.

    Raises
    ------
    KernelInputError
        If a formula cannot be read, is empty, or an amount is negative or not finite; ``index`` names it.
    """
    if isinstance(compositions, Compositions):
        return compositions
    if isinstance(compositions, Batch):
        return _from_batch(compositions)
    if isinstance(compositions, np.ndarray) and compositions.ndim == 2 and compositions.dtype.kind in "fiu":
        return _from_table(compositions)
    if isinstance(compositions, str | Mapping):
        compositions = [compositions]
    try:
        items = compositions.tolist() if isinstance(compositions, np.ndarray) else list(compositions)
    except TypeError:
        raise KernelInputError(
            f"expected formulas or compositions, not {type(compositions).__name__}"
        ) from None
    if not items:
        return Compositions(np.empty(0, "i8"), np.empty(0), np.zeros(1, "i8"))
    if isinstance(items[0], str) and all(isinstance(item, str) for item in items):
        return _from_formulas(items)
    return _from_mappings(items)


def _from_formulas(formulas: list[str]) -> Compositions:
    try:
        text = np.array(formulas, dtype=np.bytes_)
    except UnicodeEncodeError:
        index = next(i for i, f in enumerate(formulas) if not f.isascii())
        raise KernelInputError(
            f"formula {formulas[index]!r} has characters other than ASCII", index
        ) from None
    width = max(text.dtype.itemsize, 1)
    n = text.shape[0]
    table = text.view(np.uint8).reshape(n, -1) if text.dtype.itemsize else np.zeros((n, 1), np.uint8)
    most = n * min((width + 1), 119)
    numbers, amounts, ptr = np.empty(most, "i8"), np.empty(most), np.zeros(n + 1, "i8")
    row, at, reason = _parse(table, _LETTERS, numbers, amounts, ptr)
    if row >= 0:
        formula = formulas[row]
        text_of = {1: f"at {formula[at : at + 2]!r}", 2: "brackets too deep", 3: "brackets do not match"}
        raise KernelInputError(
            f"formula {formula!r} cannot be read: {text_of.get(reason, 'no element')}", row
        )
    return Compositions(numbers[:at].copy(), amounts[:at].copy(), ptr)


def _from_mappings(items: Iterable[Any]) -> Compositions:
    numbers: list[int] = []
    amounts: list[float] = []
    ptr = [0]
    for index, item in enumerate(items):
        if isinstance(item, str):
            one = _from_one(item, index)
            numbers += one.numbers.tolist()
            amounts += one.amounts.tolist()
        elif isinstance(item, Mapping):
            merged: dict[int, float] = {}
            for element, amount in item.items():
                z = _atomic_number(element, index)
                if not 0 <= amount < np.inf:
                    raise KernelInputError(f"amount of {element} is {amount}; it must be 0 or more", index)
                if amount > 0:
                    merged[z] = merged.get(z, 0.0) + float(amount)
            if not merged:
                raise KernelInputError("empty composition", index)
            numbers += merged.keys()
            amounts += merged.values()
        else:
            raise KernelInputError(f"expected a formula or a mapping, not {type(item).__name__}", index)
        ptr.append(len(numbers))
    return Compositions(np.array(numbers, "i8"), np.array(amounts, "f8"), np.array(ptr, "i8"))


def _from_one(formula: str, index: int) -> Compositions:
    try:
        return _from_formulas([formula])
    except KernelInputError as error:
        raise KernelInputError(str(error).split(": ", 1)[1], index) from None


def _atomic_number(element: Any, index: int) -> int:
    z = _ELEMENT_OF.get(element) if isinstance(element, str) else getattr(element, "Z", element)
    if isinstance(z, int | np.integer) and 0 < z <= MAX_Z:
        return int(z)
    raise KernelInputError(f"{element!r} is no chemical element", index)


def _from_batch(batch: Batch) -> Compositions:
    if len(batch) and batch.n_sites.min() == 0:
        raise KernelInputError("no atoms", int(np.argmin(batch.n_sites)))
    key = np.repeat(np.arange(len(batch)), batch.n_sites) * 128 + batch.numbers
    unique, counts = np.unique(key, return_counts=True)
    rows = unique >> 7
    if np.any((unique & 127) == 0):
        raise KernelInputError("has a site of unknown species X", int(rows[(unique & 127) == 0][0]))
    ptr = np.searchsorted(rows, np.arange(len(batch) + 1)).astype("i8")
    return Compositions((unique & 127).astype("i8"), counts.astype("f8"), ptr)


def _from_table(table: np.ndarray) -> Compositions:
    bad = ~np.isfinite(table).all(axis=1) | (table < 0).any(axis=1) | ~(table > 0).any(axis=1)
    if bad.any():
        raise KernelInputError(
            "amounts must be 0 or more, finite, and not all 0", int(np.flatnonzero(bad)[0])
        )
    if table.shape[1] > MAX_Z:
        raise KernelInputError(f"an amount table has at most {MAX_Z} columns (Z = 1 … {MAX_Z})")
    rows, columns = np.nonzero(table)
    ptr = np.searchsorted(rows, np.arange(table.shape[0] + 1)).astype("i8")
    return Compositions(columns.astype("i8") + 1, table[rows, columns].astype("f8"), ptr)
