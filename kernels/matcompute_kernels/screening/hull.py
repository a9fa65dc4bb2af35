"""Energy above the convex hull of formation energies, for any number of chemical systems at once."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from matcompute_kernels.compositions import Compositions, as_compositions
from matcompute_kernels.elements import SYMBOLS
from matcompute_kernels.errors import KernelInputError
from matcompute_kernels.screening.simplex import lower_hulls

__all__ = ["Hull", "energy_above_hull", "hull"]

_PRICE = (
    1e-13  # relative to the largest formation energy: a facet with a lower reduced cost is not the hull's
)


@dataclass(frozen=True, slots=True, eq=False)
class Hull:
    """The lower convex hull of N entries and each entry's place over it.

    Attributes
    ----------
    e_above_hull
        f8[N], eV/atom; 0 on the hull, NaN where an elemental reference is missing.
    formation_energy
        f8[N], eV/atom with respect to the lowest entry of each element.
    stable
        bool[N]: vertices of the hull (of several equal entries, the first).
    decomposition_ptr, decomposition_entry, decomposition_amount
        Entry ``i`` decomposes into the stable entries ``decomposition_entry[ptr[i]:ptr[i + 1]]``; the amounts are
        atomic fractions and sum to 1.
    """

    e_above_hull: np.ndarray
    formation_energy: np.ndarray
    stable: np.ndarray
    decomposition_ptr: np.ndarray
    decomposition_entry: np.ndarray
    decomposition_amount: np.ndarray

    def decomposition(self, index: int) -> dict[int, float]:
        """Return stable entry → atomic fraction for entry ``index``."""
        a, b = self.decomposition_ptr[index], self.decomposition_ptr[index + 1]
        return dict(zip(self.decomposition_entry[a:b].tolist(), self.decomposition_amount[a:b].tolist()))


def energy_above_hull(
    compositions: Any,
    energies: Any,
    *,
    per_atom: bool = False,
    references: tuple[Any, Any] | None = None,
    missing: str = "raise",
) -> np.ndarray:
    """Return the energy of each entry above the convex hull of all entries.

    Parameters
    ----------
    compositions
        N formulas, mappings symbol → amount, pymatgen Compositions, a Batch, or an amount table (see
        :func:`matcompute_kernels.compositions.as_compositions`). Entries of many chemical systems may be mixed.
    energies
        f8[N] in eV: the energy of the amounts as written, as in pymatgen's ``PDEntry`` (total energy of ``Fe4O6``;
        for amounts that sum to 1 this is the energy per atom), or per atom if ``per_atom``.
    per_atom
        Energies are per atom whatever the amounts sum to.
    references
        Further (compositions, energies) that shape the hull and are not returned.
    missing
        What to do about an entry with an element that has no elemental entry: ``"raise"``, or ``"nan"``.

    Returns
    -------
    numpy.ndarray
        f8[N], eV/atom, 0 for entries on the hull.

    Raises
    ------
    KernelInputError
        If a composition or energy is unfit, or an elemental reference is missing; ``index`` names the entry.

    Notes
    -----
    Same definition as pymatgen's ``PhaseDiagram.get_e_above_hull`` (Ong et al., Chem. Mater. 20, 1798 (2008)): of
    entries with one composition the lowest counts, positive formation energies do not shape the hull.
    """
    return hull(
        compositions, energies, per_atom=per_atom, references=references, missing=missing
    ).e_above_hull


def hull(
    compositions: Any,
    energies: Any,
    *,
    per_atom: bool = False,
    references: tuple[Any, Any] | None = None,
    missing: str = "raise",
) -> Hull:
    """Return energies above hull, formation energies, stable entries and decompositions.

    The parameters are those of :func:`energy_above_hull`; entries of ``references`` follow the N own ones in every
    array of the result but ``e_above_hull`` and ``formation_energy``, which hold the own ones.
    """
    if missing not in ("raise", "nan"):
        raise KernelInputError(f"missing must be 'raise' or 'nan', not {missing!r}")
    table = as_compositions(compositions)
    energy = _energies(energies, table, per_atom)
    own = len(table)
    if references is not None:
        extra = as_compositions(references[0])
        energy = np.concatenate([energy, _energies(references[1], extra, per_atom)])
        table = Compositions(
            np.concatenate([table.numbers, extra.numbers]),
            np.concatenate([table.amounts, extra.amounts]),
            np.concatenate([table.ptr, extra.ptr[1:] + table.ptr[-1]]),
        )
    n = len(table)
    numbers, fractions, size = _padded(table)
    first, point_of = _points(numbers, fractions, energy)

    unary = size == 1
    reference = np.full(119, np.inf)
    np.minimum.at(reference, numbers[unary, 0], energy[unary])
    reference[0] = 0.0  # padding
    known = np.isfinite(reference[numbers]).all(axis=1)
    if missing == "raise" and not known.all():
        index = int(np.flatnonzero(~known)[0])
        lacking = sorted({SYMBOLS[z] for z in numbers[index] if not np.isfinite(reference[z])})
        raise KernelInputError(
            f"no entry of elemental {', '.join(lacking)}; add one, or pass missing='nan'", index
        )
    formation = np.full(n, np.nan)
    formation[known] = energy[known] - (fractions[known] * reference[numbers[known]]).sum(axis=1)
    formation[unary & (energy == reference[numbers[:, 0]])] = 0.0

    points = len(first)
    hull_energy, vertex = np.full(points, np.nan), np.zeros(points, bool)
    used = np.full((points, numbers.shape[1]), -1, dtype="i8")
    mixed = np.zeros((points, numbers.shape[1]))
    rows = np.flatnonzero(known[first])
    if rows.size:
        scale = float(np.abs(formation[first[rows]]).max())
        system_ptr, system_point, parts_ptr, parts, elements_ptr, elements = _systems(
            numbers[first], size[first], rows
        )
        lower_hulls(
            system_ptr, system_point, parts_ptr, parts, elements_ptr, elements,
            fractions[first], formation[first], max(_PRICE * scale, 1e-15), hull_energy, vertex, used, mixed,
        )  # fmt: skip
    above = np.maximum(formation - hull_energy[point_of], 0.0)
    stable = np.zeros(n, bool)
    stable[first[vertex]] = True
    above[stable] = 0.0

    # λ below pymatgen's numerical_tol is no part of a decomposition
    part = mixed[point_of] > 1e-8
    ptr = np.zeros(n + 1, "i8")
    np.cumsum(part.sum(axis=1), out=ptr[1:])
    return Hull(above[:own], formation[:own], stable, ptr, first[used[point_of][part]], mixed[point_of][part])


def _energies(energies: Any, table: Compositions, per_atom: bool) -> np.ndarray:
    try:
        energy = np.asarray(energies, dtype="f8")
    except (TypeError, ValueError):
        raise KernelInputError("energies must be numbers, one for each composition") from None
    if energy.shape != (len(table),):
        raise KernelInputError(f"energies have shape {energy.shape} for {len(table)} compositions")
    if not np.isfinite(energy).all():
        raise KernelInputError("energy is not finite", int(np.flatnonzero(~np.isfinite(energy))[0]))
    return energy if per_atom else energy / table.totals


def _padded(table: Compositions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return elements (ascending, padded by 0), atomic fractions and number of elements of each entry."""
    n = len(table)
    size = np.diff(table.ptr)
    row = np.repeat(np.arange(n), size)
    order = np.argsort(row * 128 + table.numbers, kind="stable")
    place = np.arange(table.numbers.shape[0]) - np.repeat(table.ptr[:-1], size)
    width = int(size.max()) if n else 1
    numbers = np.zeros((n, width), dtype="i8")
    fractions = np.zeros((n, width))
    numbers[row, place] = table.numbers[order]
    fractions[row, place] = table.amounts[order]
    fractions /= fractions.sum(axis=1, keepdims=True)
    return numbers, fractions, size


