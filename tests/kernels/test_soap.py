from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell, molecule
from ase.io import read
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.special import hyp1f1

from matcompute_kernels import Batch, KernelInputError, feature_labels, neighbor_list, soap
from matcompute_kernels.descriptors.soap import CONVENTIONS
from matcompute_kernels.descriptors.soap_radial import (
    _hyp1f1_scaled,
    _orthonormal_polynomials,
    radial_function,
    radial_table,
    reach,
)
from matcompute_kernels.elements import SYMBOLS
from matcompute_kernels.harmonics import harmonics8, recurrence

REFERENCE = Path(__file__).parents[2].parent / "shared" / "reference" / "kernels"
needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason="reference data is not here")
COMMON = {"r_cut": 5.0, "n_max": 8, "l_max": 6}


def error(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def rattled(atoms: Atoms, seed: int = 0) -> Atoms:
    atoms.positions += np.random.default_rng(seed).normal(0, 0.08, (len(atoms), 3))
    return atoms


@pytest.fixture(scope="module")
def five() -> list[Atoms]:
    return read(REFERENCE / "structures5.extxyz", index=":")


# -- against the peers -----------------------------------------------------------------------------------------------


@needs_reference
@pytest.mark.parametrize("sigma", [0.5, 1.0])
@pytest.mark.parametrize("k", range(5))
def test_dscribe_gto(five, sigma, k):
    # 1e-9, where 9e-12 is seen on most machines: S^(-1/2) of the peer's basis amplifies the rounding of the BLAS in use
    # (2e-10 with OPENBLAS_CORETYPE=Haswell).
    data = np.load(REFERENCE / f"dscribe_soap_gto_sigma{sigma}.npz")
    species = data[f"Z{k}"].tolist()
    assert error(soap(five[k], species, sigma=sigma, **COMMON)[:6], data[f"s{k}"]) < 1e-9
    assert error(soap(five[k], species, sigma=sigma, average="outer", **COMMON)[0], data[f"avg{k}"]) < 1e-9


@needs_reference
@pytest.mark.parametrize("sigma", [0.5, 1.0])
@pytest.mark.parametrize("k", range(5))
def test_dscribe_polynomial_is_off_by_its_rounding(five, sigma, k):
    data = np.load(REFERENCE / f"dscribe_soap_polynomial_sigma{sigma}.npz")
    got = soap(five[k], data[f"Z{k}"].tolist(), sigma=sigma, convention="polynomial", **COMMON)
    assert error(got[:6], data[f"s{k}"]) < 5e-6


def _exact_polynomial_dimer(
    r: float, n_max: int, l_max: int, r_cut: float, sigma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Power spectrum of one atom of a dimer by 40-digit mathematics; and with dscribe's basis in double precision.

    c_nl0 = Y_l0 4π ∫ g_n(q) q² exp(-η(q² + r²)) i_l(2ηqr) dq with g_n = Σ_k (S^(-1/2))_nk (r_cut - q)^(k+2).
    """
    mp = pytest.importorskip("mpmath")
    with mp.workdps(40):
        eta, cut = mp.mpf(1) / (2 * mp.mpf(sigma) ** 2), mp.mpf(r_cut)
        overlap = mp.matrix(n_max, n_max)
        for i in range(1, n_max + 1):
            for j in range(1, n_max + 1):
                overlap[i - 1, j - 1] = 2 * cut ** (7 + i + j) / ((5 + i + j) * (6 + i + j) * (7 + i + j))
        values, vectors = mp.eigsy(overlap)
        root = vectors * mp.diag([1 / mp.sqrt(v) for v in values]) * vectors.T

        def moment(k: int, l: int, r: float) -> object:
            def inside(q: object) -> object:
                bessel = mp.mpf(1)
                if r > 0:
                    z = 2 * eta * q * r
                    bessel = mp.sqrt(mp.pi / (2 * z)) * mp.besseli(l + mp.mpf(1) / 2, z)
                return (cut - q) ** (k + 2) * q**2 * mp.exp(-eta * (q**2 + r**2)) * bessel

            return 4 * mp.pi * mp.quad(inside, mp.linspace(0, cut, 5))

        # Moments of the monomials, i.e. before orthonormalisation: rows k, columns l; the atom itself at r = 0.
        far = mp.matrix(n_max, l_max + 1)
        own = mp.matrix(n_max, 1)
        for k in range(n_max):
            own[k] = moment(k + 1, 0, 0.0)
            for l in range(l_max + 1):
                far[k, l] = moment(k + 1, l, r)

        def spectrum(basis: object) -> np.ndarray:
            c = basis * far
            rows = []
            for l in range(l_max + 1):
                y = mp.sqrt((2 * l + 1) / (4 * mp.pi))
                one = [c[n, l] * y for n in range(n_max)]
                if l == 0:
                    centre = basis * own
                    one = [value + centre[n] * y for n, value in enumerate(one)]
                factor = mp.pi * mp.sqrt(mp.mpf(8) / (2 * l + 1))
                rows += [float(factor * one[a] * one[b]) for a in range(n_max) for b in range(a, n_max)]
            return np.array(rows)

        power = np.arange(1, n_max + 1)
        total = power[:, None] + power
        double = np.linalg.inv(2 * r_cut ** (7.0 + total) / ((5 + total) * (6 + total) * (7 + total)))
        return spectrum(root), spectrum(mp.matrix(np.real(sqrtm(double)).tolist()))


@pytest.mark.slow
@pytest.mark.parametrize(("r", "sigma"), [(2.1, 0.5), (4.7, 1.0)])
def test_polynomial_is_exact(r: float, sigma: float) -> None:
    """Ours is the exact value; the basis in double precision, as the peer makes it, is what is off."""
    exact, double = _exact_polynomial_dimer(r, 8, 4, 5.0, sigma)
    dimer = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, r]])
    got = soap(dimer, ["Cu"], 5.0, 8, 4, sigma=sigma, convention="polynomial")
    assert error(got[0], exact) < 1e-11
    assert error(double, exact) > 1e-7
    assert error(double, exact) > 1e3 * error(got[0], exact)


@needs_reference
@pytest.mark.parametrize("k", range(5))
def test_dscribe_compression_and_inner_average(five, k):
    data = np.load(REFERENCE / "dscribe_soap_gto_compress.npz")
    species = np.unique(five[k].numbers).tolist()
    for mode in ("mu1nu1", "mu2", "crossover"):
        got = soap(five[k], species, sigma=0.5, compression=mode, **COMMON)
        assert error(got[:6], data[f"{mode}{k}"]) < 1e-9
    assert error(soap(five[k], species, sigma=0.5, average="inner", **COMMON)[0], data[f"inner{k}"]) < 1e-9


@needs_reference
@pytest.mark.parametrize("k", range(5))
def test_featomic(five, k):
    data = np.load(REFERENCE / "featomic_ps_exact.npz")
    species = np.unique(five[k].numbers).tolist()
    rows = soap(five[k], species, sigma=0.5, convention="featomic-gto", sparse=True, **COMMON)
    blocks = [key for key in data if key.startswith(f"s{k}_c") and not key.endswith("atoms")]
    assert blocks
    for key in blocks:
        _, first, second = (int(z) for z in key[len(f"s{k}_c") :].split("_"))
        for row, site in zip(data[key], data[key + "_atoms"]):
            assert error(rows.row(site)[SYMBOLS[first], SYMBOLS[second]], row) < 1e-9


@needs_reference
def test_featomic_smoothing_and_scaling(five):
    """The stored coefficients of featomic, multiplied here, against the power spectrum."""
    data = np.load(REFERENCE / "featomic_spx_smooth_scaled.npz")
    options = {"smoothing": 0.5, "scaling": {"scale": 2.0, "rate": 1.0, "exponent": 4}}
    done = 0
    for k, atoms in enumerate(five):
        if f"s{k}_l0_c{atoms.numbers[0]}_z{atoms.numbers[0]}" not in data:
            continue
        species = np.unique(atoms.numbers).tolist()
        rows = soap(atoms, species, sigma=0.5, convention="featomic-gto", sparse=True, **COMMON, **options)
        for centre in species:
            for z in species:
                key = f"s{k}_l{{}}_c{centre}_z{z}"
                pair = (
                    SYMBOLS[z],
                    SYMBOLS[z],
                )  # featomic's samples: the centres that have a neighbour of this kind
                sites = [i for i in np.flatnonzero(atoms.numbers == centre) if pair in rows.row(i)]
                if key.format(0) not in data:
                    continue
                for sample in range(min(len(data[key.format(0)]), 2)):
                    expected = []
                    for l in range(7):
                        c = data[key.format(l)][sample]
                        expected.append((-1) ** l / np.sqrt(2 * l + 1) * (c.T @ c).ravel())
                    got = rows.row(sites[sample])[pair]
                    assert error(got, np.concatenate(expected)) < 1e-9
                    done += 1
    assert done > 3


# -- pieces ----------------------------------------------------------------------------------------------------------


def test_harmonics_are_orthonormal_and_ordered():
    x, w = np.polynomial.legendre.leggauss(24)
    phi = np.arange(48) * (2 * np.pi / 48)
    z, p = (a.ravel() for a in np.meshgrid(x, phi, indexing="ij"))
    weight = np.repeat(w, 48) * (2 * np.pi / 48)
    xyzw = np.array([np.sqrt(1 - z * z) * np.cos(p), np.sqrt(1 - z * z) * np.sin(p), z, np.ones_like(z)])
    y = np.zeros((21**2, len(z)))
    for column in range(0, len(z), 8):
        harmonics8(20, xyzw, column, recurrence(20), y, column)
    assert np.abs((y * weight) @ y.T - np.eye(21**2)).max() < 1e-12
    assert np.allclose(y[1:4], np.sqrt(3 / (4 * np.pi)) * xyzw[[1, 2, 0]])


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(
    ("n_max", "l_max", "sigma", "r_cut"), [(8, 6, 0.5, 5.0), (3, 9, 0.3, 4.0), (10, 2, 1.0, 7.0)]
)
def test_tables_keep_their_error(convention, n_max, l_max, sigma, r_cut):
    table = radial_table(convention, r_cut, n_max, l_max, sigma)
    assert table.error < 1e-11  # 2e-12 where the functions themselves are not ill-conditioned
    r = np.random.default_rng(0).random(500) * reach(convention, r_cut, sigma)
    exact = radial_function(convention, r_cut, n_max, l_max, sigma)(r)
    interval = (r * table.scale).astype(int)
    t = 2 * (r * table.scale - interval) - 1
    value = np.zeros((500, l_max + 1, table.pieces.shape[2] * 8))
    for q in range(table.pieces.shape[3]):
        value = value * t[:, None, None] + table.pieces[interval, :, :, q].reshape(500, l_max + 1, -1)
    scale = np.abs(exact).max(axis=(0, 2), keepdims=True)
    assert (np.abs(value[:, :, :n_max] - exact) / scale).max() < 2e-11


def test_polynomials_are_orthonormal():
    x, w = np.polynomial.legendre.leggauss(64)
    q = 2.5 * (x + 1)
    basis = _orthonormal_polynomials(5.0, 10, q)
    assert np.abs((basis * w * 2.5 * q * q) @ basis.T - np.eye(10)).max() < 1e-12


def test_scaled_hypergeometric_joins_its_series():
    a, z = np.array([1.5, 4.0, 7.5]), np.array([[299.0], [301.0], [450.0]])
    expected = hyp1f1(a, 3.5, z) * np.exp(-z)
    assert np.allclose(_hyp1f1_scaled(a, 3.5, z), expected, rtol=1e-12)


# -- invariances -----------------------------------------------------------------------------------------------------

vectors = st.lists(st.floats(-2, 2), min_size=9, max_size=9)


@settings(max_examples=25, deadline=None)
@given(
    cell=vectors,
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    seed=st.integers(0, 10**6),
    convention=st.sampled_from(CONVENTIONS[:2]),
)
def test_rotation_translation_permutation(cell, pbc, seed, convention):
    rng = np.random.default_rng(seed)
    matrix = np.array(cell).reshape(3, 3) + 5 * np.eye(3)
    if abs(np.linalg.det(matrix)) < 30:
        return
    numbers = rng.choice([1, 8, 26], 5)
    atoms = Atoms(numbers, scaled_positions=rng.random((5, 3)), cell=matrix, pbc=pbc)
    options = {
        "species": [1, 8, 26],
        "r_cut": 3.5,
        "n_max": 4,
        "l_max": 4,
        "sigma": 0.5,
        "convention": convention,
    }
    reference = soap(atoms, **options)
    scale = np.abs(reference).max()
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))  # also improper rotations
    turned = Atoms(numbers, positions=atoms.positions @ q, cell=matrix @ q, pbc=pbc)
    assert np.abs(soap(turned, **options) - reference).max() < 1e-9 * scale
    moved = atoms.copy()
    moved.positions += rng.normal(size=3) * 10
    moved.positions += (rng.integers(-3, 4, (5, 3)) * np.array(pbc)) @ matrix
    assert np.abs(soap(moved, **options) - reference).max() < 1e-9 * scale
    order = rng.permutation(5)
    assert np.abs(soap(atoms[order], **options) - reference[order]).max() < 1e-9 * scale


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_supercell_and_species_order(convention):
    atoms = rattled(bulk("ZnS", "zincblende", a=5.4))
    options = {"r_cut": 4.0, "n_max": 5, "l_max": 4, "sigma": 0.6, "convention": convention}
    small = soap(atoms, ["Zn", "S"], average="outer", **options)
    for average in ("outer", "inner"):
        small = soap(atoms, ["Zn", "S"], average=average, **options)
        large = make_supercell(atoms, [[1, 2, 0], [0, 2, 1], [1, 0, 1]])
        assert error(soap(large, ["S", "Zn"], average=average, **options), small) < 1e-10


def test_unused_species_leave_the_rest_as_it_is():
    atoms = rattled(bulk("NaCl", "rocksalt", a=5.64))
    options = {"r_cut": 4.0, "n_max": 3, "l_max": 2}
    few, many = soap(atoms, ["Na", "Cl"], **options), soap(atoms, ["Na", "O", "Cl", "U"], **options)
    names = feature_labels("soap", species=["Na", "O", "Cl", "U"], **options)
    wanted = feature_labels("soap", species=["Na", "Cl"], **options)
    assert len(names) == many.shape[1]
    place = {name: column for column, name in enumerate(names)}
    assert (many[:, [place[name] for name in wanted]] == few).all()
    assert np.count_nonzero(many) == np.count_nonzero(few)


# -- shapes, options -------------------------------------------------------------------------------------------------


def naive(
    atoms: Atoms, species: list[int], r_cut: float, n_max: int, l_max: int, sigma: float, convention: str
) -> np.ndarray:
    """Dense power spectrum from exact radial functions, nothing shared with the kernels but the harmonics."""
    far = reach(convention, r_cut, sigma)
    pairs = neighbor_list(atoms, far)
    i = np.concatenate([pairs.i, np.arange(len(atoms))])
    j = np.concatenate([pairs.j, np.arange(len(atoms))])
    d = np.concatenate([pairs.distance, np.zeros(len(atoms))])
    unit = np.concatenate([pairs.vector / pairs.distance[:, None], np.tile([0.0, 0, 1], (len(atoms), 1))])
    room = -(-len(i) // 8) * 8
    xyzw = np.zeros((4, room))
    xyzw[:3, : len(i)], xyzw[3] = unit.T, 1.0
    y = np.zeros(((l_max + 1) ** 2, room))
    for column in range(0, room, 8):
        harmonics8(l_max, xyzw, column, recurrence(l_max), y, column)
    radial = radial_function(convention, r_cut, n_max, l_max, sigma)(d)
    c = np.zeros((len(atoms), len(species), n_max, (l_max + 1) ** 2))
    slot = np.searchsorted(species, atoms.numbers)[j]
    for lm in range((l_max + 1) ** 2):
        np.add.at(c[:, :, :, lm], (i, slot), radial[:, int(np.sqrt(lm))] * y[lm, : len(i), None])
    columns = []
    for a in range(len(species)):
        for b in range(a, len(species)):
            for l in range(l_max + 1):
                part = slice(l * l, (l + 1) ** 2)
                p = np.einsum("inm,ikm->ink", c[:, a, :, part], c[:, b, :, part])
                if convention == "featomic-gto":
                    p *= (-1) ** l / np.sqrt(2 * l + 1) * (1 if a == b else np.sqrt(2))
                    columns.append(p.reshape(len(atoms), -1))
                else:
                    p *= np.pi * np.sqrt(8 / (2 * l + 1))
                    upper = np.triu_indices(n_max)
                    columns.append(p[:, upper[0], upper[1]] if a == b else p.reshape(len(atoms), -1))
    return np.concatenate(columns, axis=1)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(("n_max", "l_max"), [(1, 0), (2, 1), (5, 3), (8, 8), (9, 2), (12, 5), (16, 1)])
def test_every_shape(convention, n_max, l_max):
    atoms = rattled(bulk("NaCl", "rocksalt", a=5.64) * (1, 1, 2), 3)
    options = {"r_cut": 6.0, "n_max": n_max, "l_max": l_max, "sigma": 0.7, "convention": convention}
    got = soap(atoms, [11, 17], **options)
    assert got.shape == (4, len(feature_labels("soap", species=["Na", "Cl"], **options)))
    assert error(got, naive(atoms, [11, 17], **options)) < (1e-9 if n_max < 16 else 1e-8)  # ill-conditioned
    assert error(soap(atoms, [11, 17], average="outer", **options)[0], got.mean(axis=0)) < 1e-12


def test_threads_do_not_wait_for_a_chunk_that_failed(monkeypatch):
    """Places in the rows are taken in order: one that is never taken must not stop the others."""
    from matcompute_kernels.descriptors.soap_model import Model

    monkeypatch.setattr("matcompute_kernels.descriptors.soap._CHUNK_PAIRS", 60)
    batch = Batch.from_atoms([bulk("Cu", a=3.6 + 0.01 * k) for k in range(30)])
    options = {"species": ["Cu"], "r_cut": 4.0, "n_max": 3, "l_max": 2, "sigma": 0.5, "sparse": True}
    real = Model.pairs

    def pairs(self, neighbors, first, last):
        if first == 7:
            raise MemoryError("no room")
        return real(self, neighbors, first, last)

    expected = soap(batch, threads=3, **options).toarray()
    assert (expected == soap(batch, **options).toarray()).all()
    monkeypatch.setattr(Model, "pairs", pairs)
    with pytest.raises(MemoryError, match="no room"):
        soap(batch, threads=3, **options)


def test_batches_chunks_threads_sparse_and_float32(monkeypatch):
    import matcompute_kernels.descriptors.soap as module

    rng = np.random.default_rng(4)
    items = [rattled(bulk("NaCl", "rocksalt", a=5.6) * 2, k) for k in range(4)]
    items += [bulk("Al"), molecule("H2O"), rattled(bulk("MgO", "rocksalt", a=4.2) * (4, 3, 3))]
    items[1].pbc = [True, False, True]
    items[3].rotate(rng.random() * 90, "x", rotate_cell=True)
    batch = Batch.from_atoms(items)
    species = sorted({*batch.numbers.tolist()})
    options = {"species": species, "r_cut": 4.0, "n_max": 4, "l_max": 3}
    results = {}
    for average in ("off", "inner", "outer"):
        whole = soap(batch, average=average, **options)
        parts = [soap(atoms, average=average, **options) for atoms in items]
        assert np.allclose(whole, np.concatenate(parts), rtol=0, atol=1e-13 * np.abs(whole).max())
        results[average] = whole
        sparse = soap(batch, average=average, sparse=True, **options)
        assert sparse.shape == whole.shape
        assert (sparse.toarray() == whole).all()
        assert (sparse.tocsr().toarray() == whole).all()
        assert sparse.nbytes < 0.4 * whole.nbytes
        single = soap(batch, average=average, dtype=np.float32, **options)
        assert single.dtype == np.float32
        assert (single == whole.astype(np.float32)).all()
    monkeypatch.setattr(module, "_CHUNK_PAIRS", 500)
    for average, whole in results.items():
        one, two = (soap(batch, average=average, threads=threads, **options) for threads in (1, 3))
        assert (one == two).all()
        assert np.allclose(one, whole, rtol=0, atol=1e-13 * np.abs(whole).max())
        assert (soap(batch, average=average, threads=2, sparse=True, **options).toarray() == one).all()
    shared = neighbor_list(batch, 8.0)
    assert np.allclose(soap(batch, neighbors=shared, **options), results["off"], atol=1e-10)


@pytest.mark.parametrize("average", ["off", "inner", "outer"])
@pytest.mark.parametrize("sparse", [False, True])
def test_no_structures(average, sparse):
    assert soap([], ["Na", "Cl"], 5.0, 3, 2, average=average, sparse=sparse).shape == (0, 63)


def test_outer_average_is_the_mean_of_the_rows():
    atoms = rattled(bulk("NaCl", "rocksalt", a=5.64) * (3, 2, 2))
    for mode in (None, "mu1nu1", "mu2", "crossover"):
        options = {"species": [11, 17], "r_cut": 4.5, "n_max": 6, "l_max": 5, "compression": mode}
        assert error(soap(atoms, average="outer", **options)[0], soap(atoms, **options).mean(axis=0)) < 1e-12


def test_compressions_agree_with_sums_of_the_full_spectrum():
    atoms = rattled(bulk("ZnS", "wurtzite", a=3.8, c=6.2))
    options = {"species": [16, 30], "r_cut": 4.5, "n_max": 3, "l_max": 2, "convention": "featomic-gto"}
    full = soap(atoms, **options).reshape(4, 3, 3, 3, 3)  # pair, l, n, n'
    ss, sz, zz = full[:, 0], full[:, 1] / np.sqrt(2), full[:, 2]
    mixed = sz + sz.transpose(0, 1, 3, 2)
    merged = soap(atoms, compression="mu2", **options).reshape(4, 3, 3, 3)
    assert np.allclose(merged, ss + mixed + zz, atol=1e-12 * np.abs(full).max())
    groups = soap(atoms, compression={"mode": "groups", "groups": [["S", "Zn"]]}, **options)
    assert np.allclose(groups.reshape(merged.shape), merged, atol=1e-12 * np.abs(full).max())
    partial = soap(atoms, compression="mu1nu1", **options).reshape(4, 2, 3, 3, 3)
    assert np.allclose(partial[:, 0], ss + sz, atol=1e-12 * np.abs(full).max())
    only = soap(atoms, compression={"pairs": [("Zn", "S")]}, **options)
    assert (only.reshape(4, 3, 3, 3) == full[:, 1]).all()
    weighted = soap(atoms, compression={"species_weighting": {"S": 2.0, "Zn": 0.5}}, **options).reshape(
        full.shape
    )
    assert np.allclose(
        weighted * np.array([0.25, 1, 4.0])[:, None, None, None], full, atol=1e-12 * np.abs(full).max()
    )


def test_weighting():
    atoms = rattled(bulk("NaCl", "rocksalt", a=5.64))
    options = {"species": [11, 17], "r_cut": 4.5, "n_max": 4, "l_max": 3}
    plain = soap(atoms, **options)
    assert error(soap(atoms, weighting={"w0": 1.0}, **options), plain) < 1e-14
    same = {"function": "pow", "c": 2.0, "d": 2.0, "m": 400, "r0": 100.0}
    assert error(soap(atoms, weighting=same, **options), plain) < 1e-12
    alone = Atoms("Na", positions=[[0, 0, 0]])
    assert np.abs(soap(alone, weighting={"w0": 0.0}, **options)).max() == 0
    assert np.abs(soap(alone, **options)).max() > 0
    poly = {"function": "poly", "c": 1.0, "m": 2.0, "r0": 2.0}  # nearest neighbours are farther than that
    assert error(soap(atoms, weighting=poly, **options)[0], soap(alone, **options)[0]) < 1e-14
    smooth = soap(atoms, smoothing=1.0, scaling={"scale": 2.0, "rate": 1.0, "exponent": 4}, **options)
    assert 1e-3 < error(smooth, plain) < 1.0


# -- bad input -------------------------------------------------------------------------------------------------------


def test_bad_structures_are_named():
    good = bulk("NaCl", "rocksalt", a=5.64)
    nan, flat, other = good.copy(), good.copy(), bulk("Al")
    nan.positions[1, 2] = np.nan
    flat.set_cell([[1, 0, 0], [0, 1, 0], [1, 1, 0]])
    empty = Atoms(cell=[3, 3, 3], pbc=True)
    for bad, match in ((nan, "not finite"), (flat, "singular"), (other, "Al"), (empty, "no atoms")):
        with pytest.raises(KernelInputError, match=match) as caught:
            soap([good, bad, good], ["Na", "Cl"], 5.0, 4, 3)
        assert caught.value.index == 1


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"r_cut": 0.0}, "r_cut"),
        ({"r_cut": -3.0}, "r_cut"),
        ({"r_cut": 0.9}, "above 1 Å"),
        ({"sigma": 0.0}, "sigma"),
        ({"n_max": 0}, "n_max"),
        ({"n_max": 2.5}, "n_max"),
        ({"l_max": 21}, "l_max"),
        ({"l_max": -1}, "l_max"),
        ({"n_max": 40}, "linearly dependent"),
        ({"convention": "quippy"}, "convention"),
        ({"average": "mean"}, "average"),
        ({"compression": "mu3"}, "mu3"),
        ({"compression": {"mode": "groups", "groups": [["Na"]]}}, "none of the groups"),
        ({"compression": {"pairs": [("Na", "O")]}}, "not in species"),
        ({"species": ["Na", "Xx"]}, "Xx"),
        ({"species": []}, "empty"),
        ({"dtype": "int32"}, "dtype"),
        ({"dtype": np.complex128}, "dtype"),
        ({"weighting": {"function": "pow", "r0": 1.0}}, "needs"),
        ({"weighting": {"function": "gauss"}}, "function"),
        ({"smoothing": -1.0}, "smoothing"),
        ({"scaling": {"rate": 1.0}}, "scaling needs"),
    ],
)
def test_bad_parameters(change, match):
    options = {"species": ["Na", "Cl"], "r_cut": 5.0, "n_max": 4, "l_max": 3, **change}
    with pytest.raises(KernelInputError, match=match) as caught:
        soap(bulk("NaCl", "rocksalt", a=5.64), **options)
    assert caught.value.index is None


def test_parameters_that_equal_good_ones_are_still_checked():
    """Parameters of an earlier call are known again, but 4.0 == 4 and True == 1."""
    atoms = Atoms("HHe", positions=[[0, 0, 0], [0, 0, 1.5]])
    good = {"species": [1, 2], "r_cut": 3.0, "n_max": 4, "l_max": 1, "sigma": 1.0}
    expected = soap(atoms, **good)
    equal = {"species": np.array([1, 2]), "r_cut": 3, "n_max": np.int32(4), "sigma": np.float32(1.0)}
    for name, value in equal.items():
        assert (soap(atoms, **{**good, name: value}) == expected).all()
    assert (soap(atoms, **{**good, "species": iter(["He", "H"])}) == expected).all()
    for name, value in {"species": [1.0, 2], "n_max": 4.0, "l_max": True, "sigma": True}.items():
        with pytest.raises(KernelInputError):
            soap(atoms, **{**good, name: value})
    groups = {"mode": "groups", "groups": [["H"], ["He"]]}  # cannot be a key
    assert soap(atoms, compression=groups, **good).shape == soap(atoms, compression=groups, **good).shape
    with pytest.raises(KernelInputError, match="r_cut"):
        soap(atoms, **{**good, "r_cut": np.nan})
