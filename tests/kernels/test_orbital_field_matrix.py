"""Orbital field matrices against matminer, and the Voronoi cells they rest on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import Voronoi

from matcompute_kernels import KernelInputError, feature_labels, orbital_field_matrix, packing
from matcompute_kernels.descriptors.voronoi import voronoi_faces

PEERS = Path(__file__).parent / "data" / "screening_peers.npz"


def peer_atoms() -> list[Atoms]:
    with np.load(PEERS) as data:
        return [
            Atoms(data[f"numbers{k}"], data[f"positions{k}"], cell=data[f"cell{k}"], pbc=True)
            for k in range(int(data["n"]))
        ]


@pytest.mark.parametrize("period_tag", [False, True])
def test_peer(period_tag: bool) -> None:
    ours = orbital_field_matrix(peer_atoms(), period_tag=period_tag)
    with np.load(PEERS) as data:
        for k in range(int(data["n"])):
            expected = data[f"ofm_period{k}" if period_tag else f"ofm{k}"]
            np.testing.assert_allclose(ours[k], expected, rtol=1e-7, atol=1e-9 * expected.max())
    assert len(feature_labels("orbital_field_matrix", period_tag=period_tag)) == ours.shape[1]


def faces(atoms: Atoms, centre: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    sites, distances, solid = np.empty(160, "i8"), np.empty(160), np.empty(160)
    n = voronoi_faces(atoms.positions, atoms.cell.array, centre, sites, distances, solid)
    return sites[:n], distances[:n], solid[:n]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_faces_of_random_cells(seed: int) -> None:
    """The faces cover the sphere, and are those of scipy's tessellation of the atoms around."""
    rng = np.random.default_rng(seed)
    cell = np.eye(3) * rng.uniform(3, 6, 3) + rng.normal(size=(3, 3)) * 0.8
    if np.linalg.det(cell) < 15:
        return
    atoms = Atoms("H3", rng.uniform(size=(3, 3)) @ cell, cell=cell, pbc=True)
    grid = np.stack(np.meshgrid(*[np.arange(-4, 5)] * 3, indexing="ij"), -1).reshape(-1, 3)
    points = (atoms.positions[None] + (grid @ cell)[:, None]).reshape(-1, 3) - atoms.positions[0]
    home = int(np.argmin(np.linalg.norm(points, axis=1)))
    near = np.argsort(np.linalg.norm(points, axis=1))[:400]
    tessellation = Voronoi(points[near])
    pairs = [p for p, v in tessellation.ridge_dict.items() if 0 in p and -1 not in v]
    expected = np.sort([np.linalg.norm(points[near][max(p)] - points[home]) for p in pairs])
    _, distances, solid = faces(atoms, 0)
    assert solid.sum() == pytest.approx(4 * np.pi, rel=1e-9)
    real = np.sort(distances[solid > 1e-7])
    assert len(real) >= 4
    for d in real:
        assert np.abs(expected - d).min() < 1e-7


@pytest.mark.parametrize(
    ("atoms", "count"), [(bulk("Po", "sc", 3.3), 6), (bulk("Fe", "bcc", 2.87), 14), (bulk("Cu"), 12)]
)
def test_faces_of_simple_lattices(atoms: Atoms, count: int) -> None:
    _, _, solid = faces(atoms, 0)
    assert (solid > 1e-6).sum() == count
    assert solid.sum() == pytest.approx(4 * np.pi, rel=1e-9)


def test_same_crystal_in_another_description(crystal: Atoms, rotated: Callable[[Atoms], Atoms]) -> None:
    same = [crystal, crystal * (2, 1, 1), rotated(crystal), crystal[[4, 3, 1, 0, 2]]]
    for values in (orbital_field_matrix(same), packing(same)):
        for row in values[1:]:
            np.testing.assert_allclose(row, values[0], rtol=1e-8, atol=1e-10)


def test_shapes_and_dtype(crystal: Atoms) -> None:
    assert orbital_field_matrix([crystal], flatten=False).shape == (1, 32, 32)
    assert orbital_field_matrix([crystal], dtype=np.float32).dtype == np.float32
    assert orbital_field_matrix([]).shape == (0, 1024)


def test_bad_input(crystal: Atoms) -> None:
    for function in (orbital_field_matrix, packing):
        with pytest.raises(KernelInputError) as error:
            function([crystal, molecule("H2O")])
        assert error.value.index == 1
    with pytest.raises(KernelInputError, match="structure 1: shells"):
        orbital_field_matrix([crystal, bulk("Cm", "fcc", 5.0)])
