"""What MBTR and local MBTR share: geometries, weightings, the places of the spectra and the sums."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from matcompute_kernels.batch import Batch
from matcompute_kernels.checks import check_positive
from matcompute_kernels.compiled import njit
from matcompute_kernels.descriptors.broadening import collect, deposit
from matcompute_kernels.errors import KernelInputError

__all__ = [
    "GEOMETRIES",
    "Weighting",
    "add_pairs",
    "add_singles",
    "add_triplets",
    "block_count",
    "check_geometry",
    "cross_length",
    "degrees",
    "largest_extent",
    "local_species",
    "occurring_blocks",
    "pair_block",
    "triplet_block",
]

#: Geometry function → degree k, code of the kernels.
GEOMETRIES = {
    "atomic_number": (1, 0),
    "distance": (2, 0),
    "inverse_distance": (2, 1),
    "angle": (3, 0),
    "cosine": (3, 1),
}
_WEIGHTS = {
    1: ("unity",),
    2: ("unity", "exp", "inverse_square"),
    3: ("unity", "exp", "smooth_cutoff"),
}
_CODES = {"unity": 0, "exp": 1, "inverse_square": 2, "smooth_cutoff": 3}


@dataclass(frozen=True)
class Weighting:
    """Weighting of a pair or triplet.

    Attributes
    ----------
    function
        ``unity``, ``exp``, ``inverse_square`` or ``smooth_cutoff``.
    r_cut
        Reach of a pair, in Å (infinite for unity).
    scale, longest
        Of ``exp``: s of e^(-s x) and the largest x that counts.
    sharpness
        Of ``smooth_cutoff``.
    """

    function: str
    r_cut: float = math.inf
    scale: float = 0.0
    longest: float = math.inf
    sharpness: float = 2.0

    @classmethod
    def from_setting(cls, setting: str | Mapping[str, Any] | None, degree: int) -> Weighting:
        """Check a weighting as the peer writes it.

        Raises
        ------
        KernelInputError
            If the function is unknown for this degree or a parameter is missing, double or wrong.
        """
        if setting is None:
            setting = {"function": "unity"}
        if isinstance(setting, str):
            setting = {"function": setting}
        function = setting.get("function") if isinstance(setting, Mapping) else None
        if function not in _WEIGHTS[degree]:
            raise KernelInputError(
                f"weighting function for k={degree} must be one of {', '.join(_WEIGHTS[degree])}, not {function!r}"
            )
        if function == "unity":
            return cls("unity")
        if function == "exp":
            threshold = setting.get("threshold")
            if not isinstance(threshold, Real) or not 0 < float(threshold) < 1:
                raise KernelInputError(
                    f"weighting 'exp' needs a threshold between 0 and 1, not {threshold!r}"
                )
            if ("scale" in setting) == ("r_cut" in setting):
                raise KernelInputError("weighting 'exp' needs either 'scale' or 'r_cut'")
            sides = 1.0 if degree == 2 else 2.0
            name = "scale" if "scale" in setting else "r_cut"
            check_positive(**{f"weighting[{name!r}]": setting[name]})
            reach = -math.log(float(threshold)) / sides
            value = float(setting[name])
            scale = value if name == "scale" else reach / value
            r_cut = value if name == "r_cut" else reach / value
            return cls("exp", r_cut, scale, sides * r_cut)
        check_positive(**{"weighting['r_cut']": setting.get("r_cut", math.nan)})
        sharpness = setting.get("sharpness", 2)
        check_positive(**{"weighting['sharpness']": sharpness})
        return cls(str(function), float(setting["r_cut"]), sharpness=float(sharpness))

    def numbers(self) -> np.ndarray:
        """Code, r_cut, scale, longest x, sharpness: f8[5] for the kernels."""
        return np.array([_CODES[self.function], self.r_cut, self.scale, self.longest, self.sharpness])


def check_geometry(geometry: str | Mapping[str, Any], allowed: tuple[str, ...]) -> str:
    """Return the name of a geometry function.

    Raises
    ------
    KernelInputError
        If it is none of ``allowed``.
    """
    name = geometry.get("function") if isinstance(geometry, Mapping) else geometry
    if name not in allowed:
        raise KernelInputError(f"geometry function must be one of {', '.join(allowed)}, not {name!r}")
    return str(name)


def block_count(degree: int, s: int) -> int:
    """Number of spectra for s elements."""
    return s if degree == 1 else s * (s + 1) // 2 if degree == 2 else s * s * (s + 1) // 2


def largest_extent(batch: Batch) -> float:
    """Return a length in Å that no pair of a finite structure of the batch reaches."""
    extent = 0.0
    for begin, end in zip(batch.ptr[:-1], batch.ptr[1:]):
        extent = max(extent, float(np.linalg.norm(np.ptp(batch.positions[begin:end], axis=0))))
    return extent * 1.001 + 1.0


def local_species(element: np.ndarray, ptr: np.ndarray, s: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the elements of each structure in rising order, i8[N, s] (the rest -1), and how many, i8[N]."""
    n = len(ptr) - 1
    present = np.zeros((n, s), dtype=bool)
    present[np.repeat(np.arange(n), np.diff(ptr)), element] = True
    order = np.argsort(~present, axis=1, kind="stable")
    count = present.sum(axis=1)
    return np.where(np.arange(s) < count[:, None], order, -1), count


