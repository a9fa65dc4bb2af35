"""Dask pilots: workers as jobs of a real scheduler describe a dataset; the bytes are those of the serial driver."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from matcompute.dataset import Dataset, DatasetWriter, Metadata
from matcompute.dataset.descriptors import read_descriptor
from matcompute_kernels import Batch

from .services import Site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

PARAMETERS = {"species": ["Al", "Cu"], "r_cut": 4.0, "n_max": 3, "l_max": 2}
#: What a user runs on a login node.
SCRIPT = f"""
import sys
from pathlib import Path
from distributed import Client
from matcompute.centres import Centre
from matcompute.centres.pilot import pilot_cluster
from matcompute.node.describe import describe_dataset

if __name__ == "__main__":
    centre = Centre.load(Path(sys.argv[1]))
    with pilot_cluster(centre) as cluster, Client(cluster) as client:
        cluster.scale(jobs=2)
        client.wait_for_workers(2, timeout=90)
        jobs = client.run(lambda: __import__("os").environ.get("SLURM_JOB_ID") or __import__("os").environ["JOB_ID"])
        print("jobs", len(set(jobs.values())))
        found = describe_dataset(sys.argv[2], "soap", {PARAMETERS!r}, driver="dask", size=4, cluster=client)
        print("chunks", found["n_chunks"], "by", found["driver"])
    # In the same environment: another BLAS kernel may differ in the last digit.
    describe_dataset(sys.argv[3], "soap", {PARAMETERS!r}, driver="serial", size=4)
"""


@pytest.mark.parametrize("site", ["slurm_b"], indirect=True)
def test_pilots_describe_a_dataset(site: Site) -> None:
    frames = []
    for seed in range(24):
        atoms = bulk("Al", cubic=True).repeat((1, 1, 1 + seed % 3))
        atoms.numbers[::2] = 29
        atoms.rattle(0.05, seed=seed)
        frames.append(atoms)
    folder = site.home / "pilot"
    folder.mkdir()
    with DatasetWriter(folder / "alone.h5", Metadata(title="pilots")) as writer:
        writer.append(Batch.from_atoms(frames))
    shutil.copy(folder / "alone.h5", folder / "data.h5")
    (folder / "pilot.py").write_text(SCRIPT)
    pilot = {
        "cores": 1,
        "processes": 1,
        "memory_gb": 0.5,
        "walltime": "00:05:00",
        "interface": "lo",
        "max_jobs": 2,
    }
    site.profile(folder / "centre.yaml", pilot=pilot)
    user = site.container.user
    for path in (folder, *folder.iterdir()):
        os.chown(path, user.uid, user.gid)

    python = Path(sys.prefix) / "bin" / "python"
    printed = site(f"cd pilot && {python} pilot.py centre.yaml data.h5 alone.h5 2>&1", timeout=180)
    assert "jobs 2" in printed, printed
    assert "chunks 6 by dask" in printed, printed

    with Dataset(folder / "alone.h5") as expected, Dataset(folder / "data.h5") as found:
        assert np.array_equal(read_descriptor(expected, "soap"), read_descriptor(found, "soap"))
