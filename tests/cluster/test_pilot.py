"""Dask pilots: workers as jobs of a real scheduler describe a dataset; the bytes are those of the serial driver.

And what is said when they cannot: a pilot that is not started, one that dies, one that is taken away.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase.build import bulk

from matcompute.dataset import Dataset, DatasetWriter, Metadata
from matcompute.dataset.descriptors import read_descriptor
from matcompute_kernels import Batch

from .services import Site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PROGRAMS = Path(sys.prefix) / "bin"
SOAP = "species=Al,Cu r_cut=4 n_max=3 l_max=2"
#: What a user may write who wants more than `matcompute describe --pilots` does.
SCRIPT = """
import sys
from pathlib import Path
from matcompute.centres import Centre
from matcompute.centres.pilots import pilots
from matcompute.node.describe import describe_dataset

def report(done, _all):
    print("chunk", flush=True)
    if "lost" in sys.argv and done:
        import subprocess
        subprocess.run(["scancel", "--me"], check=True)

if __name__ == "__main__":
    centre = Centre.load(Path("centre.yaml"))
    with pilots(centre, jobs=1, start_timeout_s=8 if "idle" in sys.argv else 300, on_wait=print) as client:
        parameters = {"species": ["Al", "Cu"], "r_cut": 4.0, "n_max": 3, "l_max": 2}
        describe_dataset("data.h5", "soap", parameters, driver="dask", size=1, cluster=client, progress=report,
                         patience_s=3)
"""


@pytest.fixture(scope="module")
def soap_cache(compiled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Machine code of SOAP, compiled once for all centres."""
    folder = tmp_path_factory.mktemp("soap")
    ase.io.write(folder / "a.extxyz", bulk("Al", cubic=True))
    command = [PROGRAMS / "matcompute", "describe", "a.extxyz", "--descriptor", "soap", *SOAP.split()]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(compiled)}
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return compiled


@pytest.fixture
def folder(site: Site, soap_cache: Path) -> Path:
    """A folder in the user's home with a dataset, a copy of it, a profile with pilots and the script."""
    site.give_cache(soap_cache)
    frames = []
    for seed in range(24):
        atoms = bulk("Al", cubic=True).repeat((1, 1, 1 + seed % 3))
        atoms.numbers[::2] = 29
        atoms.rattle(0.05, seed=seed)
        frames.append(atoms)
    folder = site.home / "pilot"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with DatasetWriter(folder / "alone.h5", Metadata(title="pilots")) as writer:
        writer.append(Batch.from_atoms(frames))
    shutil.copy(folder / "alone.h5", folder / "data.h5")
    (folder / "pilot.py").write_text(SCRIPT)
    profile(site, folder)
    return folder


def profile(site: Site, folder: Path, **overrides: Any) -> None:
    """Write the centre's profile; all of the folder belongs to the user."""
    pilot = {"cores": 1, "memory_gb": 1.0, "walltime": "00:10:00", "interface": "lo", "max_jobs": 2}
    site.profile(folder / "centre.yaml", pilot=pilot, **overrides)
    user = site.container.user
    for path in (folder, *folder.iterdir()):
        os.chown(path, user.uid, user.gid)


def run(site: Site, command: str, *, check: bool = True, timeout: float = 600) -> str:
    """Run a command in the folder as a user on the login node; return all that it prints."""
    command = f"cd pilot && NUMBA_CACHE_DIR=$HOME/.numba timeout {timeout} {PROGRAMS}/{command} 2>&1"
    done: subprocess.CompletedProcess[str] = site.container.over_ssh(
        command, check=False, timeout=timeout + 20
    )
    logs = "\n".join(
        f"--- {path.name}\n{path.read_text()[-3000:]}" for path in (site.home / "pilot").glob("pilot-logs/*")
    )
    assert (done.returncode == 0) == check, f"{done.stdout}\n{logs}\n{site.why()}"
    return done.stdout


@pytest.mark.parametrize("site", ["slurm_b", "sge"], indirect=True)
def test_pilots_describe_a_dataset(site: Site, folder: Path) -> None:
    # In the same environment: another BLAS kernel may differ in the last digit.
    run(site, f"matcompute describe alone.h5 --in-place --descriptor soap {SOAP} --chunk 4 --driver serial")
    printed = run(
        site,
        f"matcompute describe data.h5 --in-place --descriptor soap {SOAP} --chunk 4 --pilots centre.yaml --json",
    )
    assert '"driver": "dask"' in printed, printed
    assert '"n_chunks": 6' in printed, printed
    with Dataset(folder / "alone.h5") as expected, Dataset(folder / "data.h5") as found:
        assert np.array_equal(read_descriptor(expected, "soap"), read_descriptor(found, "soap"))
    # None is left behind.
    site.container.until(lambda: site.jobs() == [], "the end of the pilots")


@pytest.mark.parametrize("site", ["slurm_b"], indirect=True)
def test_a_pilot_that_is_never_started(site: Site, folder: Path) -> None:
    site.drain("b1")
    try:
        printed = run(site, "python pilot.py idle", check=False)
    finally:
        site.resume("b1")
    assert "PilotError: no pilot works after 8 s: job" in printed, printed
    assert "is pending" in printed
    assert "in partition main, which starts no jobs (1 drain" in printed


@pytest.mark.parametrize("site", ["slurm_b"], indirect=True)
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"codes": [{"name": "matcompute-node", "executable": "/nowhere/matcompute-node"}]},
            "/nowhere/python",
        ),
        ({"launch": {"extra_directives": ["#SBATCH --mem=1T"]}}, "pilots cannot be submitted"),
    ],
    ids=["dies", "refused"],
)
def test_a_pilot_that_cannot_work(site: Site, folder: Path, change: dict[str, Any], says: str) -> None:
    profile(site, folder, **change)
    printed = run(site, "python pilot.py", check=False)
    assert "PilotError" in printed, printed
    assert says in printed


@pytest.mark.parametrize("site", ["slurm_b"], indirect=True)
def test_a_pilot_that_is_taken_away(site: Site, folder: Path) -> None:
    printed = run(site, "python pilot.py lost", check=False)
    assert "chunk" in printed
    assert "PilotError: soap: no Dask worker has worked for 3 s (there is none)" in printed, printed
    assert re.search(r"pilot-logs/\S+: slurmstepd.*CANCELLED", printed), printed