def _points(numbers: np.ndarray, fractions: np.ndarray, energy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest entry of each distinct composition, i8[P], and each entry's composition, i8[N]."""
    n = numbers.shape[0]
    if n == 0:
        return np.zeros(0, "i8"), np.zeros(0, "i8")
    key = np.ascontiguousarray(np.concatenate([numbers, np.rint(fractions * 1e10).astype("i8")], axis=1))
    codes = key.view(np.dtype((np.void, key.dtype.itemsize * key.shape[1]))).ravel()
    _, group = np.unique(codes, return_inverse=True)
    order = np.lexsort((np.arange(n), energy, group))
    head = np.ones(n, bool)
    head[1:] = group[order][1:] != group[order][:-1]
    return order[head], group.ravel()


def _systems(numbers: np.ndarray, size: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, ...]:
    """Sort the points ``rows`` into chemical systems, smaller first, and find the parts of each system."""
    members: dict[tuple[int, ...], list[int]] = {}
    for row, elements, k in zip(rows.tolist(), numbers[rows].tolist(), size[rows].tolist()):
        members.setdefault(tuple(elements[:k]), []).append(row)
    systems = sorted(members, key=lambda s: (len(s), s))
    place = {system: i for i, system in enumerate(systems)}
    as_sets = [frozenset(system) for system in systems]
    parts: list[int] = []
    parts_ptr = [0]
    for i, system in enumerate(systems):
        if 2 ** len(system) <= 4 * i + 64:
            for k in range(1, len(system)):
                for part in combinations(system, k):
                    at = place.get(part)
                    if at is not None:
                        parts.append(at)
        else:
            parts += [j for j in range(i) if as_sets[j] < as_sets[i]]
        parts_ptr.append(len(parts))
    system_point = [row for system in systems for row in members[system]]
    system_ptr = np.cumsum([0] + [len(members[s]) for s in systems])
    elements = [z for system in systems for z in system]
    elements_ptr = np.cumsum([0] + [len(s) for s in systems])
    return tuple(
        np.asarray(a, dtype="i8")
        for a in (system_ptr, system_point, parts_ptr, parts, elements_ptr, elements)
    )