def occurring_blocks(
    degree: int, local_species: np.ndarray, n_local: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the blocks that the structures' own elements make: offsets i8[N + 1] and block numbers i4[B], rising.

    The blocks of a structure are in the order that :func:`pair_block` and :func:`triplet_block` give its own elements.
    """
    s = local_species.shape[1]
    lists = []
    for row, m in zip(local_species.tolist(), n_local.tolist()):
        own = row[:m]
        if degree == 1:
            lists.append(own)
        elif degree == 2:
            lists.append([pair_block(a, b, s) for k, a in enumerate(own) for b in own[k:]])
        else:
            lists.append([triplet_block(a, b, c, s) for b in own for k, a in enumerate(own) for c in own[k:]])
    offsets = np.concatenate([[0], np.cumsum([len(blocks) for blocks in lists])]).astype(np.int64)
    return offsets, np.array([b for blocks in lists for b in blocks], np.int32)


@njit(cache=True, nogil=True)
def pair_block(a: int, b: int, s: int) -> int:
    """Place of the pair a ≤ b among s elements: upper triangle by rows."""
    return b + a * s - a * (a + 1) // 2


@njit(cache=True, nogil=True)
def triplet_block(a: int, b: int, c: int, s: int) -> int:
    """Place of the triplet a ≤ c around b among s elements: b slowest, then the upper triangle by rows."""
    return b * (s * (s + 1) // 2) + c + a * s - a * (a + 1) // 2


@njit(cache=True, nogil=True)
def add_singles(
    numbers: np.ndarray,
    ptr: np.ndarray,
    element: np.ndarray,
    local_species: np.ndarray,
    n_local: np.ndarray,
    work: np.ndarray,
    table: np.ndarray,
    grid: np.ndarray,
    base: np.ndarray,
    values: np.ndarray,
) -> None:
    """k = 1: the atomic numbers. OUTPUT: adds to values f8[B, n]."""
    for s in range(ptr.shape[0] - 1):
        for a in range(n_local[s]):
            for i in range(ptr[s], ptr[s + 1]):
                if element[i] == local_species[s, a]:
                    deposit(work, a, float(numbers[i]), 1.0, grid)
            collect(work, a, table, grid, values[base[s] + a])


@njit(cache=True, nogil=True, error_model="numpy")
def add_pairs(
    first: int,
    last: int,
    pair_ptr: np.ndarray,
    neighbor: np.ndarray,
    distance: np.ndarray,
    vector: np.ndarray,
    geometry: int,
    weighting: np.ndarray,
    ptr: np.ndarray,
    element: np.ndarray,
    local_species: np.ndarray,
    n_local: np.ndarray,
    work: np.ndarray,
    table: np.ndarray,
    grid: np.ndarray,
    base: np.ndarray,
    values: np.ndarray,
) -> None:
    """k = 2: a half list of the sites ``first:last``, each pair once. OUTPUT: adds to values f8[B, n]."""
    place = np.zeros(local_species.shape[1], np.int64)
    code, scale, longest = int(weighting[0]), weighting[2], weighting[3]
    structure = np.searchsorted(ptr, first, side="right") - 1
    site = first
    while site < last:
        m = n_local[structure]
        for a in range(m):
            place[local_species[structure, a]] = a
        for i in range(site, min(last, ptr[structure + 1])):
            a = place[element[i]]
            for p in range(pair_ptr[i - first], pair_ptr[i - first + 1]):
                d = distance[p]
                b = place[element[neighbor[p]]]
                w = 1.0
                if code == 1:
                    if d > longest:
                        continue
                    w = np.exp(-scale * d)
                elif code == 2:
                    w = 1.0 / (d * d)
                x = d if geometry == 0 else 1.0 / d
                deposit(work, pair_block(min(a, b), max(a, b), m), x, w, grid)
        for block in range(base[structure + 1] - base[structure]):
            collect(work, block, table, grid, values[base[structure] + block])
        structure += 1
        site = ptr[structure]


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def smooth(d: float, r_cut: float, sharpness: float) -> float:
    """Cutoff f = 1 + y (d/R)^(y+1) - (y+1) (d/R)^y."""
    x = d / r_cut
    power = x * x if sharpness == 2.0 else x**sharpness
    return 1.0 + sharpness * power * x - (sharpness + 1.0) * power


@njit(cache=True, nogil=True, error_model="numpy")
def cross_length(ax: float, ay: float, az: float, bx: float, by: float, bz: float) -> float:
    """Length of a × b."""
    x, y, z = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    return np.sqrt(x * x + y * y + z * z)


@njit(cache=True, nogil=True, error_model="numpy")
def degrees(cosine: float, sine: float) -> float:
    """Angle from its cosine; near 0° and 180° from its sine: there the arccos of a rounded number is off by 1e-6°."""
    if cosine > 0.999:
        return np.arcsin(min(1.0, sine)) * (180.0 / np.pi)
    if cosine < -0.999:
        return 180.0 - np.arcsin(min(1.0, sine)) * (180.0 / np.pi)
    return np.arccos(cosine) * (180.0 / np.pi)


@njit(cache=True, nogil=True, error_model="numpy")
def add_triplets(
    first: int,
    last: int,
    pair_ptr: np.ndarray,
    neighbor: np.ndarray,
    distance: np.ndarray,
    vector: np.ndarray,
    geometry: int,
    weighting: np.ndarray,
    ptr: np.ndarray,
    element: np.ndarray,
    local_species: np.ndarray,
    n_local: np.ndarray,
    work: np.ndarray,
    table: np.ndarray,
    grid: np.ndarray,
    base: np.ndarray,
    values: np.ndarray,
) -> None:
    """k = 3: a full list of the sites ``first:last``, which are the middle atoms.

    OUTPUT: adds to values f8[B, n].
    """
    place = np.zeros(local_species.shape[1], np.int64)
    code, r_cut, scale, longest, sharpness = weighting
    room = 0
    for k in range(last - first):
        room = max(room, pair_ptr[k + 1] - pair_ptr[k])
    x, y, z, d, w = np.empty(room), np.empty(room), np.empty(room), np.empty(room), np.empty(room)
    far = np.empty(room)
    kind = np.empty(room, np.int64)
    structure = np.searchsorted(ptr, first, side="right") - 1
    site = first
    while site < last:
        m = n_local[structure]
        for a in range(m):
            place[local_species[structure, a]] = a
        for i in range(site, min(last, ptr[structure + 1])):
            middle = place[element[i]]
            begin = pair_ptr[i - first]
            count = pair_ptr[i - first + 1] - begin
            for p in range(count):
                x[p], y[p], z[p] = vector[begin + p, 0], vector[begin + p, 1], vector[begin + p, 2]
                d[p] = distance[begin + p]
                kind[p] = place[element[neighbor[begin + p]]]
                if code == 1:
                    w[p] = np.exp(-scale * d[p])
                elif code == 3:
                    w[p] = smooth(d[p], r_cut, sharpness)
                else:
                    w[p] = 1.0
            for p in range(count):
                xp, yp, zp, dp, wp, kp = x[p], y[p], z[p], d[p], w[p], kind[p]
                for q in range(p):
                    dx, dy, dz = x[q] - xp, y[q] - yp, z[q] - zp
                    far[q] = np.sqrt(dx * dx + dy * dy + dz * dz)
                for q in range(p):
                    weight = wp * w[q]
                    if code == 1:
                        if dp + d[q] + far[q] > longest:
                            continue
                        weight *= np.exp(-scale * far[q])
                    value = 0.5 * (dp * dp + d[q] * d[q] - far[q] * far[q]) / (dp * d[q])
                    value = max(-1.0, min(1.0, value))
                    if geometry == 0:
                        sine = 0.0
                        if abs(value) > 0.999:
                            sine = cross_length(xp, yp, zp, x[q], y[q], z[q]) / (dp * d[q])
                        value = degrees(value, sine)
                    a, c = min(kp, kind[q]), max(kp, kind[q])
                    deposit(work, triplet_block(a, middle, c, m), value, weight, grid)
        for block in range(base[structure + 1] - base[structure]):
            collect(work, block, table, grid, values[base[structure] + block])
        structure += 1
        site = ptr[structure]
