"""Lower convex hulls in composition space by the simplex method."""

from __future__ import annotations

import numpy as np

from matcompute_kernels.compiled import njit

__all__ = ["FORMATION_TOLERANCE", "lower_hulls"]

#: Formation energies above minus this (eV/atom) do not shape the hull (pymatgen's ``formation_energy_tol``).
FORMATION_TOLERANCE = 1e-11


@njit(cache=True)
def _lowest(
    points: np.ndarray,
    cost: np.ndarray,
    count: int,
    m: int,
    target: np.ndarray,
    tolerance: float,
    basis: np.ndarray,
    inverse: np.ndarray,
    share: np.ndarray,
    price: np.ndarray,
    column: np.ndarray,
    reduced: np.ndarray,
) -> float:
    """Lower hull at ``target``: min Σ λ_j cost_j with Σ λ_j points_j = target, λ ≥ 0, by the revised simplex method.

    The first m points are the unit vectors with cost 0, hence a feasible basis. OUTPUT: basis (i8[m]), share
    (λ of the basis), price (the facet's plane). Falls back to Bland's rule where degenerate steps might cycle.
    """
    for i in range(m):
        basis[i] = i
        share[i] = target[i]
        for k in range(m):
            inverse[i, k] = 0.0
        inverse[i, i] = 1.0
    stalled = 0
    for _step in range(50 * (m + 10) + count):
        for k in range(m):
            total = 0.0
            for i in range(m):
                total += cost[basis[i]] * inverse[i, k]
            price[k] = total
        for j in range(count):
            reduced[j] = cost[j]
        for k in range(m):
            p = price[k]
            row = points[k]
            for j in range(count):
                reduced[j] -= p * row[j]
        enter = -1
        best = -tolerance
        if stalled < 4 * m + 20:
            for j in range(count):
                if reduced[j] < best:
                    best = reduced[j]
                    enter = j
        else:
            for j in range(count):
                if reduced[j] < best:
                    enter = j
                    break
        if enter < 0:
            break
        leave = -1
        step = np.inf
        pivot = 0.0
        for i in range(m):
            total = 0.0
            for k in range(m):
                total += inverse[i, k] * points[k, enter]
            column[i] = total
            if total > 1e-11:
                ratio = share[i] / total
                if ratio < step - 1e-14 or (
                    ratio <= step + 1e-14
                    and (total > pivot if stalled < 4 * m + 20 else basis[i] < basis[leave])
                ):
                    step = min(ratio, step)
                    leave = i
                    pivot = total
        if leave < 0:
            break
        step = max(share[leave] / pivot, 0.0)
        stalled = stalled + 1 if step < 1e-13 else 0
        for i in range(m):
            if i != leave:
                share[i] = max(share[i] - step * column[i], 0.0)
        share[leave] = step
        scale = 1.0 / pivot
        for k in range(m):
            inverse[leave, k] *= scale
        for i in range(m):
            if i != leave and column[i] != 0.0:
                f = column[i]
                for k in range(m):
                    inverse[i, k] -= f * inverse[leave, k]
        basis[leave] = enter
    total = 0.0
    for i in range(m):
        total += share[i] * cost[basis[i]]
    return total


@njit(cache=True)
def lower_hulls(
    system_ptr: np.ndarray,
    system_point: np.ndarray,
    parts_ptr: np.ndarray,
    parts: np.ndarray,
    elements_ptr: np.ndarray,
    elements: np.ndarray,
    fractions: np.ndarray,
    energy: np.ndarray,
    tolerance: float,
    hull_energy: np.ndarray,
    vertex: np.ndarray,
    used: np.ndarray,
    mixed: np.ndarray,
) -> None:
    """Find vertices and hull energies of all points, system by system, smaller systems first.

    A point is a composition with its lowest formation energy; ``fractions[p, k]`` belongs to the k-th element of its
    system. A vertex of the hull of a system is one of every larger system (the system is a face of the simplex), so a
    system needs only the vertices of its parts and its own points (Clarkson 1994: one small linear programme per
    point; a point below the present hull brings in the lowest point under that facet, which is a vertex).
    OUTPUT: hull_energy f8[P], vertex bool[P], used i8[P, m] (points of the facet or -1), mixed f8[P, m].
    """
    n_systems = system_ptr.shape[0] - 1
    most = 0
    width = fractions.shape[1]
    for s in range(n_systems):
        total = system_ptr[s + 1] - system_ptr[s]
        for q in range(parts_ptr[s], parts_ptr[s + 1]):
            total += system_ptr[parts[q] + 1] - system_ptr[parts[q]]
        most = max(most, total + width)
    points = np.zeros((width, most))
    cost = np.zeros(most)
    name = np.zeros(most, dtype=np.int64)
    reduced = np.zeros(most)
    basis = np.zeros(width, dtype=np.int64)
    inverse = np.zeros((width, width))
    share = np.zeros(width)
    price = np.zeros(width)
    column = np.zeros(width)
    for s in range(n_systems):
        first, last = system_ptr[s], system_ptr[s + 1]
        m = elements_ptr[s + 1] - elements_ptr[s]
        mine = elements[elements_ptr[s] : elements_ptr[s + 1]]
        if m == 1:
            for q in range(first, last):
                p = system_point[q]
                hull_energy[p] = 0.0
                vertex[p] = True
                used[p, 0] = p
                mixed[p, 0] = 1.0
            continue
        count = m
        for k in range(m):
            cost[k] = 0.0
            for i in range(m):
                points[i, k] = 1.0 if i == k else 0.0
        for q in range(parts_ptr[s], parts_ptr[s + 1]):
            t = parts[q]
            theirs = elements[elements_ptr[t] : elements_ptr[t + 1]]
            if theirs.shape[0] == 1:  # an elemental reference: its unit vector
                for k in range(m):
                    if mine[k] == theirs[0]:
                        name[k] = system_point[system_ptr[t]]
                continue
            for r in range(system_ptr[t], system_ptr[t + 1]):
                p = system_point[r]
                if not vertex[p]:
                    continue
                k = 0
                for i in range(m):
                    if k < theirs.shape[0] and mine[i] == theirs[k]:
                        points[i, count] = fractions[p, k]
                        k += 1
                    else:
                        points[i, count] = 0.0
                cost[count] = energy[p]
                name[count] = p
                count += 1
        for q in range(first, last):
            p = system_point[q]
            if energy[p] >= -FORMATION_TOLERANCE:
                continue
            while not vertex[p]:
                value = _lowest(
                    points, cost, count, m, fractions[p], tolerance,
                    basis, inverse, share, price, column, reduced,
                )  # fmt: skip
                if energy[p] >= value - tolerance:
                    break
                lowest, best = p, energy[p] - value
                for r in range(first, last):
                    o = system_point[r]
                    if vertex[o]:
                        continue
                    below = energy[o]
                    for k in range(m):
                        below -= price[k] * fractions[o, k]
                    if below < best:
                        lowest, best = o, below
                vertex[lowest] = True
                for k in range(m):
                    points[k, count] = fractions[lowest, k]
                cost[count] = energy[lowest]
                name[count] = lowest
                count += 1
        for q in range(first, last):
            p = system_point[q]
            if vertex[p]:
                hull_energy[p] = energy[p]
                used[p, 0] = p
                mixed[p, 0] = 1.0
                continue
            hull_energy[p] = _lowest(
                points, cost, count, m, fractions[p], tolerance,
                basis, inverse, share, price, column, reduced,
            )  # fmt: skip
            for i in range(m):
                used[p, i] = name[basis[i]]
                mixed[p, i] = share[i]
