"""kill -9 of dispatcher, worker and whole daemon during a per-structure stage: nothing is lost, nothing done twice."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import psutil
import pytest
from ase.build import bulk
from ase.io import write

from matcompute.dataset import Dataset, Status
from tests.engine.conftest import Site

pytestmark = [
    pytest.mark.apt,
    pytest.mark.kill,
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(shutil.which("pw.x") is None, reason="no Quantum ESPRESSO (apt: quantum-espresso)"),
]

COUNT = 8
#: States of a structure, the first one first.
ORDER = ("intent", "submitted", "computed", "finished")
FILE = """\
schema: matcompute.campaign/v1
name: {name}
title: trivial crystals
domain: frontier-materials
licence: CC0-1.0
contributors: [{{name: matcompute tests}}]
structures:
  - files: crystals.extxyz
stages:
  - static:
      calculator:
        name: qe
        protocol: fast
        cutoff_wfc: 10 Ry
        cutoff_rho: 40 Ry
        kpoint_spacing: 1.2
        namelists: {{ELECTRONS: {{mixing_beta: {beta}}}}}
"""
#: Jobs of a campaign's processes, by the structure's key: how many ended well.
COUNTED = """
import json, sys
from pathlib import Path
from matcompute.workspace import Workspace
Workspace.find(Path(sys.argv[1])).load_profile()
from aiida.orm import CalcJobNode, QueryBuilder, WorkChainNode
found = {}
mine = {'label': {'like': sys.argv[2] + '/static/%'}}
for chain in QueryBuilder().append(WorkChainNode, filters=mine).all(flat=True):
    jobs = [n for n in chain.called_descendants if isinstance(n, CalcJobNode) and n.is_finished_ok]
    key = chain.label.partition('#')[0]
    found[key] = found.get(key, 0) + len(jobs)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("dft-kill"))
    write(site.folder / "crystals.extxyz", [bulk("Si", a=5.3 + 0.05 * k) for k in range(COUNT)])
    # Another mixing: the second campaign may not live on the first one's results in AiiDA's cache.
    for name, beta in (("undisturbed", 0.40), ("killed", 0.39)):
        (site.folder / f"{name}.yaml").write_text(FILE.format(name=name, beta=beta))
    site.matcompute("init", str(site.root))
    site.matcompute("pseudo", "install", "debian-qe", "--default")
    yield site
    site.stop()


def _kill(victims: list[psutil.Process]) -> None:
    for process in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(victims, timeout=30)


def test_nothing_is_lost_and_nothing_done_twice(site: Site) -> None:
    site.matcompute("campaign", "run", "undisturbed.yaml", timeout=900)
    site.matcompute("campaign", "run", "killed.yaml", "--detach")
    states = (
        "SELECT b.state FROM batch b JOIN campaign c ON c.id = b.campaign_id WHERE c.name = 'killed' AND b.state "
        "!= 'planned'"
    )

    def over() -> bool:
        return site.campaign_state("killed") == "finished"

    def parts(name: str) -> list[psutil.Process]:
        # The supervisor comes first, it would start the others again.
        names = ("start-circus", "worker", "broker") if name == "daemon" else ("worker",)
        return (
            site.dispatchers() if name == "dispatcher" else [p for part in names for p in site.daemon(part)]
        )

    blows = 0
    for least, count, part in (
        ("intent", 1, "dispatcher"),
        ("submitted", 2, "dispatcher"),
        ("submitted", 4, "worker"),
        ("computed", 2, "dispatcher"),
        ("computed", 4, "daemon"),
        ("finished", 5, "dispatcher"),
    ):

        def reached(least: str = least, count: int = count) -> bool:
            far = ORDER[ORDER.index(least) :]
            return over() or sum(row[0] in far for row in site.query(states)) >= count

        site.until(reached, f"{count} batches {least}")
        if over():
            break  # too quick for the later blows
        _kill(parts(part))
        blows += 1
        site.matcompute("campaign", "resume", "killed", "--detach", check=False)
    assert blows >= 2, "the campaign was over before it was hit"
    site.matcompute("campaign", "run", "killed.yaml", timeout=900)

    with Dataset(site.dataset("undisturbed")) as one, Dataset(site.dataset("killed")) as other:
        assert one.ids.tolist() == other.ids.tolist()
        assert (other.status("energy") == Status.OK).all()
        # Self-consistent to 1e-7 eV an atom, whatever the mixing.
        np.testing.assert_allclose(one.column("energy"), other.column("energy"), atol=1e-6)
    uuid = site.query("SELECT uuid FROM campaign WHERE name = 'killed'")[0][0]
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, str(site.root), uuid], capture_output=True, text=True, check=True
    )
    counted = json.loads(done.stdout.splitlines()[-1])
    assert len(counted) == COUNT
    assert set(counted.values()) == {1}, "a structure that was finished was computed again"
