"""Voronoi cells of periodic structures: which neighbours share a face, and the solid angle of each face."""

from __future__ import annotations

import numpy as np

from matcompute_kernels.compiled import njit
from matcompute_kernels.screening.lattice import lll

__all__ = ["voronoi_faces"]

_FACES, _CORNERS = 160, 96


@njit(cache=True)
def _images(positions: np.ndarray, cell: np.ndarray, centre: int, radius: float) -> tuple:
    """Return (vectors f8[P, 3], sites i8[P], distances f8[P]) of all images within ``radius``, nearest first."""
    n = positions.shape[0]
    inverse = np.linalg.inv(cell)
    height = np.zeros(3)
    for k in range(3):
        height[k] = np.sqrt((inverse[:, k] ** 2).sum())
    vectors = np.empty((256, 3))
    sites = np.empty(256, dtype=np.int64)
    squares = np.empty(256)
    used = 0
    d, f = np.zeros(3), np.zeros(3)
    for j in range(n):
        for k in range(3):
            d[k] = positions[j, k] - positions[centre, k]
        for k in range(3):
            f[k] = d[0] * inverse[0, k] + d[1] * inverse[1, k] + d[2] * inverse[2, k]
        h0 = int(np.ceil(-f[0] - radius * height[0]))
        h1 = int(np.floor(-f[0] + radius * height[0]))
        k0 = int(np.ceil(-f[1] - radius * height[1]))
        k1 = int(np.floor(-f[1] + radius * height[1]))
        l0 = int(np.ceil(-f[2] - radius * height[2]))
        l1 = int(np.floor(-f[2] + radius * height[2]))
        for h in range(h0, h1 + 1):
            for k in range(k0, k1 + 1):
                for m in range(l0, l1 + 1):
                    x = d[0] + h * cell[0, 0] + k * cell[1, 0] + m * cell[2, 0]
                    y = d[1] + h * cell[0, 1] + k * cell[1, 1] + m * cell[2, 1]
                    z = d[2] + h * cell[0, 2] + k * cell[1, 2] + m * cell[2, 2]
                    square = x * x + y * y + z * z
                    if square > radius * radius or square < 1e-12:
                        continue
                    if used == squares.shape[0]:
                        more = np.empty((2 * used, 3))
                        more[:used] = vectors
                        vectors = more
                        more_sites = np.empty(2 * used, dtype=np.int64)
                        more_sites[:used] = sites
                        sites = more_sites
                        more_squares = np.empty(2 * used)
                        more_squares[:used] = squares
                        squares = more_squares
                    vectors[used, 0], vectors[used, 1], vectors[used, 2] = x, y, z
                    sites[used] = j
                    squares[used] = square
                    used += 1
    order = np.argsort(squares[:used])
    return vectors[:used][order], sites[:used][order], np.sqrt(squares[:used][order])


@njit(cache=True)
def _cut(
    corners: np.ndarray,
    sizes: np.ndarray,
    faces: int,
    normal: np.ndarray,
    offset: float,
    tolerance: float,
    fresh: np.ndarray,
    angles: np.ndarray,
) -> int:
    """Cut the polyhedron by normal·x ≤ offset, in place; return the corners of the new face left in ``fresh``.

    corners f8[F, C, 3] and sizes i8[F] hold the faces; a face cut away gets size 0. Returns 0 if nothing is cut or
    the plane only touches, -1 if the arrays are too small.
    """
    made = 0
    keep = np.empty((_CORNERS, 3))
    touched = False
    for f in range(faces):
        size = sizes[f]
        if size == 0:
            continue
        outside = False
        for c in range(size):
            p = corners[f, c]
            if p[0] * normal[0] + p[1] * normal[1] + p[2] * normal[2] - offset > tolerance:
                outside = True
                break
        if not outside:
            continue
        touched = True
        kept = 0
        for c in range(size):
            p, q = corners[f, c], corners[f, (c + 1) % size]
            sp = p[0] * normal[0] + p[1] * normal[1] + p[2] * normal[2] - offset
            sq = q[0] * normal[0] + q[1] * normal[1] + q[2] * normal[2] - offset
            if kept + 2 > _CORNERS or made + 2 > _CORNERS:
                return -1
            if sp <= tolerance:
                keep[kept] = p
                kept += 1
            if (sp <= tolerance) != (sq <= tolerance):
                t = min(max(sp / (sp - sq), 0.0), 1.0)
                for k in range(3):
                    keep[kept, k] = p[k] + t * (q[k] - p[k])
                    fresh[made, k] = keep[kept, k]
                kept += 1
                made += 1
        if kept < 3:
            sizes[f] = 0
        else:
            corners[f, :kept] = keep[:kept]
            sizes[f] = kept
    if not touched or made < 3:
        return 0
    centre, u, v = np.zeros(3), np.zeros(3), np.zeros(3)
    for c in range(made):
        centre += fresh[c]
    centre /= made
    axis = 0
    for k in range(3):
        if abs(normal[k]) < abs(normal[axis]):
            axis = k
    u[axis] = 1.0
    v[:] = np.cross(normal, u)
    v /= np.sqrt((v * v).sum())
    u[:] = np.cross(v, normal)
    u /= np.sqrt((u * u).sum())
    for c in range(made):
        angles[c] = np.arctan2(((fresh[c] - centre) * v).sum(), ((fresh[c] - centre) * u).sum())
    for c in range(1, made):
        angle = angles[c]
        x, y, z = fresh[c, 0], fresh[c, 1], fresh[c, 2]
        at = c
        while at > 0 and angles[at - 1] > angle:
            angles[at] = angles[at - 1]
            fresh[at] = fresh[at - 1]
            at -= 1
        angles[at] = angle
        fresh[at, 0], fresh[at, 1], fresh[at, 2] = x, y, z
    unique = 0
    for c in range(made):
        last = fresh[unique - 1] if unique > 0 else fresh[made - 1]
        if ((fresh[c] - last) ** 2).sum() > 1e-18 * offset:
            fresh[unique] = fresh[c]
            unique += 1
    return unique if unique >= 3 else 0


