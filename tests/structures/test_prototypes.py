"""Prototypes against the AFLOW library that pymatgen ships, and their decoration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from matcompute.dataset import Quality
from matcompute.structures.elements import atomic_volumes, element_groups, expand_elements, ground_state
from matcompute.structures.prototypes import PrototypesParameters
from matcompute.structures.spec import StructuresSpec, iter_structures
from matcompute.structures.templates import prototype_names, template
from matcompute_kernels.elements import SYMBOLS


def blocks(**item: object) -> list:
    return list(iter_structures([StructuresSpec.model_validate(item)], Path()))


def decorate(prototype: str, symbols: str):
    """Return one decoration as a pymatgen Structure."""
    one = template(prototype)
    chosen = dict(zip(one.labels, [[s] for s in symbols.split()], strict=True))
    (block,) = blocks(prototypes=[prototype], elements=chosen)
    assert len(block) == 1
    return block.batch.to_structure(0)


# Prototype, decoration that makes the AFLOW structure (labels in order), AFLOW tag.
AFLOW = [
    ("fcc", "Cu", "A_cF4_225_a"),
    ("bcc", "W", "A_cI2_229_a"),
    ("hcp", "Mg", "A_hP2_194_c"),
    ("sc", "Po", "A_cP1_221_a"),
    ("diamond", "C", "A_cF8_227_a"),
    ("L1_2", "Cu Au", "AB3_cP4_221_a_c"),
    ("B2", "Cs Cl", "AB_cP2_221_b_a"),
    ("L1_0", "Cu Au", "AB_tP2_123_a_d"),
    ("D0_3", "F Bi", "AB3_cF16_225_a_bc"),
    ("D0_22", "Al Ti", "A3B_tI8_139_bd_a"),
    ("D0_19", "Ni Sn", "A3B_hP8_194_h_c"),
    ("A15", "Cr Si", "A3B_cP8_223_c_a"),
    ("C15", "Cu Mg", "A2B_cF24_227_d_a"),
    ("C14", "Zn Mg", "AB2_hP12_194_f_ah"),
    ("rocksalt", "Na Cl", "AB_cF8_225_a_b"),
    ("zincblende", "Zn S", "AB_cF8_216_c_a"),
    ("wurtzite", "Zn S", "AB_hP4_186_b_b"),
    ("fluorite", "Ca F", "AB2_cF12_225_a_c"),
    ("perovskite", "Ca Ti O", "AB3C_cP5_221_a_c_b"),
    ("half-Heusler", "As Ag Mg", "ABC_cF12_216_b_c_a"),
    ("full-Heusler", "Cu Al Mn", "AB2C_cF16_225_a_c_b"),
    ("spinel", "Mg Al O", "A2BC4_cF56_227_d_a_e"),
]


@pytest.fixture(scope="module")
def aflow() -> dict[str, list]:
    import pymatgen.analysis.prototypes as module
    from monty.serialization import loadfn

    folder = Path(module.__file__).parent
    found: dict[str, list] = {}
    for entry in loadfn(str(next(folder.glob("aflow_prototypes.json*")))):
        found.setdefault(entry["tags"]["aflow"], []).append(entry["snl"].structure)
    return found


def test_every_prototype_is_compared() -> None:
    assert {name for name, _, _ in AFLOW} == set(prototype_names())


@pytest.mark.parametrize(("name", "symbols", "tag"), AFLOW)
def test_same_crystal_as_aflow(name: str, symbols: str, tag: str, aflow: dict[str, list]) -> None:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    ours = decorate(name, symbols)
    # Anonymous: AFLOW's entries of one type carry the elements of the type's name giver, sometimes of another one.
    match = StructureMatcher(scale=True, ltol=0.2, stol=0.2, angle_tol=5)
    assert tag in aflow, f"{tag} is not in the AFLOW library"
    assert any(match.fit_anonymous(ours, theirs) for theirs in aflow[tag])
    same_species = [s for s in aflow[tag] if set(s.symbol_set) == set(ours.symbol_set)]
    assert all(match.fit(ours, theirs) for theirs in same_species)


@pytest.mark.parametrize("name", [n for n in prototype_names() if template(n).swap is not None])
def test_swap_gives_the_same_crystal(name: str) -> None:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    one = template(name)
    symbols = ["Ag", "Mg", "As"][: len(one.labels)]
    swapped = list(symbols)
    i, j = one.swap
    swapped[i], swapped[j] = symbols[j], symbols[i]
    assert StructureMatcher().fit(decorate(name, " ".join(symbols)), decorate(name, " ".join(swapped)))


@pytest.mark.parametrize("name", [n for n in prototype_names() if template(n).swap is None])
def test_no_other_exchange_gives_the_same_crystal(name: str) -> None:
    from itertools import combinations

    from pymatgen.analysis.structure_matcher import StructureMatcher

    symbols = ["Ag", "Mg", "As"][: len(template(name).labels)]
    for i, j in combinations(range(len(symbols)), 2):
        swapped = list(symbols)
        swapped[i], swapped[j] = symbols[j], symbols[i]
        assert not StructureMatcher().fit(
            decorate(name, " ".join(symbols)), decorate(name, " ".join(swapped))
        )


def test_names_by_any_spelling() -> None:
    assert template("NaCl") is template("B1") or template("NaCl").name == template("B1").name == "rocksalt"
    assert template("L12").name == "L1_2"
    with pytest.raises(ValueError, match="did you mean 'L1_2'"):
        template("L1_3")
    with pytest.raises(ValueError, match="did you mean 'NaCl'"):
        template("nacl")


# Å; experimental lattice constants of the cubic cells.
KNOWN = [
    ("rocksalt", "Na Cl", 5.64),
    ("rocksalt", "Mg O", 4.21),
    ("zincblende", "Zn S", 5.41),
    ("diamond", "Si", 5.43),
    ("fluorite", "Ca F", 5.46),
    ("perovskite", "Sr Ti O", 3.905),
    ("spinel", "Mg Al O", 8.08),
    ("half-Heusler", "Ni Ti Sn", 5.93),
    ("full-Heusler", "Cu Mn Al", 5.95),
    ("L1_2", "Ni Al", 3.57),
    ("B2", "Ni Al", 2.89),
    ("C15", "Cu Mg", 7.03),
]


@pytest.mark.parametrize(("name", "symbols", "a"), KNOWN)
def test_guessed_lattice_constants(name: str, symbols: str, a: float) -> None:
    structure = decorate(name, symbols)
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    guess = SpacegroupAnalyzer(structure).get_conventional_standard_structure().lattice.a
    assert guess == pytest.approx(a, rel=0.08)


def test_volume_scale_and_kind() -> None:
    (plain,) = blocks(prototypes="B2", elements={"A": "Ni", "B": "Al"})
    (scaled,) = blocks(prototypes="B2", elements={"A": "Ni", "B": "Al"}, volume_scale=1.1)
    assert scaled.batch.volumes[0] == pytest.approx(1.1 * plain.batch.volumes[0])
    expected = atomic_volumes()[[28, 13]].sum()
    assert plain.batch.volumes[0] == pytest.approx(expected)
    assert plain.quality == int(Quality.DECORATED_PROTOTYPE)


def test_positions_are_the_fractions_of_the_template() -> None:
    (block,) = blocks(prototypes="spinel", elements={"A": ["Mg", "Zn"], "B": ["Al"], "X": ["O"]})
    one = template("spinel")
    assert len(block) == 2
    for k in range(2):
        atoms = block.batch.to_atoms(k)
        np.testing.assert_allclose(atoms.get_scaled_positions(wrap=False), one.fractional, atol=1e-12)
        assert sorted(set(atoms.get_chemical_symbols())) == sorted({["Mg", "Zn"][k], "Al", "O"})


def test_each_crystal_once() -> None:
    (block,) = blocks(prototypes=["B2"], elements=["Al", "Ni", "Ti"])
    assert sorted(block.batch.formulas()) == ["AlNi", "AlTi", "NiTi"]
    (block,) = blocks(prototypes=["L1_2"], elements=["Al", "Ni"])
    assert sorted(block.batch.formulas()) == ["Al3Ni", "AlNi3"]
    (block,) = blocks(prototypes="L1_2", elements={"A": ["Al"], "B": ["Al", "Ni"]})
    assert block.batch.formulas() == ["Al3Ni"]


def test_permute() -> None:
    some = blocks(prototypes="L1_2", elements={"A": ["Al"], "B": ["Ni", "Ti"]}, permute=True)
    formulas = [f for block in some for f in block.batch.formulas()]
    assert sorted(formulas) == ["Al3Ni", "Al3Ti", "AlNi3", "AlTi3"]
    some = blocks(prototypes="B2", elements={"A": ["Al"], "B": ["Ni", "Ti"]}, permute=True)
    assert sorted(f for block in some for f in block.batch.formulas()) == ["AlNi", "AlTi"]


def test_groups_and_exclude() -> None:
    groups = element_groups()
    assert groups["3d"] == ("Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn")
    assert all(symbol in SYMBOLS for symbols in groups.values() for symbol in symbols)
    assert expand_elements(["Al", "3d", "Fe"])[:2] == ["Al", "Sc"]
    (block,) = blocks(prototypes="fcc", elements="3d", exclude=["Zn", "Mn"])
    assert len(block) == 8


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"prototypes": ["L1_2"], "elements": {"A": ["Al"], "B": ["ni"]}}, "did you mean 'Ni'"),
        ({"prototypes": ["L1_2"], "elements": ["transition-metal"]}, "did you mean 'transition-metals'"),
        ({"prototypes": ["L1_2"], "elements": {"A": ["Al"], "C": ["Ni"]}}, "has the labels A, B"),
        ({"prototypes": ["L1_2"], "elements": {"A": ["Al"]}}, "has the labels A, B"),
        ({"prototypes": ["rocksalt"], "elements": {"B": ["Cl"], "X": ["Cl"]}}, "has the labels A, B"),
        ({"prototypes": [], "elements": ["Al"]}, "at least 1"),
        ({"prototypes": ["fcc"], "elements": []}, "empty"),
        ({"prototypes": ["fcc"], "elements": ["Al"], "volume_scale": 0}, "greater than 0"),
    ],
)
def test_wrong_parameters(item: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PrototypesParameters.model_validate(item)


def test_labels_by_other_names() -> None:
    (block,) = blocks(prototypes=["rocksalt", "fluorite"], elements={"A": ["Ca"], "X": ["O"]}, limit=1)
    assert block.batch.formulas() == ["CaO"]


def test_an_element_without_data_is_reported() -> None:
    (block,) = blocks(prototypes="fcc", elements=["Al", "Fr"])
    assert block.batch.formulas() == ["Al"]
    (reject,) = block.rejects
    assert reject.cause == "unknown_species"
    assert "Fr" in reject.reason


@pytest.mark.parametrize(
    ("symbol", "sites", "number"),
    [
        ("Al", 1, 225),
        ("Mn", 29, 217),
        ("Ga", 4, 64),
        ("B", 12, 166),
        ("P", 4, 64),
        ("S", 32, 70),
        ("Se", 3, 152),
        ("Te", 3, 152),
        ("As", 2, 166),
        ("Sb", 2, 166),
        ("Bi", 2, 166),
        ("In", 1, 139),
        ("Sn", 2, 227),
        ("Hg", 1, 166),
        ("I", 4, 64),
        ("Br", 4, 64),
        ("Cl", 4, 64),
        ("U", 2, 63),
        ("N", 8, 205),
        ("O", 2, 12),
        ("H", 8, 205),
        ("F", 8, 205),
        ("C", 4, 194),
        ("La", 4, 194),
        ("Sm", 3, 166),
        ("Pu", 16, 11),
        ("Np", 8, 62),
        ("Pa", 1, 139),
    ],
)
def test_ground_states(symbol: str, sites: int, number: int) -> None:
    import spglib

    atoms, origin = ground_state(symbol)
    assert set(atoms.get_chemical_symbols()) == {symbol}
    assert len(atoms) == sites
    found = spglib.get_symmetry_dataset(
        (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers), symprec=1e-3
    )
    assert found.number == number
    assert origin


def test_every_element_of_chgnet_has_a_sound_ground_state() -> None:
    from ase.data import covalent_radii
    from ase.neighborlist import neighbor_list

    from matcompute import plugins

    for symbol in sorted(plugins.load("matcompute.calculators", "chgnet").species):
        atoms, _ = ground_state(symbol)
        number = atoms.numbers[0]
        nearest = neighbor_list("d", atoms, 6.0).min()
        # Molecules and actinides are the tightest, noble gases and the alkali metals the widest.
        assert 0.65 < nearest / (2 * covalent_radii[number]) < 6.5, symbol
        assert np.isfinite(atomic_volumes()[number])


@pytest.mark.parametrize(
    ("symbol", "length"),
    [("H", 0.74), ("N", 1.09), ("O", 1.21), ("F", 1.42), ("Cl", 1.98), ("Br", 2.28), ("I", 2.72)],
)
def test_molecules_have_their_bond_length(symbol: str, length: float) -> None:
    from ase.neighborlist import neighbor_list

    atoms, _ = ground_state(symbol)
    assert neighbor_list("d", atoms, 4.0).min() == pytest.approx(length, abs=0.02)
