"""Angular distribution function against NumPy on ASE's neighbour list; every fifth of the 200 crystals."""

from __future__ import annotations

from typing import Any

import numpy as np

from _interleaved import compare, report, small200, use_peers


def plain(atoms: Any, r_cut: float, n_bins: int) -> np.ndarray:
    """The histogram as one would write it with NumPy."""
    from ase.neighborlist import neighbor_list

    i, vector = neighbor_list("iD", atoms, r_cut)
    vector /= np.linalg.norm(vector, axis=1)[:, None]
    angles = []
    for centre in range(len(atoms)):
        mine = vector[i == centre]
        cosine = (mine @ mine.T)[np.triu_indices(len(mine), 1)]
        angles.append(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))
    return np.histogram(np.concatenate(angles), bins=n_bins, range=(0.0, 180.0), density=True)[0]


if __name__ == "__main__":
    use_peers()
    from matcompute_kernels import adf

    structures = small200(5)
    results = {
        "5 Å": compare(
            "5 Å, small200[::5]",
            lambda: adf(structures, 5.0),
            lambda: [plain(atoms, 5.0, 180) for atoms in structures],
            len(structures),
            "structures",
        )
    }
    report("adf", results, ["ase", "numpy"])
