"""Families of pseudopotentials: what is installed, what is recorded, and what is refused."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from matcompute.errors import InputError
from matcompute_workflows.dft.check import check_family
from matcompute_workflows.dft.pseudos import PseudoError, describe, families, find, install, known_sets

pytestmark = pytest.mark.usefixtures("workspace")


@pytest.fixture(autouse=True)
def _no_families(workspace: object) -> None:
    from aiida.orm import Group, QueryBuilder
    from aiida.plugins import GroupFactory

    for group in QueryBuilder().append(GroupFactory("pseudo.family")).all(flat=True):
        Group.collection.delete(group.pk)


def test_a_folder_is_installed_with_its_digests(write_upf: Callable[..., Path]) -> None:
    write_upf("Si", wfc=44.0, rho=175.0)
    folder = write_upf("O", z=6.0, kind="PAW", wfc=38.0, rho=400.0)
    family = install(folder, name="mine", functional="PBE")
    assert sorted(family.potentials) == ["O", "Si"]
    silicon = family.potentials["Si"]
    content = (folder / "Si.pbe.UPF").read_bytes()
    assert silicon.sha256 == hashlib.sha256(content).hexdigest()
    assert silicon.md5 == hashlib.md5(content).hexdigest()
    assert (silicon.file, silicon.z_valence, silicon.cutoff_source) == ("Si.pbe.UPF", 4.0, "file")
    # An ultrasoft potential needs eight times the cutoff for its density, whatever the file says.
    assert (silicon.cutoff_wfc, silicon.cutoff_rho) == (44.0, 352.0)
    assert (family.potentials["O"].cutoff_wfc, family.potentials["O"].cutoff_rho) == (38.0, 400.0)
    # A second time nothing changes.
    assert install(folder, name="mine", functional="PBE").potentials == family.potentials
    assert len(families()) == 1


def test_cutoffs_are_given_or_guessed(write_upf: Callable[..., Path]) -> None:
    write_upf("Si", kind="NC")
    folder = write_upf("C", kind="US")
    family = install(folder, name="guessed")
    assert [p.cutoff_source for p in family.potentials.values()] == ["guessed", "guessed"]
    assert (family.potentials["Si"].cutoff_wfc, family.potentials["Si"].cutoff_rho) == (80.0, 320.0)
    assert check_family("guessed").guessed == ["C", "Si"]
    family = install(folder, name="given", cutoffs={"Si": [20, 90], "C": [30, 240]})
    assert family.potentials["Si"].cutoff_wfc == pytest.approx(20.0)
    with pytest.raises(PseudoError, match="Xe, of which there is no potential"):
        install(folder, name="other", cutoffs={"Xe": [20, 90]})
    with pytest.raises(PseudoError, match="cutoffs of Si: expected 0 < wavefunctions"):
        install(folder, name="other", cutoffs={"Si": [90, 20]})
    assert {f.name for f in families()} == {"guessed", "given"}


def test_an_archive_is_installed(write_upf: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_upf("Si", wfc=40)
    archive = tmp_path / "published.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, "pbe")
    family = install(archive)
    assert family.name == "published"
    assert list(family.potentials) == ["Si"]


def test_what_is_refused_leaves_everything_as_it_was(write_upf: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_upf("Si", wfc=40)
    install(folder, name="mine")
    with pytest.raises(PseudoError, match=r"no such folder.*did you mean 'debian-qe'"):
        install("debian-q")
    write_upf("Si", "twice", name="a.UPF")
    with pytest.raises(PseudoError, match=r"two potentials of Si: a\.UPF and b\.UPF"):
        install(write_upf("Si", "twice", name="b.UPF"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "X.UPF").write_text("nothing")
    with pytest.raises(PseudoError, match=r"X\.UPF is no UPF file"):
        install(tmp_path / "broken")
    (tmp_path / "text.tar.gz").write_text("nothing")
    with pytest.raises(PseudoError, match="neither a folder nor an archive"):
        install(tmp_path / "text.tar.gz")
    changed = write_upf("Si", "changed", wfc=40, info="another one")
    with pytest.raises(PseudoError, match=r"family 'mine' with other potentials \(Si\)"):
        install(changed, name="mine")
    assert [f.name for f in families()] == ["mine"]


def test_the_family_that_is_meant(write_upf: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="no pseudopotential family is installed"):
        find()
    install(write_upf("Si", "one", wfc=30), name="one")
    assert find().label == "one"
    install(write_upf("C", "two", wfc=30), name="two")
    with pytest.raises(InputError, match="several pseudopotential families are installed: one, two"):
        find()
    install(write_upf("C", "two", wfc=30), name="two", default=True)
    assert find().label == "two"
    assert find("one").label == "one"
    with pytest.raises(InputError, match=r"no pseudopotential family 'on'.*did you mean 'one'"):
        find("on")
    assert [f.default for f in families()] == [True, False]


def test_a_family_is_checked(write_upf: Callable[..., Path]) -> None:
    install(write_upf("Si", wfc=30), name="mine")
    found = check_family(None, ["Si", "Mg", "As"])
    assert not found.ok
    assert found.missing == ["As", "Mg"]
    assert any("no potential of Mg" in line for line in found.lines())
    # A digest that is not the file's: as if the object store had been changed.
    node = next(iter(find().nodes))
    node.base.extras.set("sha256", "0" * 64)
    assert check_family(None).changed == ["Si"]


@pytest.mark.apt
@pytest.mark.skipif(shutil.which("pw.x") is None, reason="no Quantum ESPRESSO (apt: quantum-espresso)")
def test_the_set_of_debian_is_what_it_says() -> None:
    family = install("debian-qe", default=True)
    said = known_sets()["debian-qe"]["files"]
    assert {symbol: p.sha256 for symbol, p in family.potentials.items()} == {
        symbol: item["sha256"] for symbol, item in said.items()
    }
    assert family.functional == "PBE"
    assert {"Si", "Ge", "C", "B", "N", "Cu", "Ni", "Rh", "O"} <= set(family.potentials)
    assert describe(find()).potentials == family.potentials


def test_another_file_under_a_known_name_is_refused(
    write_upf: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from matcompute_workflows.dft import pseudos

    folder = write_upf("Si", name="Si.UPF")
    entry = {"Si": {"file": "Si.UPF", "cutoffs": [30, 240], "sha256": "0" * 64}}
    made = {
        "a-set": {"title": "t", "functional": "PBE", "folders": [str(folder)], "how": "h", "files": entry}
    }
    monkeypatch.setattr(pseudos, "known_sets", lambda: made)
    with pytest.raises(PseudoError, match="is another file than the set names"):
        install("a-set")
    (folder / "Si.UPF").unlink()
    with pytest.raises(PseudoError, match=r"Si\.UPF is not in"):
        install("a-set")
