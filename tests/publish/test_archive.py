"""A campaign goes into a release in one command, and its AiiDA archive out of it into another profile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write

from .validators import rocrate

CAMPAIGN = """\
schema: matcompute.campaign/v1
name: quick
title: three metals
domain: advanced-nonferrous-metals
licence: CC0-1.0
contributors: [{name: matcompute tests}]
structures:
  - files: metals.extxyz
stages:
  - relax: {calculator: emt, cell: false, fmax: 0.05 eV/angstrom}
  - top: {n: 2, by: energy}
"""
WALK = Path(__file__).parents[1] / "engine" / "walk.py"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, matcompute: Run) -> Iterator[Path]:
    """A folder with a workspace ``one`` whose campaign is finished and built as ``out``, and an empty one ``two``."""
    folder = tmp_path_factory.mktemp("archive")
    write(folder / "metals.extxyz", [bulk(name, cubic=True) for name in ("Cu", "Al", "Ni")])
    (folder / "quick.yaml").write_text(CAMPAIGN)
    matcompute("init", "one", cwd=folder)
    matcompute("init", "two", cwd=folder)
    try:
        matcompute("-w", "one", "campaign", "run", "quick.yaml", cwd=folder)
        build = ("publish", "build", "--campaign", "quick", "--node", "node-1", "--out", "out")
        matcompute("-w", "one", *build, cwd=folder)
        yield folder
    finally:
        matcompute("-w", "one", "workspace", "stop", cwd=folder, check=False)


@pytest.mark.slow
def test_the_archive_holds_all_that_made_the_dataset(site: Path, matcompute: Run) -> None:
    """Every value of the released file is walked back to its source inside the profile that imported the archive."""
    archive, shard = site / "out" / "provenance" / "quick.aiida", site / "out" / "data" / "quick.h5"
    assert shard.read_bytes() == (site / "one" / "datasets" / "quick.h5").read_bytes()
    matcompute("-w", "two", "verdi", "archive", "import", archive, cwd=site)
    environment = {k: v for k, v in os.environ.items() if k not in ("AIIDA_PATH", "MATCOMPUTE_WORKSPACE")}
    done = subprocess.run(
        [sys.executable, str(WALK), str(site / "two"), str(shard)],
        env=environment | {"HOME": str(site)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    walked = json.loads(done.stdout.splitlines()[-1])
    assert walked["values"] > 3
    # The campaign file and the structures, at the end of every walk.
    assert {"SinglefileData", "FolderData"} <= set(walked["kinds"])


@pytest.mark.slow
def test_the_crate_names_the_same_processes(site: Path) -> None:
    graph = json.loads((site / "out" / "provenance" / "ro-crate-metadata.json").read_text())["@graph"]
    by_id = {item["@id"]: item for item in graph}
    assert len(by_id) == len(graph)
    actions = [item for item in graph if item["@type"] == "CreateAction"]
    ran = {by_id[a["instrument"]["@id"]]["name"] for a in actions}
    assert any("matcompute" in name for name in ran), ran
    # What one process made goes into another: the chain is there.
    made = {node["@id"] for a in actions for node in a.get("result", [])}
    assert made & {node["@id"] for a in actions for node in a.get("object", [])}
    for folder, profile in (("out", "ro-crate-1.2"), ("out/provenance", "process-run-crate-0.5")):
        valid, report = rocrate(site / folder, profile)
        assert valid, report[-4000:]


@pytest.mark.slow
def test_refusals_say_what_to_do(site: Path, matcompute: Run) -> None:
    def build(*words: str) -> str:
        command = ("-w", "one", "publish", "build", *words, "--node", "node-1", "--out", "more")
        done = matcompute(*command, cwd=site, check=False)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        return " ".join(done.stderr.split())

    assert "did you mean 'quick'" in build("--campaign", "quik")
    assert "or --campaign" in build()
    assert "or --campaign" in build("one/datasets/quick.h5", "--campaign", "quick")
    dataset = site / "one" / "datasets" / "quick.h5"
    good = dataset.read_bytes()
    try:
        dataset.write_bytes(good + b"\0")
        assert "was changed after campaign 'quick' wrote it" in build("--campaign", "quick")
        dataset.unlink()
        assert "is gone" in build("--campaign", "quick")
    finally:
        dataset.write_bytes(good)
    assert not (site / "more").exists()
    assert not list(site.glob(".more*"))
