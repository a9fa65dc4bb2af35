"""SOAP power spectrum of every site (n_max 8, l_max 6, r_cut 5 Å, σ 0.5 Å), against dscribe and featomic.

Per-structure calls with own species, as the peers are called; on the 12-species set dscribe writes dense
rows and ours dense rows, block-sparse rows, or averages.
"""

from __future__ import annotations

from _interleaved import big4096, compare, report, small200, use_peers

use_peers()

import numpy as np  # noqa: E402
from dscribe.descriptors import SOAP  # noqa: E402
from featomic import SoapPowerSpectrum  # noqa: E402

from matcompute_kernels import Batch, soap  # noqa: E402

COMMON = {"r_cut": 5.0, "n_max": 8, "l_max": 6, "sigma": 0.5}
results = {}
for name, items in (("small200", small200()), ("big4096", big4096())):
    n_sites = sum(map(len, items))
    batches = [(Batch.from_atoms([a]), sorted(set(a.numbers.tolist()))) for a in items]
    peers = [SOAP(species=species, periodic=True, rbf="gto", **COMMON) for _, species in batches]

    def own_species(batches: list = batches) -> None:
        for batch, species in batches:
            soap(batch, species, **COMMON)

    def by_dscribe(items: list = items, peers: list = peers) -> None:
        for atoms, peer in zip(items, peers):
            peer.create(atoms)

    first = soap(batches[0][0], batches[0][1], **COMMON)
    assert np.allclose(first, peers[0].create(items[0]), rtol=1e-8, atol=1e-9 * np.abs(first).max())
    results[f"{name} dscribe"] = compare(f"{name}, dscribe-gto", own_species, by_dscribe, n_sites, "sites")

    featomic = SoapPowerSpectrum(
        cutoff={"radius": 5.0, "smoothing": {"type": "Step"}},
        density={"type": "Gaussian", "width": 0.5},
        basis={"type": "TensorProduct", "max_angular": 6, "radial": {"type": "Gto", "max_radial": 7}},
    )
    whole = Batch.from_atoms(items)
    species = sorted(set(whole.numbers.tolist()))

    def in_blocks(whole: Batch = whole, species: list = species) -> None:
        soap(whole, species, convention="featomic-gto", sparse=True, **COMMON)

    def by_featomic(items: list = items, featomic: SoapPowerSpectrum = featomic) -> None:
        featomic.compute(items)

    results[f"{name} featomic"] = compare(f"{name}, featomic-gto", in_blocks, by_featomic, n_sites, "sites")

items = small200()
whole = Batch.from_atoms(items)
species = sorted(set(whole.numbers.tolist()))
peer = SOAP(species=species, periodic=True, rbf="gto", **COMMON)
few = items[::8]
few_batch = Batch.from_atoms(few)
n_few = len(few_batch.numbers)


def by_dscribe_dense() -> None:
    for atoms in few:
        peer.create(atoms)


for label, options in {
    "dense": {},
    "dense, one array": {},
    "block-sparse": {"sparse": True},
    "outer average": {"average": "outer"},
}.items():
    # Dense rows structure by structure, as the peer writes them, and then in one array of 145 MB: there both sides of
    # the ratio are mostly the time in which the system hands out memory.
    parts = [few_batch[k : k + 1] for k in range(len(few))] if label == "dense" else [few_batch]

    def ours(options: dict = options, parts: list = parts) -> None:
        for part in parts:
            soap(part, species, **COMMON, **options)

    by_peer = by_dscribe_dense if label != "dense, one array" else lambda: peer.create(few)
    results[f"12 species {label}"] = compare(f"12 species, {label}", ours, by_peer, n_few, "sites")

dense = soap(few_batch, species, **COMMON)
blocks = soap(few_batch, species, sparse=True, **COMMON)
print(f"block-sparse rows are {dense.nbytes / blocks.nbytes:.1f} times smaller than dense ones")
report("soap", results, ["dscribe", "featomic"])
