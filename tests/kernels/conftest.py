"""Structures and peers' outputs that the tests of the kernels share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import make_supercell

from matcompute_kernels import Batch

DATA = Path(__file__).parent / "data"
REFERENCE = Path(__file__).parents[2].parent / "shared" / "reference" / "kernels"


@pytest.fixture(scope="session")
def reference() -> Path:
    """Folder of the peers' outputs beside the repository."""
    if not REFERENCE.is_dir():
        pytest.skip(f"no reference data at {REFERENCE}")
    return REFERENCE


@pytest.fixture(scope="session")
def reference_atoms(reference: Path) -> list[Atoms]:
    from ase.io import read

    return read(reference / "structures5.extxyz", ":")


@pytest.fixture(scope="session")
def small200(reference: Path) -> Batch:
    from ase.io import read

    return Batch.from_atoms(read(reference / "small200.extxyz", ":"))


@pytest.fixture(scope="session")
def peer_cases() -> Callable[[str, str], Iterator[tuple[str, Atoms, dict[str, Any], np.ndarray]]]:
    """Cases of a file in data/: structure's name, structure, keywords, the peer's array."""

    def cases(file: str, kernel: str) -> Iterator[tuple[str, Atoms, dict[str, Any], np.ndarray]]:
        with np.load(DATA / file) as data:
            for number, case in enumerate(json.loads(str(data["cases"]))):
                if case["kernel"] == kernel:
                    name = case["structure"]
                    atoms = Atoms(
                        data[f"{name}_numbers"],
                        data[f"{name}_positions"],
                        cell=data[f"{name}_cell"],
                        pbc=data[f"{name}_pbc"],
                    )
                    yield name, atoms, case, data[f"case{number}"]

    return cases


@pytest.fixture
def crystal() -> Atoms:
    """Five atoms of three elements in a skewed cell that is shorter than most cutoffs."""
    positions = [[0.1, 0.2, -0.3], [2.1, 0.3, 0.2], [0.3, 1.8, 0.4], [-0.2, 2.2, 2.1], [1.9, 1.7, 2.3]]
    cell = [[4.1, 0.3, -0.5], [1.2, 3.9, 0.4], [-0.8, 0.9, 4.5]]
    return Atoms("NaClNaOO", positions=positions, cell=cell, pbc=True)


def rotation(seed: int) -> np.ndarray:
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


@pytest.fixture
def rotated() -> Callable[[Atoms], Atoms]:
    """Turn a structure with its cell and move it by a vector."""

    def turn(atoms: Atoms) -> Atoms:
        result = atoms.copy()
        matrix = rotation(5)
        result.set_cell(atoms.cell.array @ matrix)
        result.positions = atoms.positions @ matrix + [0.7, -1.3, 2.9]
        return result

    return turn


@pytest.fixture
def supercell() -> Callable[[Atoms], Atoms]:
    """A skewed supercell of six cells."""
    return lambda atoms: make_supercell(atoms, [[1, 1, 0], [0, 2, 0], [1, 0, 3]])


@pytest.fixture
def bad_structures(crystal: Atoms) -> dict[str, list[Atoms]]:
    """Lists whose second structure is unfit, by what is wrong with it."""
    nan, flat, empty = crystal.copy(), crystal.copy(), Atoms(cell=crystal.cell, pbc=True)
    nan.positions[2, 1] = np.nan
    flat.set_cell([[1, 0, 0], [2, 0, 0], [0, 0, 3]])
    return {name: [crystal, atoms] for name, atoms in (("nan", nan), ("singular", flat), ("no atoms", empty))}
