from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

import matcompute_kernels
from matcompute_kernels import (
    Batch,
    KernelInputError,
    as_batch,
    feature_labels,
    soap,
    structure_problems,
)
from matcompute_kernels.checks import check_batch, check_dtype, check_species, species_index


def test_import_is_lazy_and_every_name_is_there():
    code = "import sys, matcompute_kernels; sys.exit('numba' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    for name in matcompute_kernels.__all__:
        assert getattr(matcompute_kernels, name).__name__ == name
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = matcompute_kernels.no_such_name


def test_as_batch_takes_all_kinds():
    atoms = [bulk("Al"), molecule("H2O")]
    batch = Batch.from_atoms(atoms)
    assert as_batch(batch) is batch
    structure = batch.to_structure(0)
    for given in (atoms, tuple(atoms), iter(atoms), [structure, atoms[1]]):
        got = as_batch(given)
        assert len(got) == 2
        assert np.allclose(got.positions, batch.positions)
        assert (got.numbers == batch.numbers).all()
    assert len(as_batch(atoms[0])) == len(as_batch(structure)) == 1
    assert len(as_batch([])) == 0


def test_as_batch_names_what_it_cannot_take():
    for bad in ("Al", 3.0, None):
        with pytest.raises(KernelInputError) as error:
            as_batch([bulk("Al"), bad])
        assert error.value.index == 1
    with pytest.raises(KernelInputError, match="not float"):
        as_batch(3.0)
    pymatgen = pytest.importorskip("pymatgen.core")
    mixed = pymatgen.Structure(np.eye(3) * 4, [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]])
    with pytest.raises(KernelInputError, match="disordered") as error:
        as_batch([bulk("Al"), mixed])
    assert error.value.index == 1
    wrong = bulk("Al")
    wrong.arrays["positions"] = np.array([["a", "b", "c"]])
    with pytest.raises(KernelInputError) as error:
        as_batch([bulk("Al"), wrong])
    assert error.value.index == 1


def test_problems_are_all_listed_and_the_quick_check_agrees():
    nan, flat, thin = bulk("Al"), bulk("Al"), Atoms("Al", cell=[[1, 0, 0], [0, 1, 0], [1, 1, 1e-9]], pbc=True)
    nan.positions[0, 0] = np.inf
    flat.cell[1] = 0
    line = Atoms("Al", cell=[[0, 0, 0], [0, 3, 0], [0, 0, 0]], pbc=[False, True, False])
    items = [bulk("Al"), nan, flat, Atoms(), thin, molecule("H2O"), line]
    batch = as_batch(items)
    assert sorted(structure_problems(batch)) == [1, 2, 3, 4]
    assert sorted(structure_problems(batch, ["Al"])) == [1, 2, 3, 4, 5]
    for k in range(len(items)):
        if k in (1, 2, 3, 4):
            with pytest.raises(KernelInputError) as error:
                check_batch(batch[k])
            assert error.value.index == 0
        else:
            check_batch(batch[k])
    good = batch[[0, 5, 6]]
    check_batch(good, ["Al", "H", "O"])
    with pytest.raises(KernelInputError, match="element O"):
        check_batch(good, ["Al", "H"])


def test_species_and_dtype():
    assert check_species(["O", 1, "O", 8]).tolist() == [1, 8]
    batch = as_batch(molecule("H2O"))
    assert species_index(batch, check_species(["H", "O"])).tolist() == [1, 0, 0]
    for bad in ([], ["Q"], [-1], [300], [1.5]):
        with pytest.raises(KernelInputError):
            check_species(bad)
    assert check_dtype("f4") == np.float32
    for bad in ("int64", "f2", object(), "what"):
        with pytest.raises(KernelInputError):
            check_dtype(bad)


def test_error_survives_a_pool():
    error = KernelInputError("no atoms", 7)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.index) == ("structure 7: no atoms", 7)


def test_feature_labels():
    names = feature_labels("soap", species=["Na", "Cl"], n_max=2, l_max=1, r_cut=5.0)
    assert names[:4] == ["Na-Na l=0 n=0 n=0", "Na-Na l=0 n=0 n=1", "Na-Na l=0 n=1 n=1", "Na-Na l=1 n=0 n=0"]
    assert len(names) == len(set(names)) == soap(bulk("NaCl", "rocksalt", a=5), [11, 17], 5.0, 2, 1).shape[1]
    partial = feature_labels("soap", species=["Na", "Cl"], n_max=2, l_max=0, compression="mu1nu1")
    assert partial[0] == "Na-any l=0 n=0 n=0"
    with pytest.raises(KernelInputError, match="descriptors are"):
        feature_labels("soup")
    with pytest.raises(KernelInputError, match="soup"):
        feature_labels("soup")