@njit(cache=True)
def _solid_angle(corners: np.ndarray) -> float:
    """Solid angle of a convex polygon seen from the origin (A. van Oosterom, J. Strackee, 1983)."""
    total = 0.0
    a = corners[0]
    ra = np.sqrt((a * a).sum())
    for c in range(1, corners.shape[0] - 1):
        b, d = corners[c], corners[c + 1]
        rb, rd = np.sqrt((b * b).sum()), np.sqrt((d * d).sum())
        triple = abs(
            a[0] * (b[1] * d[2] - b[2] * d[1])
            - a[1] * (b[0] * d[2] - b[2] * d[0])
            + a[2] * (b[0] * d[1] - b[1] * d[0])
        )
        below = ra * rb * rd + rd * (a * b).sum() + rb * (a * d).sum() + ra * (b * d).sum()
        total += 2.0 * np.arctan2(triple, below)
    return total


@njit(cache=True)
def voronoi_faces(
    positions: np.ndarray,
    cell: np.ndarray,
    centre: int,
    sites: np.ndarray,
    distances: np.ndarray,
    solid: np.ndarray,
) -> int:
    """Find the faces of the Voronoi cell of a site.

    The cell starts as a box and is cut by the bisectors of the neighbours, nearest first, until the next bisector lies
    beyond the farthest corner. OUTPUT: sites i8[F], distances f8[F] in Å and solid f8[F] in steradian, one for each
    face. Returns their number, or -1 if there is no room for them.
    """
    n = positions.shape[0]
    reduced = lll(cell)
    radius = 3.0 * (abs(np.linalg.det(cell)) / n) ** (1.0 / 3.0)
    corners = np.empty((_FACES, _CORNERS, 3))
    sizes = np.zeros(_FACES, dtype=np.int64)
    owner = np.empty(_FACES, dtype=np.int64)
    gap = np.empty(_FACES)
    fresh, angles = np.empty((_CORNERS, 3)), np.empty(_CORNERS)
    while True:
        vectors, names, lengths = _images(positions, reduced, centre, radius)
        half = 2.0 * radius
        faces = 6
        for axis in range(3):
            for side in range(2):
                f = 2 * axis + side
                sizes[f] = 4
                owner[f] = -1
                for c in range(4):
                    corners[f, c, axis] = half if side == 1 else -half
                    corners[f, c, (axis + 1) % 3] = half if c == 1 or c == 2 else -half
                    corners[f, c, (axis + 2) % 3] = half if c >= 2 else -half
        farthest = half * np.sqrt(3.0)
        complete = False
        for p in range(lengths.shape[0]):
            if 0.5 * lengths[p] > farthest:
                complete = True
                break
            offset = 0.5 * lengths[p] * lengths[p]
            made = _cut(corners, sizes, faces, vectors[p], offset, 1e-11 * offset, fresh, angles)
            if made < 0:
                return -1
            if made > 0:
                f = 0
                while f < faces and sizes[f] > 0:
                    f += 1
                if f == _FACES:
                    return -1
                corners[f, :made] = fresh[:made]
                sizes[f] = made
                owner[f] = names[p]
                gap[f] = lengths[p]
                faces = max(faces, f + 1)
                square = 0.0
                for g in range(faces):
                    for c in range(sizes[g]):
                        square = max(square, (corners[g, c] ** 2).sum())
                farthest = np.sqrt(square)
        if complete or farthest < 0.5 * radius:
            break
        radius *= 1.5
    used = 0
    for f in range(faces):
        if sizes[f] > 0 and owner[f] >= 0:
            if used == solid.shape[0]:
                return -1
            sites[used] = owner[f]
            distances[used] = gap[f]
            solid[used] = _solid_angle(corners[f, : sizes[f]])
            used += 1
    return used
