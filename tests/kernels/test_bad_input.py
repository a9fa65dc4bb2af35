"""Bad input of every public kernel: one exception, `KernelInputError`, which names the structure or the parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st

import matcompute_kernels as kernels
from matcompute_kernels import Batch, KernelInputError
from matcompute_kernels.drivers import ArraySource, Job, NpyDirectorySink, run

S = ["Na", "Cl"]
GRID = {"min": 0.0, "max": 1.0, "sigma": 0.05, "n": 20}
DECAY = {"function": "exp", "scale": 0.8, "threshold": 1e-2}
GOOD = bulk("NaCl", "rocksalt", a=5.6)
FEATURES = np.random.default_rng(0).random((20, 4))

#: Kernels of structures, with parameters that are right.
DESCRIPTORS: dict[str, dict[str, Any]] = {
    "neighbor_list": {"r_cut": 3.0},
    "soap": {"species": S, "r_cut": 3.0, "n_max": 2, "l_max": 2},
    "soap_derivatives": {"species": S, "r_cut": 3.0, "n_max": 2, "l_max": 2},
    "acsf": {"species": S, "r_cut": 3.0, "g2": [[1.0, 0.0]]},
    "acsf_derivatives": {"species": S, "r_cut": 3.0, "g2": [[1.0, 0.0]]},
    "mbtr": {"species": S, "grid": GRID, "weighting": DECAY},
    "local_mbtr": {"species": S, "grid": GRID, "weighting": DECAY},
    "valle_oganov": {"species": S, "r_cut": 4.0},
    "coulomb_matrix": {},
    "sine_matrix": {},
    "ewald_matrix": {},
    "rdf": {"r_cut": 5.0},
    "prdf": {"species": S, "r_cut": 5.0},
    "adf": {"species": S, "r_cut": 3.0},
    "steinhardt": {"r_cut": 3.0},
    "xrd": {},
    "orbital_field_matrix": {},
    "packing": {},
    "duplicate_groups": {},
}
#: Kernels of features: called with the bad matrix in place of each argument that is one.
SCREENING: dict[str, Callable[[Any], Any]] = {
    "knn": lambda x: kernels.knn(x, 2),
    "fps": lambda x: kernels.fps(x, 2),
    "cur": lambda x: kernels.cur(x, 2),
    "kernel_matrix": kernels.kernel_matrix,
    "novelty": lambda x: kernels.novelty(x, FEATURES),
    "pareto_front": kernels.pareto_front,
}
#: Names that take neither: told apart below, or nothing can be wrong with their input.
OTHERS = {
    "Batch",
    "KernelInputError",
    "NeighborList",
    "as_batch",
    "energy_above_hull",
    "entry_ids",
    "feature_labels",
    "magpie",
    "rematch",
    "structure_hash",
    "structure_problems",
}


def test_no_public_name_is_left_out() -> None:
    assert {*DESCRIPTORS, *SCREENING, *OTHERS} == set(kernels.__all__)


def _bad(kind: str) -> Atoms:
    atoms = GOOD.copy()
    if kind in ("nan position", "infinite position"):
        atoms.positions[1, 0] = np.nan if kind.startswith("nan") else -np.inf
    elif kind == "singular cell":
        atoms.cell[1] = 2 * atoms.cell[0]
    elif kind == "nan cell":
        atoms.cell[2, 2] = np.nan
    elif kind == "no atoms":
        atoms = Atoms(cell=np.eye(3) * 4, pbc=True)
    elif kind == "foreign species":
        atoms.numbers[0] = 26
    elif kind == "no element":
        atoms.numbers[0] = 0
    elif kind == "complex positions":
        atoms.arrays["positions"] = atoms.positions.astype(complex)
    elif kind == "text positions":
        atoms.arrays["positions"] = np.array([["a", "b", "c"]] * 2)
    elif kind == "half a proton":
        atoms.arrays["numbers"] = np.array([11.5, 17.0])
    elif kind == "element 200":
        atoms.arrays["numbers"] = np.array([200, 17])
    return atoms


@pytest.mark.parametrize("name", DESCRIPTORS)
@pytest.mark.parametrize(
    "kind",
    [
        "nan position",
        "infinite position",
        "singular cell",
        "nan cell",
        "no atoms",
        "foreign species",
        "no element",
    ],
)
@pytest.mark.parametrize("packed", [False, True], ids=["list", "batch"])
def test_structure_is_named(name: str, kind: str, packed: bool) -> None:
    if kind == "foreign species" and "species" not in DESCRIPTORS[name]:
        pytest.skip("it takes every element")
    if kind == "singular cell" and name == "coulomb_matrix":
        pytest.skip("it ignores the lattice")
    items: Any = [GOOD, GOOD, _bad(kind), GOOD]
    with pytest.raises(KernelInputError) as error:
        getattr(kernels, name)(Batch.from_atoms(items) if packed else items, **DESCRIPTORS[name])
    assert error.value.index == 2
    assert str(error.value).startswith("structure 2: ")


@pytest.mark.parametrize("name", [*DESCRIPTORS, "structure_hash", "entry_ids"])
@pytest.mark.parametrize("kind", ["complex positions", "text positions", "half a proton", "element 200"])
def test_arrays_that_are_no_structures(name: str, kind: str) -> None:
    with pytest.raises(KernelInputError) as error:
        getattr(kernels, name)([GOOD, _bad(kind)], **DESCRIPTORS.get(name, {}))
    assert error.value.index == 1
    for nothing in (5, "x", None, [GOOD, None]):
        with pytest.raises(KernelInputError):
            getattr(kernels, name)(nothing, **DESCRIPTORS.get(name, {}))


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_mixed_number_types_are_taken(name: str) -> None:
    """float32, integer and object arrays of numbers beside float64 ones give the float64 result."""
    other = GOOD.copy()
    other.arrays["positions"] = np.round(GOOD.positions).astype(np.int64)
    same = GOOD.copy()
    same.positions = np.round(GOOD.positions)
    mixed, plain = (getattr(kernels, name)([GOOD, x], **DESCRIPTORS[name]) for x in (other, same))
    if isinstance(plain, np.ndarray):
        np.testing.assert_array_equal(mixed, plain)


WRONG: dict[str, list[Any]] = {
    "r_cut": [0, -1.0, float("nan"), float("inf"), "5", [1], True, 1e9],
    "sigma": [0, -1.0, float("nan"), float("inf"), "5", None],
    "n_max": [0, -1, 2.5, "3", None, 10**6],
    "l_max": [-1, 99, 2.5, "3", None],
    "l": [-1, 99, [], [2.5], "x"],
    "n_atoms_max": [0, 1, -1, 2.5, "x"],
    "bin_size": [0, -1.0, float("nan"), 1e9, "x"],
    "n_bins": [0, -1, 2.5, "x"],
    "species": [[], ["Qq"], [300], [1.5], 5],
    "dtype": ["int64", "what", len, "f2"],
    "threads": [0, -1, "2", 1.5],
    "convention": ["x", None],
    "average": ["x", 5],
    "compression": ["x", 5, {"mode": "x"}, {"foo": 1}, {"mode": "groups", "groups": [["Na"]]}],
    "weighting": ["x", 5, {"function": "x"}],
    "smoothing": [0, -1, "x"],
    "scaling": [5, {"scale": 1}],
    "g2": [5, [[1]], [["a", 0]], [[float("nan"), 0]]],
    "g3": [["a"], [float("nan")]],
    "g4": [[[1]], [[float("nan"), 1, 1]]],
    "g5": [[[1]]],
    "grid": [5, {}, {**GRID, "min": 2.0}, {**GRID, "sigma": 0}, {**GRID, "n": 0}, {**GRID, "n": 2.5}],
    "geometry": ["x", 5],
    "normalization": ["x", 5],
    "function": ["x", 5],
    "permutation": ["x", 5],
    "accuracy": [0, -1, 2, "x"],
    "wavelength": ["x", 0, -1, None],
    "two_theta_range": [(90, 0), (0,), 5, (-1, 200)],
    "debye_waller_factors": [{"Qq": 1}, 5],
    "ltol": [-1, "x", float("nan")],
    "stol": [-1, "x"],
    "angle_tol": [-1, "x"],
    "wrt": [("x",), 5],
    "neighbors": [5, "short", "half", "other"],
}


def _cases() -> list[tuple[str, str, Any]]:
    import inspect

    found = []
    for name in DESCRIPTORS:
        for key in inspect.signature(getattr(kernels, name)).parameters:
            if (name, key) != ("steinhardt", "average"):
                found += [(name, key, value) for value in WRONG.get(key, [])]
    return found


@pytest.mark.parametrize(("name", "key", "value"), _cases(), ids=lambda x: str(x)[:30])
def test_parameter_is_refused(name: str, key: str, value: Any) -> None:
    batch = Batch.from_atoms([GOOD, GOOD])
    if key == "neighbors" and isinstance(value, str):
        value = {
            "short": kernels.neighbor_list(batch, 1.0),
            "half": kernels.neighbor_list(batch, 9.0, full=False),
            "other": kernels.neighbor_list(batch[0], 9.0),
        }[value]
    if name == "rdf" and key == "species":
        pytest.skip("not a parameter")
    with pytest.raises(KernelInputError) as error:
        getattr(kernels, name)(batch, **{**DESCRIPTORS[name], key: value})
    assert error.value.index is None or key in ("r_cut", "sigma", "n_atoms_max")


MATRICES: dict[str, Any] = {
    "nan": np.where(np.arange(80).reshape(20, 4) == 13, np.nan, FEATURES),
    "infinite": np.where(np.arange(80).reshape(20, 4) == 13, np.inf, FEATURES),
    "complex": FEATURES + 1j,
    "ragged": [[1, 2], [3]],
    "text": [["a", "b"]],
    "three dimensions": FEATURES[None],
    "no columns": FEATURES[:, :0],
    "nothing": None,
}


@pytest.mark.parametrize("name", SCREENING)
@pytest.mark.parametrize("kind", MATRICES)
def test_features_are_refused(name: str, kind: str) -> None:
    with pytest.raises(KernelInputError) as error:
        SCREENING[name](MATRICES[kind])
    assert error.value.index == (3 if kind in ("nan", "infinite") else None)


@pytest.mark.parametrize("kind", MATRICES)
@pytest.mark.parametrize("kernel", ["rematch", "average"])
def test_site_features_are_refused(kind: str, kernel: str) -> None:
    call = kernels.rematch if kernel == "rematch" else lambda x: kernels.kernel_matrix(x, kernel="average")
    with pytest.raises(KernelInputError) as error:
        call([FEATURES, MATRICES[kind]])
    assert error.value.index == 1
    for wrong in (5, [FEATURES, FEATURES[:, :2]], [FEATURES, FEATURES[:0]]):
        with pytest.raises(KernelInputError):
            call(wrong)


@pytest.mark.parametrize(
    "call",
    [
        lambda k: kernels.knn(FEATURES, k),
        lambda k: kernels.fps(FEATURES, k),
        lambda k: kernels.cur(FEATURES, k),
        lambda k: kernels.novelty(FEATURES, FEATURES, k=k),
        lambda k: kernels.cur(FEATURES, 2, k=k),
        lambda k: kernels.kernel_matrix(FEATURES, tile=k),
    ],
)
@pytest.mark.parametrize("value", [0, -1, 2.5, "x", None])
def test_counts_are_refused(call: Callable[[Any], Any], value: Any) -> None:
    with pytest.raises(KernelInputError):
        call(value)


@pytest.mark.parametrize(
    "call",
    [
        lambda: kernels.knn(FEATURES, 21),
        lambda: kernels.fps(FEATURES, 21),
        lambda: kernels.fps(FEATURES, 2, start=20),
        lambda: kernels.cur(FEATURES, 2, axis=2),
        lambda: kernels.knn(FEATURES, 2, metric="x"),
        lambda: kernels.knn(FEATURES, 2, queries=FEATURES[:, :2]),
        lambda: kernels.kernel_matrix(FEATURES, kernel="x"),
        lambda: kernels.kernel_matrix(FEATURES, FEATURES[:, :2]),
        lambda: kernels.kernel_matrix(FEATURES, kernel="laplacian", gamma=float("nan")),
        lambda: kernels.kernel_matrix(FEATURES, out=np.zeros(3)),
        lambda: kernels.rematch([FEATURES], alpha=0),
        lambda: kernels.rematch([FEATURES], metric="x"),
        lambda: kernels.pareto_front(FEATURES, [True]),
        lambda: kernels.pareto_front(FEATURES, fronts=0),
        lambda: kernels.novelty(FEATURES, None),
        lambda: kernels.feature_labels("soup"),
        lambda: kernels.energy_above_hull(["Na", "Cl"], [0, 0], missing="x"),
    ],
)
def test_other_parameters_are_refused(call: Callable[[], Any]) -> None:
    with pytest.raises(KernelInputError):
        call()


@pytest.mark.parametrize("wrong", ["Qq", "", 5, "Na2(", "Na-1", {"Na": -1}, {"Na": float("nan")}, {}, None])
def test_composition_is_named(wrong: Any) -> None:
    with pytest.raises(KernelInputError) as error:
        kernels.magpie(["NaCl", wrong])
    assert error.value.index == 1
    with pytest.raises(KernelInputError) as error:
        kernels.energy_above_hull(["Na", "Cl", wrong], [0.0, 0.0, 0.0])
    assert error.value.index == 2
    with pytest.raises(KernelInputError) as error:
        kernels.energy_above_hull(["Na", "Cl", "NaCl"], [0.0, 0.0, float("nan")])
    assert error.value.index == 2


PER_ENTRY = [
    "coulomb_matrix",
    "rdf",
    "prdf",
    "packing",
    "orbital_field_matrix",
    "sine_matrix",
    "ewald_matrix",
]


@pytest.mark.parametrize(
    "name", [*PER_ENTRY, "soap", "acsf", "steinhardt", "mbtr", "local_mbtr", "adf", "xrd"]
)
def test_in_a_job_the_rest_goes_on(name: str, tmp_path: Any) -> None:
    kinds = ["nan position", "singular cell", "no atoms", "no element", "nan cell"]
    items = [GOOD]
    for kind in kinds:
        items += [_bad(kind), GOOD]
    more = {"n_atoms_max": 2} if name.endswith("_matrix") and name != "orbital_field_matrix" else {}
    sink = NpyDirectorySink(tmp_path / "out")
    job = Job(name, ArraySource(items, size=4), sink, {**DESCRIPTORS[name], **more})
    summary = run(job)
    expected = {1, 3, 5, 7, 9} - ({3} if name == "coulomb_matrix" else set())
    assert set(summary.problems) == set(sink.problems()) == expected


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 6),
    st.lists(
        st.sampled_from(["nan position", "singular cell", "no atoms", "nan cell"]), min_size=1, max_size=4
    ),
)
def test_the_first_bad_structure_is_named(before: int, kinds: list[str]) -> None:
    items = [GOOD] * before + [_bad(kind) for kind in kinds] + [GOOD]
    with pytest.raises(KernelInputError) as error:
        kernels.rdf(items, 5.0)
    assert error.value.index == before
    assert sorted(kernels.structure_problems(Batch.from_atoms(items))) == list(
        range(before, before + len(kinds))
    )
