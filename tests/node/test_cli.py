"""The command line, and a calculator of a third party as the how-to shows it."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk

from matcompute.dataset import Status

PROGRAM = str(Path(sys.executable).parent / "matcompute-node")
DOCS = Path(__file__).parents[2] / "docs"


def test_help_is_quick() -> None:
    """In processor time: other programs share the machine with the tests."""
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        text = subprocess.run([PROGRAM, "--help"], capture_output=True, text=True, check=True).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert "run" in text
    assert "info" in text
    assert min(times) < 0.4


def test_info() -> None:
    content = json.loads(subprocess.run([PROGRAM, "info", "--json"], capture_output=True, check=True).stdout)
    calculators = {c["name"]: c for c in content["calculators"]}
    assert calculators["emt"]["species"] == sorted(["Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt"])
    assert len(calculators["chgnet"]["species"]) == 89
    assert re.fullmatch("[0-9a-f]{64}", calculators["chgnet"]["model_sha256"])
    tasks = {t["name"]: t for t in content["tasks"]}
    assert tasks.keys() >= {"static", "relax", "eos"}
    assert "qe" not in calculators, "its structures are processes of AiiDA"
    assert "bands" not in tasks
    assert {"name": "bulk_modulus", "units": "GPa", "per": "entry"} in tasks["eos"]["outputs"]
    assert all(item["available"] for item in content["tasks"]), content["tasks"]
    table = subprocess.run([PROGRAM, "info"], capture_output=True, text=True, check=True).stdout
    assert "chgnet" in table
    assert "89 elements" in table


def test_emt_jobs_import_no_heavy_package(
    make_job: Callable[..., Any], make_alloys: Callable[..., Any]
) -> None:
    job = make_job(structures=make_alloys(1), processes=1)
    code = (
        "import sys; from matcompute.node.runner import run;"
        f"assert run({str(job.folder / 'task.json')!r}).exit_code == 0;"
        "print([m for m in ('torch', 'pandas', 'pymatgen', 'aiida', 'matplotlib') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_dry_run(make_job: Callable[..., Any], make_alloys: Callable[..., Any]) -> None:
    job = make_job(structures=[*make_alloys(3), bulk("Fe")])
    files = {p.name for p in job.folder.iterdir()}
    finished = job.run("--dry-run")
    assert finished.returncode == 0, finished.stderr
    content = json.loads(finished.stdout)
    assert (content["structures"], content["to_compute"]) == (4, 4)
    assert content["estimated_core_s"] > 0
    assert [r["status"] for r in content["refused"]] == ["unsupported_species"]
    assert {p.name for p in job.folder.iterdir()} == files


def test_collect(
    make_job: Callable[..., Any], make_alloys: Callable[..., Any], same: Callable[..., None]
) -> None:
    """The shard of an unfinished job says what is not attempted; nothing is computed, and the job can go on."""
    alloys = make_alloys(4)
    job = make_job(structures=alloys[:2], processes=1)
    assert job.run().returncode == 0
    job.write(alloys, processes=1)  # the same checkpoint, two structures more
    starts = job.starts()
    collected = job.run("--collect")
    assert collected.returncode == 75
    assert "stopped: collected; 2 of 4 are not attempted" in collected.stderr
    assert job.summary["counts"] == {"ok": 2, "not_attempted": 2}
    assert (job.summary["state"], job.starts()) == ("partial", starts)
    with job.results() as shard:
        assert shard.status("energy").tolist() == [Status.OK] * 2 + [Status.NOT_ATTEMPTED] * 2
        assert len(shard) == 4
    assert job.run().returncode == 0
    assert job.starts() == starts + 2
    finished = job.values()
    collected = job.run("--collect")
    assert (collected.returncode, collected.stderr) == (0, "")
    same(job.values(), finished)
    empty = make_job("empty", structures=alloys[:1], processes=1)
    assert empty.run("--collect").returncode == 75
    with empty.results() as shard:
        assert len(shard) == 1


def test_missing_package_of_a_parameter_ends_the_job(
    make_job: Callable[..., Any], make_alloys: Callable[..., Any], tmp_path: Path
) -> None:
    """Without spglib no structure is blamed: the job ends with 69, also under --dry-run."""
    hide = tmp_path / "hide"
    hide.mkdir()
    (hide / "sitecustomize.py").write_text("import sys; sys.modules['spglib'] = None")
    job = make_job(structures=make_alloys(2), parameters={"keep_symmetry": True})
    job.env["PYTHONPATH"] = os.pathsep.join([str(hide), job.env["PYTHONPATH"]])
    for options in ([], ["--dry-run"]):
        finished = job.run(*options)
        assert finished.returncode == 69, finished.stderr
        assert "needs the package 'spglib'" in finished.stderr
        assert "pip install spglib" in finished.stderr
    assert not (job.folder / "results.h5").exists()
    job.write(None, parameters={"keep_symmetry": False})
    assert job.run().returncode == 0


def test_nothing_is_written_at_home(
    make_job: Callable[..., Any], make_alloys: Callable[..., Any], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    job = make_job(structures=make_alloys(1), task="static", calculator="chgnet", processes=1)
    job.env = {
        k: v for k, v in job.env.items() if k not in ("MPLCONFIGDIR", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME")
    }
    job.env["HOME"] = str(home)
    assert job.run().returncode == 0
    assert list(home.iterdir()) == []


def test_worked_example_of_the_how_to(
    make_job: Callable[..., Any], make_alloys: Callable[..., Any], tmp_path: Path
) -> None:
    """Write the files that docs/how-to/add-a-calculator.md shows, install them and run a job with them."""
    page = (DOCS / "how-to" / "add-a-calculator.md").read_text(encoding="utf-8")
    files = dict(re.findall(r"```\w+\n# file: (\S+)\n(.*?)```", page, flags=re.DOTALL))
    assert set(files) == {"pyproject.toml", "lj_calculator.py"}
    package = tmp_path / "package"
    package.mkdir()
    for name, text in files.items():
        (package / name).write_text(text)
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index",
         "--target", str(site), str(package)],
        check=True, capture_output=True, env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )  # fmt: skip
    atoms = bulk("Ar", "fcc", a=5.4)
    job = make_job(
        structures=[atoms, bulk("Cu")], task="eos", calculator={"name": "lj", "parameters": {"sigma": 3.4}}
    )
    job.env["PYTHONPATH"] = str(site)
    finished = job.run()
    assert finished.returncode == 0, finished.stderr
    with job.results() as shard:
        assert shard.status("bulk_modulus").tolist() == [Status.OK, Status.UNSUPPORTED_SPECIES]
        # The 12-6 fcc crystal: nearest neighbours at 1.09 σ, B0 = 75 ε/σ³.
        v0 = float(shard.column("equilibrium_volume")[0])
        assert (v0 * 2**0.5) ** (1 / 3) / 3.4 == pytest.approx(1.09, abs=0.01)
        expected = 75 * 0.0104 / 3.4**3 * 160.2177
        assert float(shard.column("bulk_modulus")[0]) == pytest.approx(expected, rel=0.1)
        assert shard.methods[0].parameters["calculator_parameters"] == {"sigma": 3.4, "epsilon": 0.0104}
