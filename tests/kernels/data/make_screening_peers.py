"""Make screening_peers.npz: what matminer, dscribe and skmatter say. Run in .venv-peers."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from ase.build import bulk
from dscribe.kernels import AverageKernel, REMatchKernel
from matminer.featurizers.composition import ElementProperty
from matminer.featurizers.structure.matrix import OrbitalFieldMatrix
from matminer.featurizers.structure.order import DensityFeatures, MaximumPackingEfficiency
from pymatgen.core import Composition, Element
from pymatgen.io.ase import AseAtomsAdaptor as A
from skmatter.feature_selection import CUR as FCUR
from skmatter.sample_selection import CUR, FPS

D = {}
rng = np.random.default_rng(11)
els = [Element.from_Z(z).symbol for z in range(1, 104)]
forms = [
    "".join(f"{e}{rng.integers(1, 12)}" for e in rng.choice(els, rng.integers(1, 6), replace=False))
    for _ in range(60)
] + ["Ca(OH)2", "Li0.35CoO1.9", "K2[PtCl6]", "(NH4)2SO4", "He", "Fe3.5O0.5"]
D["magpie_formulas"] = np.array(forms)
for imp in (True, False):
    e = ElementProperty.from_preset("magpie", impute_nan=imp)
    D[f"magpie_{int(imp)}"] = np.array([e.featurize(Composition(f)) for f in forms])
rutile = bulk("ZnO", "wurtzite", 3.25, c=5.2)
skew = bulk("NaCl", "rocksalt", 5.64) * (1, 1, 2)
skew.rattle(0.1, seed=3)
skew.set_cell(skew.cell[:] @ (np.eye(3) + rng.normal(size=(3, 3)) * 0.08), scale_atoms=True)
ats = [bulk("Fe", "bcc", 2.87), bulk("Cu"), rutile, skew]
D["n"] = len(ats)
for k, a in enumerate(ats):
    s = A.get_structure(a)
    D[f"numbers{k}"] = a.numbers
    D[f"positions{k}"] = a.positions
    D[f"cell{k}"] = a.cell[:]
    D[f"ofm{k}"] = np.array(OrbitalFieldMatrix().featurize(s)).ravel().astype("f8")
    D[f"ofm_period{k}"] = np.array(OrbitalFieldMatrix(period_tag=True).featurize(s)).ravel()
    D[f"packing{k}"] = np.array(DensityFeatures().featurize(s) + MaximumPackingEfficiency().featurize(s))
rows = rng.normal(size=(60, 12))
rows /= np.linalg.norm(rows, axis=1, keepdims=True)
ptr = np.array([0, 5, 6, 20, 33, 60])
sets = [rows[a:b] for a, b in pairwise(ptr)]
D["site_rows"] = rows
D["site_ptr"] = ptr
for m, kw in (
    ("linear", {}),
    ("rbf", {"gamma": 0.7}),
    ("polynomial", {"degree": 2, "gamma": 0.5, "coef0": 0.3}),
    ("laplacian", {"gamma": 0.2}),
):
    for n, K in (("rematch", REMatchKernel), ("average", AverageKernel)):
        D[f"{n}_{m}"] = K(metric=m, **kw).create(sets)
        D[f"{n}_{m}_cross"] = K(metric=m, normalize_kernel=False, **kw).create(sets[:2], sets[2:])
D["rematch_alpha"] = REMatchKernel(alpha=1.5, metric="rbf", gamma=0.7).create(sets)
X = rng.normal(size=(300, 20)) * np.exp(-np.arange(20) / 6)
D["features"] = X
D["fps"] = FPS(n_to_select=60, initialize=7).fit(X).selected_idx_
D["cur"] = CUR(n_to_select=15).fit(X).selected_idx_
D["cur_k3"] = CUR(n_to_select=15, k=3).fit(X).selected_idx_
D["cur_0"] = CUR(n_to_select=15, recompute_every=0).fit(X).selected_idx_
D["cur_features"] = FCUR(n_to_select=10).fit(X).selected_idx_
D["cur_wide"] = CUR(n_to_select=8).fit(X[:15].copy()).selected_idx_
np.savez_compressed(Path(__file__).with_name("screening_peers.npz"), **D)
