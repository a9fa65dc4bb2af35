"""Gates on real dataset files: who is considered, who passes, and that hull energies are right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from matcompute.dataset import Dataset, DatasetWriter, Metadata, Quality, Status
from matcompute.errors import InputError
from matcompute.gates import evaluate_gate
from matcompute_kernels import Batch

OK = int(Status.OK)


def _alloy(*symbols: str) -> Atoms:
    atoms = bulk("Cu", "fcc", a=4.0, cubic=True)
    atoms.symbols[:] = (list(symbols) * 4)[:4]
    return atoms


#: Formula by construction, energy per cell of four atoms (eV); the last three are elemental references.
ENTRIES: list[tuple[Atoms, float]] = [
    (_alloy("Al", "Ni"), -18.0),
    (_alloy("Al", "Ni", "Ni", "Ni"), -19.0),
    (_alloy("Al", "Al", "Al", "Ni"), -13.9),
    (_alloy("Al", "Cu"), -14.0),
    (_alloy("Ni", "Cu"), -17.0),
    (_alloy("Al"), -12.0),
    (_alloy("Ni"), -20.0),
    (_alloy("Cu"), -13.0),
]


def _write(path: Path, atoms: Sequence[Atoms], **columns: Sequence[float]) -> Path:
    status = columns.pop("status", None)
    with DatasetWriter(path, Metadata()) as writer:
        batch = Batch.from_atoms(list(atoms))
        results = {name: np.asarray(values, dtype=float) for name, values in columns.items()}
        flags = {name: np.asarray(status or [OK] * len(batch), dtype=np.uint8) for name in results}
        writer.append(batch, results=results, status=flags)
    return path


@pytest.fixture
def campaign(tmp_path: Path) -> Iterator[tuple[Dataset, Dataset]]:
    atoms = [a for a, _ in ENTRIES]
    structures = tmp_path / "structures.h5"
    with DatasetWriter(structures, Metadata()) as writer:
        quality = np.zeros(len(atoms), dtype=np.uint32)
        quality[-3:] = int(Quality.ELEMENTAL_REFERENCE)
        writer.append(Batch.from_atoms(atoms), entry={"quality": quality})
    results = _write(tmp_path / "relax.h5", atoms, energy=[e for _, e in ENTRIES])
    with Dataset(structures) as s, Dataset(results) as r:
        yield s, r


def test_hull_equals_pymatgen_on_the_whole_set(campaign: tuple[Dataset, Dataset]) -> None:
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    structures, results = campaign
    gate = evaluate_gate("hull", {}, structures, [("relax", results)])
    entries = [PDEntry(Composition(a.get_chemical_formula()), e) for a, e in ENTRIES]
    # One diagram over all elements, where we make one per chemical system: the answers must agree.
    diagram = PhaseDiagram(entries)
    values, status = gate.columns["e_above_hull"]
    formation, _ = gate.columns["formation_energy"]
    assert (status == OK).all()
    assert values == pytest.approx([diagram.get_e_above_hull(entries[row]) for row in gate.rows], abs=1e-8)
    assert formation == pytest.approx(
        [diagram.get_form_energy_per_atom(entries[row]) for row in gate.rows], abs=1e-8
    )


def test_random_quinary_hulls_equal_pymatgen(tmp_path: Path) -> None:
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    rng = np.random.default_rng(4)
    elements = ["Al", "Ni", "Cu", "Ti", "Zr", "Sc"]
    atoms = [_alloy(element) for element in elements]
    for k in range(150):
        some = bulk("Cu", "fcc", a=4.1 + 0.001 * k, cubic=True).repeat((1, 1, int(rng.integers(1, 4))))
        some.symbols[:] = rng.choice(elements[:5], len(some))
        atoms.append(some)
    energy = [float(rng.normal(-3, 0.2) * len(a)) for a in atoms]
    structures = _write(tmp_path / "s.h5", atoms[:-1])
    results = _write(tmp_path / "r.h5", atoms[:-1], energy=energy[:-1])
    reference = tmp_path / "more.extxyz"
    atoms[-1].info["energy"] = energy[-1]
    ase.io.write(reference, atoms[-1])
    with Dataset(structures) as s, Dataset(results) as r:
        gate = evaluate_gate("hull", {}, s, [("relax", r)], references=reference)
    entries = [PDEntry(Composition(a.get_chemical_formula()), e) for a, e in zip(atoms, energy, strict=True)]
    for k, row in enumerate(gate.rows):
        system = set(entries[row].composition.elements)
        diagram = PhaseDiagram([e for e in entries if set(e.composition.elements) <= system])
        above, formation = (gate.columns[name][0][k] for name in ("e_above_hull", "formation_energy"))
        assert above == pytest.approx(diagram.get_e_above_hull(entries[row]), abs=1e-8)
        assert formation == pytest.approx(diagram.get_form_energy_per_atom(entries[row]), abs=1e-8)


def test_references_serve_the_hull_but_pass_nothing(campaign: tuple[Dataset, Dataset]) -> None:
    structures, results = campaign
    gate = evaluate_gate("hull", {"max": "0 eV/atom"}, structures, [("relax", results)])
    references = gate.rows >= 5
    assert references.sum() == 3
    assert not gate.passed[references].any()
    # By hand: AlNi (-0.5 eV/atom) and AlNi3 (-0.25) lie on the hull, Al3Ni (+0.025) does not; AlCu (-0.375) does.
    assert set(gate.rows[gate.passed].tolist()) == {0, 1, 3, 4}


def test_missing_reference_is_said(tmp_path: Path) -> None:
    atoms = [_alloy("Al", "Ni"), _alloy("Al")]
    structures = _write(tmp_path / "s.h5", atoms)
    results = _write(tmp_path / "r.h5", atoms, energy=[-18.0, -12.0])
    with Dataset(structures) as s, Dataset(results) as r:
        gate = evaluate_gate("hull", {}, s, [("relax", r)])
    row = int(np.flatnonzero(gate.rows == 0)[0])
    assert gate.columns["e_above_hull"][1][row] == int(Status.MISSING_REFERENCE)
    assert "Ni" in gate.messages[row]
    assert not gate.passed[row]


def test_reference_file_completes_the_hull(tmp_path: Path) -> None:
    atoms = [_alloy("Al", "Ni"), _alloy("Al")]
    structures = _write(tmp_path / "s.h5", atoms)
    results = _write(tmp_path / "r.h5", atoms, energy=[-18.0, -12.0])
    nickel = _alloy("Ni")
    nickel.info["energy"] = -20.0
    ase.io.write(tmp_path / "references.extxyz", nickel)
    with Dataset(structures) as s, Dataset(results) as r:
        gate = evaluate_gate("hull", {}, s, [("relax", r)], references=tmp_path / "references.extxyz")
        assert gate.columns["formation_energy"][0][0] == pytest.approx(-18 / 4 + (12 + 20) / 8)
        nickel.info.clear()
        ase.io.write(tmp_path / "bare.extxyz", nickel)
        with pytest.raises(InputError, match=r"structure 1 \(Ni4\) has no energy"):
            evaluate_gate("hull", {}, s, [("relax", r)], references=tmp_path / "bare.extxyz")


def test_failed_entries_are_not_considered(campaign: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    structures, _ = campaign
    atoms = [a for a, _ in ENTRIES]
    status = [OK] * len(atoms)
    status[0] = int(Status.NOT_CONVERGED)
    path = _write(tmp_path / "failed.h5", atoms, energy=[e for _, e in ENTRIES], status=status)
    with Dataset(path) as results:
        gate = evaluate_gate("filter", {"expression": "energy < 0 eV"}, structures, [("relax", results)])
    assert 0 not in gate.rows
    assert gate.passed.all()


def test_filter_needs_every_column(campaign: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    structures, results = campaign
    some = [a for a, _ in ENTRIES[:2]]
    with Dataset(_write(tmp_path / "eos.h5", some, bulk_modulus=[150.0, 90.0])) as eos:
        gate = evaluate_gate(
            "filter",
            {"expression": "energy < 0 eV or bulk_modulus > 100 GPa"},
            structures,
            [("relax", results), ("eos", eos)],
        )
    # Only what the last stage finished is considered, and "or" lets nothing through that lacks a column.
    assert gate.rows.tolist() == [0, 1]
    assert gate.passed.tolist() == [True, True]


def test_top_breaks_ties_by_id_and_honours_order(campaign: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    structures, _ = campaign
    atoms = [a for a, _ in ENTRIES[:4]]
    with Dataset(_write(tmp_path / "b.h5", atoms, bulk_modulus=[100.0, 150.0, 150.0, 90.0])) as results:
        first = evaluate_gate("top", {"n": 1, "by": "bulk_modulus"}, structures, [("eos", results)])
        low = evaluate_gate(
            "top", {"n": 2, "by": "bulk_modulus", "order": "ascending"}, structures, [("eos", results)]
        )
    tied = sorted(np.asarray(structures.ids)[[1, 2]])
    assert first.ids[first.passed].tolist() == [tied[0]]
    assert set(low.rows[low.passed].tolist()) == {0, 3}


def test_gates_chain_and_the_later_stage_owns_the_plain_name(
    campaign: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    structures, results = campaign
    first = evaluate_gate("filter", {"expression": "has(Ni)"}, structures, [("relax", results)])
    path = tmp_path / "gate.h5"
    with DatasetWriter(path, Metadata()) as writer:
        writer.append(structures.batch(first.rows), ids=[str(i) for i in first.ids])
        writer.set_selection("filter", first.passed, expression=first.expression, inputs=first.inputs)
    again = _write(tmp_path / "static.h5", [a for a, _ in ENTRIES], energy=[-1.0] * len(ENTRIES))
    with Dataset(path) as gate_file, Dataset(again) as static:
        stages = [("relax", results), ("filter", gate_file), ("static", static)]
        second = evaluate_gate("filter", {"expression": "energy > -2 eV"}, structures, stages)
        assert set(second.rows[second.passed].tolist()) == {0, 1, 2, 4}
        old = evaluate_gate("filter", {"expression": "relax__energy < -17.5 eV"}, structures, stages)
        assert set(old.rows[old.passed].tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        ("hul", {}, "did you mean 'hull'"),
        ("top", {"n": 3, "by": "bulk_modulu"}, "no stage gives a column 'bulk_modulu'"),
        ("filter", {"expression": "energi < 0 eV"}, "did you mean 'energy'"),
    ],
)
def test_errors(
    campaign: tuple[Dataset, Dataset], kind: str, parameters: dict[str, object], message: str
) -> None:
    structures, results = campaign
    with pytest.raises(InputError, match=message):
        evaluate_gate(kind, parameters, structures, [("relax", results)])
