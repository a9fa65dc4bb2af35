from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from matcompute_kernels import (
    Batch,
    KernelInputError,
    acsf,
    acsf_derivatives,
    feature_labels,
    soap_derivatives,
)
from matcompute_kernels.descriptors import acsf as module

SETTING = {
    "species": ["O", "Na", "Cl"],
    "r_cut": 4.3,
    "g2": [[0.5, 1.0], [1.0, 0.0]],
    "g3": [1.0, 0.3],
    "g4": [[0.01, 1, -1], [0.02, 2.5, 1], [0.1, 4, 1]],
    "g5": [[0.03, 3, -1]],
}


def test_reference(reference, reference_atoms):
    setting = json.loads((reference / "meta.json").read_text())["dscribe_acsf"]
    expected = np.load(reference / "dscribe_acsf.npz")
    for k, atoms in enumerate(reference_atoms):
        species = sorted(set(atoms.numbers.tolist()))
        rows = acsf(atoms, species, setting["r_cut"], g2=setting["g2"], g4=setting["g4"])
        np.testing.assert_allclose(rows, expected[f"s{k}"], rtol=1e-10, atol=1e-13)


def test_peer(peer_cases):
    n = 0
    for name, atoms, case, expected in peer_cases("dscribe_other.npz", "acsf"):
        rows = acsf(atoms, **case["keywords"])
        np.testing.assert_allclose(rows, expected, rtol=1e-9, atol=1e-12, err_msg=f"{name} {case}")
        n += 1
    assert n == 15


def test_invariances(crystal, rotated, supercell):
    rows = acsf(crystal, **SETTING)
    np.testing.assert_allclose(acsf(rotated(crystal), **SETTING), rows, rtol=1e-10, atol=1e-13)
    order = [3, 1, 4, 0, 2]
    np.testing.assert_allclose(acsf(crystal[order], **SETTING), rows[order], rtol=1e-10, atol=1e-13)
    large = supercell(crystal)
    big = acsf(large, **SETTING)
    for z in (8, 11, 17):
        np.testing.assert_allclose(
            big[large.numbers == z].sum(axis=0), 6 * rows[crystal.numbers == z].sum(axis=0), rtol=1e-9
        )
    np.testing.assert_array_equal(acsf(crystal, **SETTING | {"species": [17, 8, 11]}), rows)


def test_batch_of_parts(crystal, rotated, monkeypatch):
    batch = Batch.from_atoms([crystal, rotated(crystal), Atoms("O"), crystal])
    rows, derivatives = acsf(batch, derivatives=True, **SETTING)
    monkeypatch.setattr(module, "MAX_PAIRS", 100)
    parts, parts_derivatives = acsf(batch, derivatives=True, **SETTING)
    np.testing.assert_array_equal(parts, rows)
    np.testing.assert_array_equal(parts_derivatives.center, derivatives.center)
    np.testing.assert_array_equal(parts_derivatives.positions, derivatives.positions)
    np.testing.assert_allclose(parts_derivatives.cell, derivatives.cell, atol=1e-12)
    np.testing.assert_array_equal(parts_derivatives.strain, derivatives.strain)
    assert (rows[10] == 0).all()
    np.testing.assert_array_equal(rows[11:], rows[:5])
    single = acsf(batch, dtype=np.float32, **SETTING)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, rows, rtol=1e-6)


def test_sparse(crystal, monkeypatch):
    batch = [crystal, Atoms("O"), crystal[[1, 2]], crystal]
    setting = SETTING | {"species": ["H", "O", "Na", "Mg", "Cl", "K", "Fe"]}
    dense = acsf(batch, **setting)
    monkeypatch.setattr(module, "MAX_PAIRS", 100)
    sparse, derivatives = acsf(batch, **setting, sparse=True, derivatives=True)
    np.testing.assert_allclose(sparse.toarray(), dense, rtol=1e-13)
    np.testing.assert_array_equal(sparse.tocsr().toarray(), sparse.toarray())
    assert sparse.nbytes < dense.nbytes / 3
    assert sparse.layout.labels() == feature_labels("acsf", **setting)
    assert set(sparse.row(5)) == {("O", "any"), ("O", "O")}
    assert derivatives.strain.shape == (13, 3, 3, dense.shape[1])
    single = acsf(batch, **setting, sparse=True, dtype="float32", threads=2)
    assert single.values.dtype == np.float32
    np.testing.assert_allclose(single.toarray(), dense, rtol=1e-6)


