"""Real failures of a real pw.x: recovered by a handler, or one clear cause; the rest of the campaign completes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from ase.build import bulk
from ase.io import write

from matcompute.dataset import Dataset, Status
from tests.engine.conftest import Site

pytestmark = [
    pytest.mark.apt,
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(shutil.which("pw.x") is None, reason="no Quantum ESPRESSO (apt: quantum-espresso)"),
]

#: Coarse: what is tested is what happens to calculations, not what they find.
QE = "name: qe, protocol: fast, cutoff_wfc: 12 Ry, cutoff_rho: 60 Ry, kpoint_spacing: 0.9 1/angstrom"
FILE = f"""\
schema: matcompute.campaign/v1
name: failures
title: first-principles calculations that fail
domain: frontier-materials
licence: CC0-1.0
contributors: [{{name: matcompute tests}}]
structures:
  - files: crystals.extxyz
stages:
  # Three steps are too few at first; the plugin's handler goes on from there with a smaller mixing.
  - static: {{name: slow_scf, calculator: {{{QE}, scf_steps: 4}}}}
  # As many bands as are occupied: the plugin's handler sees that and takes more.
  - static: {{name: few_bands, calculator: {{{QE}, namelists: {{SYSTEM: {{nbnd: 4}}}}}}}}
  # Long enough to be killed while it runs, and known by its mixing.
  - static: {{name: killed, calculator: {{name: qe, protocol: fast, kpoint_spacing: 0.3 1/angstrom,
             namelists: {{ELECTRONS: {{mixing_beta: 0.375}}}}}}}}
  # The walltime is over before the first steps are.
  - static: {{name: short, calculator: {{name: qe, protocol: fast, kpoint_spacing: 0.2 1/angstrom}},
             resources: {{walltime: 2 s}}}}
  # No handler can make one step enough.
  - static: {{name: hopeless, calculator: {{{QE}, scf_steps: 1}}}}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("failures"))
    silicon = bulk("Si", a=5.47)
    compressed = silicon.copy()
    compressed.set_cell(silicon.cell * 0.98, scale_atoms=True)
    write(site.folder / "crystals.extxyz", [silicon, compressed, bulk("MgO", "rocksalt", a=4.2)])
    (site.folder / "failures.yaml").write_text(FILE)
    site.matcompute("init", str(site.root))
    site.matcompute("pseudo", "install", "debian-qe", "--default")
    yield site
    site.stop()


def _running(site: Site) -> list[psutil.Process]:
    """Calculations of the stage ``killed`` that run in the workspace (those of other stages may run beside them)."""
    found = []
    for process in psutil.process_iter(["name", "cwd"]):
        folder = Path(process.info["cwd"] or "/")
        if process.info["name"] != "pw.x" or not folder.is_relative_to(site.root / "scratch"):
            continue
        if "mixing_beta =   3.75" in (folder / "aiida.in").read_text():
            found.append(process)
    return found


def test_failures(site: Site) -> None:
    checked = site.matcompute("campaign", "check", "failures.yaml").stdout
    assert "calculator 'qe' has no pseudopotential of Mg: 1 of 3 structures" in checked
    site.matcompute("campaign", "run", "failures.yaml", "--detach")

    def a_calculation() -> int | None:
        for process in _running(site):
            # In the middle of its output, not before it has begun.
            output = Path(process.cwd()) / "aiida.out"
            if output.exists() and "Self-consistent Calculation" in output.read_text(errors="replace"):
                return process.pid
        assert site.campaign_state("failures") != "finished", "no calculation was seen while it ran"
        return None

    os.kill(site.until(a_calculation, "a calculation", 600), signal.SIGKILL)
    site.matcompute("campaign", "run", "failures.yaml", timeout=1500)
    failures = json.loads(site.matcompute("campaign", "failures", "failures", "--json").stdout)
    causes = {(group["stage"], group["code"]): group for group in failures if group["what"] == "structures"}
    assert set(causes) == {("slow_scf", "unsupported_species"), ("hopeless", "not_converged")}, failures
    assert "has none of Mg" in causes["slow_scf", "unsupported_species"]["message"]
    assert "the SCF did not converge" in causes["hopeless", "not_converged"]["message"]

    with Dataset(site.dataset("failures")) as data:
        for name in ("slow_scf", "few_bands", "killed", "short"):
            third = Status.UNSUPPORTED_SPECIES if name == "slow_scf" else Status.NOT_ATTEMPTED
            status = data.status(f"{name}__energy").tolist()
            assert sorted(status) == sorted([Status.OK, Status.OK, third]), name
        # More bands change nothing of a converged energy; a restart neither.
        np.testing.assert_allclose(
            data.column("few_bands__energy"), data.column("slow_scf__energy"), atol=2e-4, equal_nan=True
        )


def test_what_was_recovered_is_on_record(site: Site) -> None:
    """Each failure has left its failed calculation in the graph, and the handler's words in its report."""
    script = """
import json, sys
from pathlib import Path
from matcompute.workspace import Workspace
Workspace.find(Path(sys.argv[1])).load_profile()
from aiida.orm import CalcJobNode, QueryBuilder, WorkChainNode
found, left = {}, []
for chain in QueryBuilder().append(WorkChainNode).all(flat=True):
    stage = chain.label.split('/')[1] if chain.label.count('/') == 2 else ''
    jobs = [n for n in chain.called_descendants if isinstance(n, CalcJobNode)]
    if stage and jobs:
        found.setdefault(stage, []).append([job.exit_status for job in sorted(jobs, key=lambda n: n.pk)])
        folders = [Path(job.outputs.remote_folder.get_remote_path()) for job in jobs]
        left += [stage for folder in folders if folder.exists() and any(folder.iterdir())]
print(json.dumps([found, sorted(set(left))]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(site.root)], capture_output=True, text=True, check=True
    )
    found, left = json.loads(done.stdout.splitlines()[-1])
    assert all(jobs[0] == 410 and jobs[-1] == 0 for jobs in found["slow_scf"]), found
    assert all(len(jobs) == 2 and jobs == [0, 0] for jobs in found["few_bands"]), found
    # What was killed has a second process (or a second job, where the plugin saw it first).
    codes = sorted(status for jobs in found["killed"] for status in jobs)
    assert codes[:2] == [0, 0], found
    assert len(codes) == 3, found
    assert any(400 in jobs or 340 in jobs for jobs in found["short"]), found
    assert sum(jobs[-1] == 0 for jobs in found["short"]) == 2, found
    assert all(set(jobs) == {410} for jobs in found["hopeless"]), found
    # Only what ended badly leaves its folders; failed attempts at structures that ended well do not.
    assert left == ["hopeless"]
