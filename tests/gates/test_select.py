"""The ``select`` gate on real dataset files: what is chosen is what the kernels choose."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from pydantic import ValidationError

from matcompute.dataset import Dataset, DatasetWriter, Metadata, Status
from matcompute.dataset.descriptor_info import DescriptorInfo
from matcompute.dataset.descriptors import write_descriptor
from matcompute.errors import InputError
from matcompute.gates import evaluate_gate, read_gate
from matcompute_kernels import Batch, cur, fps, novelty, pareto_front, rdf, soap

OK = int(Status.OK)
SPECIES = ["Al", "Cu", "Au"]
SOAP: dict[str, Any] = {"species": SPECIES, "r_cut": 4.0, "n_max": 3, "l_max": 2, "average": "inner"}


def _structures(n: int = 30) -> list[Atoms]:
    rng = np.random.default_rng(2)
    found = []
    for i in range(n):
        atoms = bulk("Cu", "fcc", a=3.7 + 0.01 * i, cubic=True)
        atoms.symbols[:] = rng.choice(SPECIES, 4)
        atoms.rattle(0.05, seed=i)
        found.append(atoms)
    return found


def _write(path: Path, batch: Batch, ids: np.ndarray, **columns: Any) -> Path:
    """Write a result shard: columns of floats, and one descriptor ``soap``."""
    described = columns.pop("soap", None)
    status = columns.pop("status", None)
    with DatasetWriter(path, Metadata()) as writer:
        writer.append(batch, ids=ids, results=columns)
        if described is not None:
            info = DescriptorInfo("soap", described.shape[1], kernel="soap", parameters=SOAP)
            flags = np.full(len(batch), OK, "u1") if status is None else status
            write_descriptor(writer, info, [described], status=flags)
    return path


class Campaign:
    """Structures, a relax stage in two shards of scattered rows, and a describe stage in two."""

    def __init__(self, folder: Path) -> None:
        self.batch = Batch.from_atoms(_structures())
        n = len(self.batch)
        self.ids = np.array([f"e{i:02d}" for i in range(n)])
        rng = np.random.default_rng(3)
        self.energy, self.hardness = rng.normal(size=n), rng.normal(size=n)
        self.soap = soap(self.batch, **SOAP)
        self.structures = Dataset(_write(folder / "s.h5", self.batch, self.ids))
        self.results = []
        order = rng.permutation(n)
        for k, rows in enumerate((order[:17], order[17:])):
            values = {"energy_per_atom": self.energy[rows], "bulk_modulus": self.hardness[rows]}
            path = _write(folder / f"relax{k}.h5", self.batch[rows], self.ids[rows], **values)
            self.results.append(("relax", Dataset(path)))
        status = np.full(n, OK, "u1")
        status[5] = Status.INVALID_INPUT
        described = self.soap.copy()
        described[5] = np.nan
        for k, rows in enumerate((order[::2], order[1::2])):
            path = folder / f"soap{k}.h5"
            cpu = {"cpu_time": np.ones(len(rows))}
            _write(path, self.batch[rows], self.ids[rows], soap=described[rows], status=status[rows], **cpu)
            self.results.append(("soap", Dataset(path)))
        self.good = np.delete(np.arange(n), 5)

    def close(self) -> None:
        for dataset in (self.structures, *(shard for _, shard in self.results)):
            dataset.close()

    def gate(self, file: Path | None = None, **parameters: Any) -> Any:
        return evaluate_gate("select", parameters, self.structures, self.results, file)


@pytest.fixture
def campaign(tmp_path: Path) -> Iterator[Campaign]:
    made = Campaign(tmp_path)
    yield made
    made.close()


def test_farthest_points(campaign: Campaign) -> None:
    gate = campaign.gate(method="fps", n=7)
    x = campaign.soap[campaign.good]
    start = int(np.argmin(((x - x.mean(axis=0)) ** 2).sum(axis=1)))
    picks = campaign.good[fps(x, 7, start=start)]
    assert gate.rows[gate.passed].tolist() == sorted(picks.tolist())
    rank, status = gate.columns["selection_rank"]
    assert {int(row): int(r) for row, r in zip(gate.rows, rank) if r > 0} == {
        int(row): k for k, row in enumerate(picks, start=1)
    }
    assert ((status == OK) == (rank > 0)).all()
    distance, _ = gate.columns["selection_distance"]
    expected = np.linalg.norm(x[:, None] - campaign.soap[picks][None], axis=2).min(axis=1)
    np.testing.assert_allclose(distance, expected, atol=1e-7)
    assert (gate.expression, gate.inputs) == ("7 farthest points of soap", ["soap"])
    # The entry whose descriptor failed was not finished by the stage before.
    assert 5 not in gate.rows


def test_farthest_points_in_other_spaces(campaign: Campaign) -> None:
    x = campaign.soap[campaign.good]
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    gate = campaign.gate(method="farthest-point", n=5, metric="cosine", start="e03", descriptor="soap")
    row = int(np.flatnonzero(campaign.good == 3)[0])
    assert set(gate.rows[gate.passed].tolist()) == set(campaign.good[fps(unit, 5, start=row)].tolist())
    spread = x.std(axis=0)
    standard = (x - x.mean(axis=0)) / np.where(spread > 1e-12 * np.abs(x.mean(axis=0)).max(), spread, np.inf)
    gate = campaign.gate(method="fps", n=5, normalize="standard", start="edge")
    start = int(np.argmax((standard**2).sum(axis=1)))
    assert set(gate.rows[gate.passed].tolist()) == set(campaign.good[fps(standard, 5, start=start)].tolist())
    # More than there are: all; with a distance: fewer.
    assert campaign.gate(method="fps", n=500).passed.sum() == 29
    near = campaign.gate(method="fps", n=29, min_distance=1.0)
    assert 1 < near.passed.sum() < 29
    chosen = campaign.soap[near.rows[near.passed]]
    gaps = np.linalg.norm(chosen[:, None] - chosen[None], axis=2) + 1e9 * np.eye(len(chosen))
    assert gaps.min() >= 1.0


def test_choice_does_not_depend_on_the_order_of_shards(campaign: Campaign) -> None:
    first = campaign.gate(method="fps", n=7)
    campaign.results = [campaign.results[k] for k in (1, 0, 3, 2)]
    again = campaign.gate(method="fps", n=7)
    assert first.passed.tolist() == again.passed.tolist()


def test_cur(campaign: Campaign) -> None:
    gate = campaign.gate(method="cur", n=6, k=2)
    picks = campaign.good[cur(campaign.soap[campaign.good], 6, k=2)]
    assert set(gate.rows[gate.passed].tolist()) == set(picks.tolist())
    rank = gate.columns["selection_rank"][0]
    assert [
        int(row) for _, row in sorted((r, row) for r, row in zip(rank, gate.rows) if r > 0)
    ] == picks.tolist()


@pytest.mark.parametrize("kind", ["structures", "described", "extxyz"])
def test_novelty(campaign: Campaign, tmp_path: Path, kind: str) -> None:
    known = campaign.batch[[0, 4, 9]]
    foreign = Batch.from_atoms([bulk("Ni", cubic=True)])
    path = tmp_path / ("known.extxyz" if kind == "extxyz" else "known.h5")
    if kind == "extxyz":
        import ase.io

        ase.io.write(path, [*known.iter_atoms(), *foreign.iter_atoms()])
    elif kind == "structures":
        _write(path, Batch.concatenate([known, foreign]), np.array(["a", "b", "c", "d"]))
    else:
        _write(path, known, np.array(["a", "b", "c"]), soap=soap(known, **SOAP))
    distance = novelty(campaign.soap[campaign.good], soap(known, **SOAP))
    limit = float(np.median(distance))
    gate = campaign.gate(path, method="novelty", references=path.name, threshold=limit)
    # extxyz keeps eight decimals of the positions
    tolerance = 1e-6 if kind == "extxyz" else 1e-9
    np.testing.assert_allclose(gate.columns["novelty"][0], distance, atol=tolerance)
    assert set(gate.rows[gate.passed].tolist()) == set(campaign.good[distance >= limit].tolist())
    few = campaign.gate(path, method="novelty", references=path.name, n=3)
    assert set(few.rows[few.passed].tolist()) == set(campaign.good[np.argsort(-distance)[:3]].tolist())


def test_novelty_against_a_selection(campaign: Campaign, tmp_path: Path) -> None:
    path = tmp_path / "known.h5"
    _write(path, campaign.batch[[0, 4, 9]], np.array(["a", "b", "c"]))
    with DatasetWriter.append_to(path) as writer:
        writer.set_selection("top", [False, True, False])
    gate = campaign.gate(path, method="novelty", references="known.h5", selection="top", threshold=1e-6)
    assert campaign.ids[gate.rows[~gate.passed]].tolist() == ["e04"]
    with pytest.raises(InputError, match="did you mean 'top'"):
        campaign.gate(path, method="novelty", references="known.h5", selection="tip", n=1)
    _write(tmp_path / "other.h5", Batch.from_atoms([bulk("Ni")]), np.array(["x"]))
    with pytest.raises(InputError, match="none of its structures can be described"):
        campaign.gate(tmp_path / "other.h5", method="novelty", references="other.h5", n=1)


def test_pareto(campaign: Campaign) -> None:
    gate = campaign.gate(method="pareto", objectives=[{"bulk_modulus": "max"}, {"energy_per_atom": "min"}])
    table = np.stack([campaign.hardness, campaign.energy], axis=1)[campaign.good]
    front = pareto_front(table, [True, False])
    assert set(gate.rows[gate.passed].tolist()) == set(campaign.good[front].tolist())
    assert gate.expression == "Pareto front of max bulk_modulus, min energy_per_atom"
    # The density comes from the structures themselves.
    gate = campaign.gate(method="pareto", objectives={"bulk_modulus": "max", "density": "min"}, fronts=2)
    density = np.array(
        [a.get_masses().sum() / a.get_volume() * 1.66053906660 for a in campaign.batch.iter_atoms()]
    )
    ranks = pareto_front(
        np.stack([campaign.hardness, density], axis=1)[campaign.good], [True, False], fronts=2
    )
    found = gate.columns["pareto_rank"][0]
    assert [int(r) for r in found] == [int(r) + 1 if r >= 0 else -1 for r in ranks]


def test_duplicates_keep_the_lowest(tmp_path: Path) -> None:
    one, other = bulk("Cu", a=3.6), bulk("Cu", "bcc", a=2.9)
    atoms = [one, one.repeat((2, 1, 1)), other, bulk("Cu", a=3.61, cubic=True), Atoms("Cu")]
    batch, ids = Batch.from_atoms(atoms), np.array(list("abcde"))
    energy = np.array([-1.0, -1.2, -0.5, -1.1, 0.0])
    paths = [_write(tmp_path / "s.h5", batch, ids), tmp_path / "r.h5"]
    _write(paths[1], batch, ids, energy_per_atom=energy)
    with Dataset(paths[0]) as structures, Dataset(paths[1]) as results:
        gate = evaluate_gate("select", {"method": "unique"}, structures, [("static", results)])
        assert gate.rows[gate.passed].tolist() == [1, 2, 4]
        group = gate.columns["duplicate_group"][0].tolist()
        assert group == [1, 1, 2, 1, -1]
        assert gate.inputs == ["structures", "energy_per_atom"]
        top = evaluate_gate(
            "select",
            {"method": "duplicates", "by": "energy_per_atom", "order": "descending"},
            structures,
            [("static", results)],
        )
        assert top.rows[top.passed].tolist() == [0, 2, 4]


def test_duplicates_compare_relaxed_structures(tmp_path: Path) -> None:
    """Two starting cells that relax to the same crystal are duplicates."""
    before = Batch.from_atoms([bulk("Cu", "bct", a=2.6, c=3.4), bulk("Cu", "bct", a=2.9, c=2.9)])
    after = Batch.from_atoms([bulk("Cu", "bct", a=2.9, c=2.9), bulk("Cu", "bct", a=2.9, c=2.9)])
    ids = np.array(["a", "b"])
    paths = [_write(tmp_path / "s.h5", before, ids), tmp_path / "r.h5"]
    _write(paths[1], after, ids, energy_per_atom=np.array([-1.0, -2.0]))
    with Dataset(paths[0]) as structures, Dataset(paths[1]) as results:
        gate = evaluate_gate("select", {"method": "duplicates"}, structures, [("relax", results)])
        assert gate.passed.tolist() == [False, True]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"method": "fsp", "n": 3}, "did you mean 'fps'"),
        ({"n": 3}, "'method' is missing"),
        ({"method": "fps", "n": 3, "descriptor": "sope"}, "did you mean 'soap'"),
        ({"method": "fps", "n": 3, "start": "e99"}, "did not come to this gate"),
        ({"method": "fps", "n": 3, "start": "e05"}, "did not come to this gate"),
        ({"method": "pareto", "objectives": {"bulk_modulu": "max"}}, "did you mean 'bulk_modulus'"),
    ],
)
def test_errors(campaign: Campaign, parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        campaign.gate(**parameters)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"method": "fps"}, "n\n  Field required"),
        ({"method": "fps", "n": 3, "metrik": "cosine"}, "metrik"),
        ({"method": "novelty", "references": "x.h5"}, "threshold, or n"),
        ({"method": "pareto", "objectives": [{"a": "max", "b": "min"}]}, "pairs such as"),
        ({"method": "pareto", "objectives": {"a": "large"}}, "'max' or 'min'"),
    ],
)
def test_parameters(parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        read_gate("select", parameters)


def test_rows_per_site_cannot_be_selected_on(campaign: Campaign, tmp_path: Path) -> None:
    path = tmp_path / "sites.h5"
    with DatasetWriter(path, Metadata()) as writer:
        writer.append(campaign.batch, ids=campaign.ids)
        info = DescriptorInfo("local", 2, kernel="steinhardt", per="site")
        write_descriptor(writer, info, [np.ones((campaign.batch.n_sites.sum(), 2))])
    with Dataset(path) as shard, pytest.raises(InputError, match="row per site"):
        evaluate_gate("select", {"method": "fps", "n": 2}, campaign.structures, [("local", shard)])


def test_nothing_comes_to_the_gate(campaign: Campaign, tmp_path: Path) -> None:
    path = tmp_path / "gate.h5"
    with DatasetWriter(path, Metadata()) as writer:
        writer.append(campaign.batch, ids=campaign.ids)
        writer.set_selection("filter", np.zeros(30, bool))
    with Dataset(path) as closed:
        campaign.results.append(("filter", closed))
        for parameters in (
            {"method": "fps", "n": 3},
            {"method": "cur", "n": 3},
            {"method": "duplicates"},
            {"method": "pareto", "objectives": {"bulk_modulus": "max"}},
        ):
            gate = campaign.gate(**parameters)
            assert (len(gate.rows), gate.passed.sum()) == (0, 0)
        campaign.results.pop()


def test_large_matrices_lie_on_disk(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    from matcompute.gates import features

    expected = campaign.gate(method="fps", n=7, normalize="unit")
    monkeypatch.setattr(features, "_IN_MEMORY", 1)
    found = campaign.gate(method="fps", n=7, normalize="unit")
    assert found.passed.tolist() == expected.passed.tolist()


def test_rdf_is_a_descriptor_as_good(tmp_path: Path) -> None:
    """Any kernel's rows serve; the reference file is described by the same kernel."""
    batch = Batch.from_atoms(_structures(6))
    ids = np.array(list("abcdef"))
    structures = _write(tmp_path / "s.h5", batch, ids)
    with DatasetWriter(tmp_path / "r.h5", Metadata()) as writer:
        writer.append(batch, ids=ids)
        values = rdf(batch, r_cut=6.0, bin_size=0.5)
        info = DescriptorInfo(
            "shells", values.shape[1], kernel="rdf", parameters={"r_cut": 6.0, "bin_size": 0.5}
        )
        write_descriptor(writer, info, [values], status=np.full(6, OK, "u1"))
    known = _write(tmp_path / "known.h5", batch[:2], ids[:2])
    with Dataset(structures) as s, Dataset(tmp_path / "r.h5") as r:
        gate = evaluate_gate(
            "select",
            {"method": "novelty", "references": "known.h5", "threshold": 1e-9},
            s,
            [("shells", r)],
            known,
        )
    assert gate.passed.tolist() == [False, False, True, True, True, True]
