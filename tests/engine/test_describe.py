"""A campaign that relaxes, describes and selects, as a user runs it; rows and picks are those of the kernels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from matcompute.campaign.costs import batch_limit
from matcompute.dataset import Dataset, Status
from matcompute.dataset.descriptors import BlockSparse, descriptor_status, read_descriptor
from matcompute_kernels import duplicate_groups, feature_labels, fps, pareto_front, soap, valle_oganov

from .conftest import Site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

FILE = """\
schema: matcompute.campaign/v1
name: diverse
title: described and selected alloys
domain: advanced-nonferrous-metals
licence: CC0-1.0
contributors: [{name: matcompute tests}]
structures:
  - files: mixed.extxyz
stages:
  - relax: {calculator: emt, cell: false, fmax: 0.02 eV/angstrom}
  # More than one batch; the elements of all structures make one feature space.
  - describe: {descriptor: soap, r_cut: 5 angstrom, n_max: 4, l_max: 3, average: inner, batch_size: 5}
  - select: {method: duplicates}
  - describe: {descriptor: valle_oganov, name: fingerprint, r_cut: 4 angstrom, n: 50, resources: {processes: 2}}
  - select: {method: fps, name: diverse, descriptor: soap, n: 6}
  - describe: {descriptor: soap, name: local, r_cut: 4, n_max: 2, l_max: 1, average: "off"}
  - select: {method: pareto, name: front, objectives: [{energy_per_atom: min}, {density: max}]}
