"""Independent validators on what the tables make.

They are heavy and want versions of their own, so they live in an environment of their own; MATCOMPUTE_VALIDATORS names
the folder of its programs (mlcroissant, rocrate-validator, python with datacite and optimade). The RO-Crate validator
needs the RO-Crate context: from the network, or from the cache that MATCOMPUTE_ROCRATE_CACHE names.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from matcompute.publish.mappings import render
from matcompute.publish.optimade import write_optimade

from .mapping_release import make_release

pytest.importorskip("jsone", reason="json-e fills the mapping tables")

_FOLDER = Path(os.environ.get("MATCOMPUTE_VALIDATORS") or Path(sys.executable).parent)


def run(program: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(_FOLDER / program), *arguments], cwd=cwd, capture_output=True, text=True, timeout=300
    )


def need_program(name: str) -> None:
    if not (_FOLDER / name).exists():
        pytest.skip(f"{name} is not installed (MATCOMPUTE_VALIDATORS)")


def need_module(name: str, cwd: Path) -> None:
    if run("python", "-c", f"import {name}", cwd=cwd).returncode:
        pytest.skip(f"{name} is not installed (MATCOMPUTE_VALIDATORS)")


def test_croissant_validates_and_its_records_load(tmp_path: Path, write_dataset: Callable[..., Any]) -> None:
    need_program("mlcroissant")
    folder = tmp_path / "release"
    facts = make_release(folder, write_dataset)
    (folder / "croissant.json").write_text(json.dumps(render("croissant", facts)), encoding="utf-8")
    done = run("mlcroissant", "validate", "--jsonld", "croissant.json", cwd=folder)
    report = done.stdout + done.stderr
    assert done.returncode == 0, report
    assert "warning" not in report.lower(), report
    if run("python", "-c", "import pyarrow", cwd=folder).returncode == 0:
        load = ("load", "--jsonld", "croissant.json", "--record_set", "entries", "--num_records", "1")
        done = run("mlcroissant", *load, cwd=folder)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "entries/energy_status" in done.stdout


def test_ro_crate_meets_every_requirement(tmp_path: Path, write_dataset: Callable[..., Any]) -> None:
    need_program("rocrate-validator")
    folder = tmp_path / "release"
    facts = make_release(folder, write_dataset)
    (folder / "ro-crate-metadata.json").write_text(json.dumps(render("ro-crate", facts)), encoding="utf-8")
    arguments = ["-y", "--disable-color", "validate", "-p", "ro-crate-1.2", "--no-paging", "-v", "-f", "text"]
    if cache := os.environ.get("MATCOMPUTE_ROCRATE_CACHE"):
        arguments += ["--offline", "--cache-path", cache]
    done = run("rocrate-validator", *arguments, str(folder), cwd=tmp_path)
    report = done.stdout + done.stderr
    if (
        "not available in the HTTP cache" in report
        or "ConnectionError" in report
        or "NameResolution" in report
    ):
        pytest.skip("the RO-Crate context cannot be reached (MATCOMPUTE_ROCRATE_CACHE)")
    assert done.returncode == 0, report[-4000:]


def test_datacite_schema(tmp_path: Path, write_dataset: Callable[..., Any]) -> None:
    need_module("datacite", tmp_path)
    # The package stops at 4.5; of 4.6 the table uses nothing that 4.5 lacks.
    facts = make_release(tmp_path / "release", write_dataset)
    for name, item in (
        ("full", facts),
        ("bare", facts.model_copy(update={"contributors": (), "keywords": ()})),
    ):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(render("datacite", item)), encoding="utf-8")
        code = (
            f"import json; from datacite import schema45; schema45.validate(json.load(open({str(path)!r})))"
        )
        done = run("python", "-c", code, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]


def test_optimade_models(tmp_path: Path, write_dataset: Callable[..., Any]) -> None:
    need_module("optimade", tmp_path)
    folder, out = tmp_path / "release", tmp_path / "optimade.jsonl.gz"
    facts = make_release(folder, write_dataset)
    write_optimade([folder / "data" / "a.h5"], out, facts)
    code = f"""
import gzip, json
from optimade.models import StructureResource
from optimade.models.optimade_json import DataType
lines = [json.loads(line) for line in gzip.open({str(out)!r})]
for definition in lines[1]["properties"].values():
    DataType(definition["x-optimade-type"])
for entry in lines[2:]:
    StructureResource(**entry)
print(len(lines) - 2)
"""
    done = run("python", "-W", "ignore", "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "50"
