"""Folders of pseudopotentials in the format psp8."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from matcompute.node.calculators.abinit import Abinit
from matcompute.node.calculators.psp8 import psp8_files, set_sha256, shipped_folder
from matcompute.node.errors import ModelError

HEADER = "{title}\n {z:.4f} {valence:.4f} 220721 zatom,zion,pspd\n 8 {xc} 2 4 600 0 pspcod,pspxc,lmax,…\n"


def write(path: Path, z: int, valence: float, xc: int = 11) -> Path:
    path.write_text(HEADER.format(title=path.stem, z=z, valence=valence, xc=xc))
    return path


def test_shipped_files_are_those_of_the_table() -> None:
    folder = shipped_folder()
    assert folder is not None
    files = psp8_files(folder)
    assert len(files) == 69
    assert files.keys() == Abinit.species
    assert (files["Si"].valence, files["Cu"].valence) == (4, 19)
    assert files["Cu"].sha256 == hashlib.sha256(files["Cu"].path.read_bytes()).hexdigest()
    settings = Abinit.settings({})
    # The cutoffs are those of these very files.
    origins = {item["ecut_from"] for item in Abinit.method_for({}, files)["pseudopotentials"].values()}
    assert "default" not in origins
    assert settings.ecut["Cu"] > settings.ecut["Si"]


def test_what_a_folder_has(tmp_path: Path) -> None:
    silicon = write(tmp_path / "anything.psp8", 14, 4)
    write(tmp_path / "libxc.psp8", 13, 3, xc=-101130)
    write(tmp_path / "lda.psp8", 29, 19, xc=-1012)
    (tmp_path / "notes.txt").write_text("no pseudopotential")
    assert {s: f.valence for s, f in psp8_files(tmp_path).items()} == {"Si": 4, "Al": 3}
    own = {"pseudopotentials": str(tmp_path)}
    assert Abinit.species_for(own) == {"Si", "Al"}
    # A file that was not measured gets the safe cutoff.
    assert Abinit.settings(own).ecut["Si"] > 2 * Abinit.settings({}).ecut["Si"]
    before = Abinit.potential_sha256(own, ["Si"])
    lines = f"Si {hashlib.sha256(silicon.read_bytes()).hexdigest()}\n"
    assert before == hashlib.sha256(lines.encode()).hexdigest()
    assert Abinit.potential_sha256(own, ["Si", "Al"]) == Abinit.potential_sha256(own, ["Al", "Si"]) != before
    assert set_sha256({}, []) == ""


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    write(tmp_path / "a.psp8", 14, 4)
    shutil.copy(tmp_path / "a.psp8", tmp_path / "b.psp8")
    with pytest.raises(ModelError, match=r"two files for Si: a\.psp8 and b\.psp8"):
        psp8_files(tmp_path)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.psp8").write_text("<UPF/>\n")
    with pytest.raises(ModelError, match=r"x\.psp8 is no psp8 file"):
        psp8_files(tmp_path / "bad")
    own = {"pseudopotentials": str(tmp_path / "none")}
    with pytest.raises(ModelError, match="cannot be read"):
        psp8_files(tmp_path / "none")
    # Of a folder of the compute node, seen from elsewhere, nothing can be said.
    assert "U" in Abinit.species_for(own)