"""
SOAP = {"r_cut": 5.0, "n_max": 4, "l_max": 3, "sigma": 0.5}


def _structures() -> list[Atoms]:
    """Twelve different alloys, a twin of the second, and a slab, which has no Valle–Oganov fingerprint."""
    from itertools import combinations

    from ase.build import bulk

    rng = np.random.default_rng(5)
    frames = []
    for number, (one, other) in enumerate(
        [*combinations(["Cu", "Au", "Ag", "Al", "Ni"], 2)] + [("Cu", "Au")] * 2
    ):
        atoms = bulk("Cu", "fcc", a=3.8, cubic=True)
        count = 1 + (number + number // 10) % 3
        atoms.symbols = [one] * count + [other] * (4 - count)
        atoms.positions += rng.normal(scale=0.05, size=(4, 3))
        frames.append(atoms)
    twin = frames[1].copy()
    twin.positions += 0.01 * rng.normal(size=(4, 3))
    slab = Atoms("Cu2", positions=[[0, 0, 5], [1.3, 1.3, 6.8]], cell=[2.6, 2.6, 15], pbc=[True, True, False])
    return [*frames, twin, slab]


@pytest.fixture(scope="module")
def diverse(site: Site) -> Path:
    import ase.io

    ase.io.write(site.folder / "mixed.extxyz", _structures(), format="extxyz")
    (site.folder / "diverse.yaml").write_text(FILE)
    plan = json.loads(site.look("campaign", "plan", str(site.folder / "diverse.yaml"), "--json"))
    assert [s["calculator"] for s in plan["stages"]] == [
        "emt", "soap", None, "valle_oganov", None, "soap", None
    ]  # fmt: skip
    result = site.matcompute("campaign", "run", str(site.folder / "diverse.yaml"))
    assert "finished: 14 structures" in result.stdout
    return site.dataset("diverse")


def test_the_dataset_is_valid_and_says_what_it_holds(site: Site, diverse: Path) -> None:
    assert "valid" in site.look("dataset", "validate", "--release", str(diverse))
    with Dataset(diverse) as data:
        assert list(data.selections) == ["select", "diverse", "front"]
        assert sorted(data.descriptors) == ["fingerprint", "local", "soap"]
        info = data.descriptors["soap"]
        species = info.parameters["species"]
        assert species == ["Al", "Ni", "Cu", "Ag", "Au"]
        assert (info.kernel, info.layout, info.per, info.dtype) == ("soap", "dense", "entry", "f8")
        assert list(info.labels) == feature_labels("soap", species=species, **SOAP)
        assert {(m.name, m.code_version) for m in data.methods} >= {("soap", "0.1.0"), ("emt", "3.29.0")}
        # The method of an entry is that of its numbers, not of its description.
        assert {data.methods[k].name for k in data.entry_column("method_index")} == {"emt"}


def test_rows_are_the_kernels_on_the_final_structures(diverse: Path) -> None:
    with Dataset(diverse) as data:
        species = data.descriptors["soap"].parameters["species"]
        batch = data.batch()
        assert (descriptor_status(data, "soap") == Status.OK).all()
        found = read_descriptor(data, "soap")
        expected = soap(batch, species, **SOAP, average="inner")
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
        status = descriptor_status(data, "fingerprint")
        rows = np.flatnonzero(status == Status.OK)
        assert rows.size == 11
        expected = valle_oganov(batch[rows], species, r_cut=4.0, n=50)
        np.testing.assert_allclose(
            read_descriptor(data, "fingerprint", rows), expected, rtol=1e-12, atol=1e-14
        )
        local = read_descriptor(data, "local")
        assert isinstance(local, BlockSparse)
        rows = np.flatnonzero(descriptor_status(data, "local") == Status.OK)
        assert rows.size == 6
        for row in rows:
            part = read_descriptor(data, "local", entries=[row], dense=True)
            sites = soap(batch[row : row + 1], species, r_cut=4.0, n_max=2, l_max=1)
            np.testing.assert_allclose(part, sites, rtol=1e-6, atol=1e-7)


def test_picks_are_the_kernels(diverse: Path) -> None:
    with Dataset(diverse) as data:
        batch, mask = data.batch(), {n: s.mask for n, s in data.selections.items()}
        energy, ids = data.column("energy_per_atom"), data.ids
        # One of each group of duplicates, the one with the lowest energy.
        groups = duplicate_groups(batch)
        kept = {int(min(group, key=lambda row: (energy[row], ids[row]))) for group in groups}
        assert len(kept) < 14
        assert set(np.flatnonzero(mask["select"]).tolist()) == kept
        considered = np.flatnonzero(descriptor_status(data, "fingerprint") == Status.OK)
        assert set(considered.tolist()) == kept - {13}
        x = np.asarray(read_descriptor(data, "soap", considered))
        start = int(np.argmin(((x - x.mean(axis=0)) ** 2).sum(axis=1)))
        picks = considered[fps(x, 6, start=start)]
        assert set(np.flatnonzero(mask["diverse"]).tolist()) == set(picks.tolist())
        rank = data.column("selection_rank")
        assert rank[picks].tolist() == [1, 2, 3, 4, 5, 6]
        density = [a.get_masses().sum() / a.get_volume() for a in batch[picks].iter_atoms()]
        front = pareto_front(np.stack([energy[picks], density], axis=1), [False, True])
        assert set(np.flatnonzero(mask["front"]).tolist()) == set(picks[front].tolist())
        assert data.selections["diverse"].expression == "6 farthest points of soap"
        assert data.selections["diverse"].inputs == ("soap",)


def test_a_structure_that_cannot_be_described_has_a_reason(site: Site, diverse: Path) -> None:
    with Dataset(diverse) as data:
        status = descriptor_status(data, "fingerprint")
        assert [Status(s) for s in status].count(Status.INVALID_INPUT) == 1
        assert np.isnan(read_descriptor(data, "fingerprint", np.flatnonzero(status != Status.OK))).all()
        assert "periodic in three directions" in data.entry_column("message")[13]
        assert (descriptor_status(data, "local")[status != Status.OK] == Status.NOT_SELECTED).all()
    shown = site.look("campaign", "failures", "diverse")
    assert "fingerprint" in shown
    assert "periodic in three directions" in " ".join(shown.split())
    stages = {stage["name"]: stage for stage in site.status("diverse")["stages"]}
    assert (stages["fingerprint"]["n_ok"], stages["fingerprint"]["n_failed"]) == (11, 1)
    assert (stages["soap"]["batches_done"], stages["diverse"]["n_ok"]) == (3, 6)


def test_everything_walks_back_to_its_source_by_links_alone(site: Site, diverse: Path) -> None:
    found = site.walk(diverse)
    assert found["descriptors"] == 14 + 11 + 6
    assert found["selections"] > 12 + 6
    assert found["values"] > 14 * 5
    for name in ("soap", "fingerprint", "local", "energy"):
        assert found["makers"][name] == ["BatchCalculation"], name
    for name in ("select", "diverse", "front", "selection_rank", "pareto_rank"):
        assert found["makers"][name] == ["apply_gate"], name
    assert {"CalcJobNode", "CalcFunctionNode", "ShardData"} <= set(found["kinds"])
    # The structures' own file and the campaign file.
    assert any("mixed.extxyz" in str(names) for names, _ in found["sources"])


def test_trace_and_export_of_a_descriptor(site: Site, diverse: Path) -> None:
    with Dataset(diverse) as data:
        entry = str(data.ids[0])
    shown = site.matcompute("dataset", "trace", str(diverse), entry, "soap").stdout
    assert "soap: a row of 840 columns" in shown
    assert "mixed.extxyz" in shown
    shown = site.matcompute("dataset", "trace", str(diverse), entry, "diverse").stdout
    assert "6 farthest points of soap" in shown
    out = site.folder / "soap.npz"
    site.look("dataset", "export", str(diverse), str(out), "--descriptor", "soap")
    with np.load(out) as archive, Dataset(diverse) as data:
        np.testing.assert_array_equal(archive["values"], read_descriptor(data, "soap"))


def test_report_shows_the_selection(site: Site, diverse: Path) -> None:
    shown = site.matcompute("campaign", "report", "diverse").stdout
    assert "Pareto front of min energy_per_atom, max density" in " ".join(shown.split())
    assert "6 farthest points of soap" in " ".join(shown.split())


def test_batches_are_kept_small_enough_for_memory() -> None:
    from matcompute.campaign.model import Stage

    stage = Stage(
        name="soap",
        kind="describe",
        is_gate=False,
        parameters={"descriptor": "soap", "species": ["Al", "Ni"], "r_cut": 5, "n_max": 30, "l_max": 20},
    )
    limit = batch_limit(stage, np.full(10, 8))
    assert 1 < limit * 8 * len(feature_labels("soap", species=["Al", "Ni"], n_max=30, l_max=20)) <= 256e6
