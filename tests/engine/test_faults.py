"""A full disk, a read-only workspace, a missing model, a corrupt shard, wrong versions: a clear error, nothing lost."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import pytest

from matcompute.dataset import Dataset
from tests.plugins import write_plugin

from .conftest import Site, write_structures
from .test_control import SIMPLE, simple

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("may not mount a file system here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def small_site(small_disk: Path) -> Iterator[Site]:
    site = Site(small_disk)
    write_structures(small_disk / "rattled.extxyz", count=6)
    site.matcompute("init", str(site.root))
    yield site
    site.stop()


def test_full_disk(small_site: Site) -> None:
    site = small_site
    site.gate.close()
    site.matcompute("campaign", "run", simple(site, "full", size=2), "--detach")
    site.let_pass_until(lambda: site.done(site.jobs()) >= 1, "a structure")
    ballast = site.folder / "ballast"
    with ballast.open("wb", buffering=0) as handle:
        try:
            while True:
                handle.write(b"\0" * 65536)
        except OSError:
            pass
    site.gate.open()
    result = site.matcompute("campaign", "status", "full", "--watch", check=False)
    errors = [result.stdout]
    if "space" not in result.stdout:
        errors.append(site.matcompute("campaign", "resume", "full", check=False).stdout)
    assert any("No space left" in text or "no space left" in text for text in errors), "\n".join(errors)
    assert all("Traceback" not in text for text in errors), errors
    ballast.unlink()
    result = site.matcompute("campaign", "resume", "full", check=False)
    assert "finished: 6 structures" in result.stdout, result.stdout + site.log()
    again = {key: n for key, n in site.events(site.jobs(), "done").items() if n > 1}
    assert not again


def test_read_only_workspace(small_site: Site) -> None:
    site = small_site
    site.matcompute("campaign", "run", simple(site, "readonly"))
    site.stop()
    subprocess.run(["mount", "-o", "remount,ro", str(site.folder)], check=True)
    try:
        # What only looks still works.
        assert "finished" in site.look("campaign", "list")
        assert "entries" in site.look("dataset", "info", str(site.dataset("readonly")))
        result = site.matcompute(
            "campaign", "run", str(site.folder / "readonly.yaml"), "--name", "more", check=False
        )
        assert result.returncode != 0
        assert "read-only" in result.stdout.lower() or "cannot write" in result.stdout.lower()
        assert "hint:" in result.stdout
        assert "Traceback" not in result.stdout
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(site.folder)], check=True)
    assert (
        "finished"
        in site.matcompute("campaign", "run", str(site.folder / "readonly.yaml"), "--name", "more").stdout
    )


PLUGIN = '''
from pathlib import Path
from matcompute.node.adapters import CalculatorAdapter
from matcompute.node.calculators.emt import EMTCalculator

class WithFile(EMTCalculator):
    """EMT that needs a file, as a machine-learned model does."""
    name = "withfile"
    def model_path(self, parameters=None):
        return Path(__file__).with_name("weights.bin")

withfile = WithFile()
'''


def test_missing_model(new_site: Site) -> None:
    """A third party's calculator whose weights disappear."""
    site = new_site
    package = site.folder / "models"
    write_plugin(package, "withfile", PLUGIN, "withfile")
    site.environment["PYTHONPATH"] += f"{os.pathsep}{package}"
    file = Path(simple(site, "model"))
    file.write_text(file.read_text().replace("gated", "withfile"))

    result = site.matcompute("campaign", "run", str(file), check=False)
    assert result.returncode == 1
    assert "weights.bin" in result.stdout
    assert "campaign resume model" in result.stdout
    (package / "weights.bin").write_bytes(b"the weights")
    assert "finished: 4 structures" in site.matcompute("campaign", "resume", "model").stdout


def test_corrupt_shard(new_site: Site) -> None:
    site = new_site
    file = Path(simple(site, "corrupt"))
    # Out of budget after the first stage: a moment at which nothing runs.
    file.write_text(
        file.read_text() + "  - eos: {calculator: gated, points: 5}\nbudget: {core_hours: 0.000001}\n"
    )
    assert "over-budget" in site.matcompute("campaign", "run", str(file), check=False).stdout
    (uuid,) = site.query("SELECT result_uuid FROM batch WHERE result_uuid IS NOT NULL")[0]
    program = (
        "import sys; from matcompute.workspace import Workspace; Workspace(sys.argv[1]).load_profile()\n"
        "from aiida.orm import load_node; print(load_node(uuid=sys.argv[2])._loose_object())"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, str(site.root), uuid], capture_output=True, text=True, check=True
    )
    shard = Path(found.stdout.strip())
    sound = shard.read_bytes()
    shard.chmod(0o644)
    shard.write_bytes(sound[: len(sound) // 2])
    result = site.matcompute("campaign", "resume", "corrupt", "--core-hours", "1", check=False)
    assert result.returncode == 1
    assert "stopped" in result.stdout
    assert any(word in result.stdout for word in ("damaged", "truncated", "corrupt", "cannot be read"))
    assert "Traceback" not in result.stdout
    shard.write_bytes(sound)
    assert "finished: 4 structures" in site.matcompute("campaign", "resume", "corrupt").stdout
    assert set(site.events(site.jobs(), "done").values()) == {1}


def test_a_source_of_another_version(site: Site) -> None:
    site.matcompute("campaign", "run", simple(site, "versioned", size=16))
    source = site.folder / "newer.h5"
    shutil.copy(site.dataset("versioned"), source)
    with h5py.File(source, "r+") as handle:
        handle.attrs["format_version"] = "99.0"
    file = site.folder / "from-newer.yaml"
    text = SIMPLE.format(name="from-newer", size=4, steps=5, source="x", fmax=0.01)
    file.write_text(text.replace("files: x", "dataset: newer.h5"))
    result = site.matcompute("campaign", "run", str(file), check=False)
    assert result.returncode != 0
    assert "newer.h5" in result.stdout
    assert "99.0" in result.stdout
    assert "Traceback" not in result.stdout


def test_a_dataset_is_a_source(site: Site) -> None:
    site.matcompute("campaign", "run", simple(site, "versioned", size=16))
    shutil.copy(site.dataset("versioned"), site.folder / "earlier.h5")
    file = site.folder / "from-earlier.yaml"
    text = SIMPLE.format(name="from-earlier", size=16, steps=5, source="x", fmax=0.01)
    file.write_text(text.replace("files: x", "dataset: earlier.h5"))
    assert "finished: 16 structures" in site.matcompute("campaign", "run", str(file)).stdout
    with Dataset(site.dataset("from-earlier")) as data:
        assert max(data.column("n_steps")) <= 1, "they were relaxed already"


def test_a_newer_state_database(new_site: Site) -> None:
    site = new_site
    assert "no campaign yet" in site.look("campaign", "list")
    connection = sqlite3.connect(site.root / "state.sqlite")
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    result = site.matcompute("campaign", "list", check=False)
    assert result.returncode == 1
    assert "newer than this matcompute" in result.stdout
    assert os.path.exists(site.root / "state.sqlite")  # noqa: PTH110


def test_a_missing_source_is_told_at_once(site: Site) -> None:
    result = site.matcompute("campaign", "run", simple(site, "absent", source="nowhere.extxyz"), check=False)
    assert result.returncode == 2
    assert "nowhere.extxyz" in result.stdout
    assert not site.query("SELECT 1 FROM campaign WHERE name = 'absent'")