def test_buffer_overflow(crystal):
    """More triplets of one pair of elements than the buffer holds."""
    aluminium = Atoms("Al", cell=[[0, 2.0, 2.0], [2.0, 0, 2.0], [2.0, 2.0, 0]], pbc=True)
    setting = {"g4": [[0.01, 1, 1]], "g5": [[0.01, 2, -1]]}
    rows = acsf(aluminium, ["Al"], 7.0, **setting)
    from matcompute_kernels import neighbor_list

    pairs = neighbor_list(aluminium, 7.0)
    f = 0.5 * (1 + np.cos(np.pi * pairs.distance / 7.0))
    j, k = np.triu_indices(len(pairs), 1)
    assert len(j) > 3000
    far = np.linalg.norm(pairs.vector[j] - pairs.vector[k], axis=1)
    cosine = (pairs.vector[j] * pairs.vector[k]).sum(1) / (pairs.distance[j] * pairs.distance[k])
    near = pairs.distance[j] ** 2 + pairs.distance[k] ** 2
    g5 = (0.5 * (1 - cosine) ** 2 * np.exp(-0.01 * near) * f[j] * f[k]).sum()
    f_far = np.where(far < 7.0, 0.5 * (1 + np.cos(np.pi * far / 7.0)), 0.0)
    g4 = ((1 + cosine) * np.exp(-0.01 * (near + far**2)) * f[j] * f[k] * f_far).sum()
    np.testing.assert_allclose(rows[0], [f.sum(), g4, g5], rtol=1e-11)


@pytest.mark.parametrize("pbc", [True, (True, False, True), False])
def test_derivatives(crystal, pbc):
    crystal.pbc = pbc
    derivatives = acsf_derivatives(crystal, **SETTING)
    full, step = derivatives.dense(), 1e-4

    def difference(change):
        return (acsf(change(step), **SETTING) - acsf(change(-step), **SETTING)) / (2 * step)

    for k in range(len(crystal)):
        for c in range(3):

            def move(h, k=k, c=c):
                moved = crystal.copy()
                moved.positions[k, c] += h
                return moved

            np.testing.assert_allclose(full[:, k, c], difference(move), atol=2e-7)
    by_cell, by_fractional = derivatives.cell, derivatives.cell_at_fixed_fractions(crystal)
    for a in range(3):
        for b in range(3):

            def strain(h, a=a, b=b):
                matrix = np.eye(3)
                matrix[a, b] += h
                strained = crystal.copy()
                strained.set_cell(crystal.cell.array @ matrix)
                strained.positions = crystal.positions @ matrix
                return strained

            def stretch(h, a=a, b=b, fractional=False):
                stretched, cell = crystal.copy(), crystal.cell.array.copy()
                cell[a, b] += h
                stretched.set_cell(cell, scale_atoms=fractional)
                return stretched

            np.testing.assert_allclose(derivatives.strain[:, a, b], difference(strain), atol=2e-6)
            np.testing.assert_allclose(by_cell[:, a, b], difference(stretch), atol=2e-7)
            np.testing.assert_allclose(
                by_fractional[:, a, b], difference(partial(stretch, fractional=True)), atol=2e-7
            )
    # Moving everything changes nothing.
    np.testing.assert_allclose(full.sum(axis=1), 0, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1.5, 6.0))
