from __future__ import annotations

import time

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from scipy.spatial.transform import Rotation

from matcompute_kernels import Batch, entry_ids, structure_hash


def one(atoms: Atoms) -> str:
    return structure_hash(Batch.from_atoms([atoms]))[0].decode()


def rattled(atoms: Atoms, seed: int = 0) -> Atoms:
    copy = atoms.copy()
    copy.positions += np.random.default_rng(seed).normal(scale=0.1, size=copy.positions.shape)
    return copy


STRUCTURES = {
    "fcc": bulk("Cu"),
    "rocksalt": bulk("NaCl", "rocksalt", a=5.64),
    "rattled": rattled(bulk("NaCl", "rocksalt", a=5.64, cubic=True) * (2, 1, 1)),
    "triclinic": rattled(
        Atoms("AlNiO", [[0, 0, 0], [1, 1, 1], [2, 0.4, 1.3]], cell=[4, 5, 6, 70, 80, 100], pbc=True)
    ),
    "slab": fcc111("Al", (2, 2, 3), vacuum=6),
    "slab without a third vector": Atoms(
        "AlNi", [[0, 0, 0], [1, 1, 2]], cell=[[3, 0, 0], [1, 3, 0], [0, 0, 0]], pbc=[1, 1, 0]
    ),
    "molecule": molecule("CH3CH2OH"),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_invariance(name: str) -> None:
    atoms = STRUCTURES[name]
    expected = one(atoms)
    rng = np.random.default_rng(1)
    for _ in range(60):
        copy = atoms.copy()
        shift = rng.normal(size=3) * 5
        lattice = rng.integers(-3, 4, size=(len(copy), 3)) * copy.pbc
        copy.positions += shift + lattice @ copy.cell.array
        turn = Rotation.random(rng=rng).as_matrix()
        copy.positions = copy.positions @ turn
        copy.set_cell(copy.cell.array @ turn)
        copy = copy[rng.permutation(len(copy))]
        assert one(copy) == expected


def test_different_structures_differ() -> None:
    base = STRUCTURES["triclinic"]
    variants = {"base": base}
    variants["species swapped"] = base.copy()
    variants["species swapped"].numbers = base.numbers[[1, 0, 2]]
    variants["one atom moved"] = base.copy()
    variants["one atom moved"].positions[1] += [0.01, 0, 0]
    variants["cell strained"] = base.copy()
    variants["cell strained"].set_cell(base.cell.array * 1.001, scale_atoms=True)
    variants["cell sheared"] = base.copy()
    variants["cell sheared"].set_cell(
        base.cell.array @ (np.eye(3) + np.diag([0.002, 0], 1)), scale_atoms=True
    )
    variants["not periodic"] = base.copy()
    variants["not periodic"].pbc = [True, True, False]
    variants["supercell"] = base * (1, 1, 2)
    variants["isotope of another element"] = base.copy()
    variants["isotope of another element"].numbers[0] = 14
    hashes = {name: one(atoms) for name, atoms in variants.items()}
    assert len(set(hashes.values())) == len(hashes), hashes


def test_two_vacancies_at_different_distance_differ() -> None:
    """A fingerprint from near neighbours alone would drop one of these as a duplicate."""
    crystal = bulk("Al", cubic=True) * (4, 2, 2)
    near, far = crystal.copy(), crystal.copy()
    del near[[0, 16]]
    del far[[0, 32]]
    assert one(near) != one(far)


def test_broken_structure_still_has_a_hash() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.positions[1] = np.nan
    assert len(one(atoms)) == 32


def test_same_hash_in_any_batch() -> None:
    batch = Batch.from_atoms(STRUCTURES.values())
    assert structure_hash(batch).tolist() == [one(atoms).encode() for atoms in STRUCTURES.values()]


def test_entry_ids() -> None:
    batch = Batch.from_atoms([bulk("NaCl", "rocksalt", a=5.64)])
    hashes = structure_hash(batch)
    assert hashes.dtype == "S32"
    assert (
        entry_ids(batch).tolist() == entry_ids(batch, hashes).tolist() == [f"ClNa-{hashes[0].decode()[:16]}"]
    )


def test_rate() -> None:
    batch = Batch.concatenate(
        [Batch.from_atoms([rattled(STRUCTURES["rattled"], k) for k in range(50)])] * 100
    )
    structure_hash(batch[:2])
    start = time.perf_counter()
    structure_hash(batch)
    assert len(batch) / (time.perf_counter() - start) > 5000