def test_any_cell_as_supercell(seed, r_cut):
    rng = np.random.default_rng(seed)
    cell = rng.uniform(2.0, 5.0, 3)[:, None] * (np.eye(3) + rng.uniform(-0.35, 0.35, (3, 3)))
    atoms = Atoms(["Na", "Cl"], positions=[[0, 0, 0], 0.5 * cell.sum(axis=0)], cell=cell, pbc=True)
    setting = {"g2": [[0.7, 0.5]], "g4": [[0.02, 2, 1]], "g5": [[0.02, 1, -1]]}
    rows = acsf(atoms, ["Na", "Cl"], r_cut, **setting)
    double = acsf(atoms.repeat((1, 2, 1)), ["Na", "Cl"], r_cut, **setting)
    np.testing.assert_allclose(double, np.tile(rows, (2, 1)), rtol=1e-9, atol=1e-12)
    assert np.isfinite(rows).all()


def test_derivatives_on_request(crystal):
    _, derivatives = acsf(crystal, derivatives=True, **SETTING)
    for kind in ("positions", "strain", "cell"):
        one = acsf_derivatives(crystal, wrt=[kind], **SETTING)
        np.testing.assert_array_equal(getattr(one, kind), getattr(derivatives, kind))
        assert [getattr(one, other) is None for other in ("positions", "strain", "cell")].count(True) == 2
    with pytest.raises(KernelInputError, match="not asked for"):
        acsf_derivatives(crystal, wrt=["strain"], **SETTING).dense()
    with pytest.raises(KernelInputError, match="wrt must name"):
        acsf_derivatives(crystal, wrt="forces", **SETTING)
    with pytest.raises(KernelInputError, match="sites"):
        derivatives.cell_at_fixed_fractions([crystal, crystal])


def test_same_form_as_those_of_soap(crystal):
    """Same class, same atoms that move, and a molecule without a cell has no derivative by it."""
    ours = acsf_derivatives(crystal, [8, 11, 17], 4.0, g2=[[1.0, 0.0]])
    soaps = soap_derivatives(crystal, [8, 11, 17], 4.0, 1, 0, sigma=0.01, convention="featomic-gto")
    assert type(ours) is type(soaps)
    for i in range(len(crystal)):
        mine, theirs = (d.site[d.ptr[i] : d.ptr[i + 1]] for d in (ours, soaps))
        assert sorted(mine) == sorted(theirs)
    water = molecule("H2O")
    for found in (acsf_derivatives(water, [1, 8], 4.0), soap_derivatives(water, [1, 8], 4.0, 2, 1)):
        assert np.abs(found.cell).max() < 1e-10
        np.testing.assert_allclose(found.dense().sum(axis=1), 0, atol=1e-10)
    slab = Atoms("CuAl", positions=[[0, 0, 0], [1.2, 1.4, 2]], cell=[[2.5, 0, 0], [0.3, 2.6, 0], [0, 0, 0]])
    slab.pbc = [True, True, False]
    found = acsf_derivatives(slab, [13, 29], 4.0, g2=[[1.0, 0.0]])
    assert np.abs(found.cell[:, 2]).max() < 1e-12
    assert np.abs(found.cell[:, :2]).max() > 1e-3


def test_labels(crystal):
    names = feature_labels("acsf", **SETTING)
    assert len(names) == acsf(crystal, **SETTING).shape[1]
    assert names[:3] == ["O G1", "O G2 eta=0.5 r_s=1", "O G2 eta=1 r_s=0"]
    assert names[-1] == "Cl-Cl G5 eta=0.03 zeta=3 lambda=-1"
    assert len(set(names)) == len(names)


def test_bad_input(crystal, bad_structures):
    for structures in bad_structures.values():
        with pytest.raises(KernelInputError, match="structure 1") as error:
            acsf(structures, **SETTING)
        assert error.value.index == 1
    with pytest.raises(KernelInputError, match=r"structure 1: element Na"):
        acsf([Atoms("O"), crystal], ["O", "Cl"], 3.0)
    for wrong in (
        {"r_cut": 0.0},
        {"r_cut": float("nan")},
        {"g2": [[1.0]]},
        {"g4": [[1.0, 2.0]]},
        {"g4": [[0.1, 0, 1]]},
        {"g3": [[1.0, 2.0]]},
        {"g5": "x"},
        {"dtype": "int32"},
        {"species": []},
    ):
        with pytest.raises(KernelInputError):
            acsf(crystal, **SETTING | wrong)
