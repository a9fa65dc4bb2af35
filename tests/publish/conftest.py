"""Datasets, keys and manifests that the publication tests share."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from matcompute.publish.keys import SigningKey, generate
from matcompute.publish.manifest import Manifest

from .s3 import Server, server

DATASET = "11111111-1111-4111-8111-111111111111"


def _dataset_helpers() -> Any:
    path = Path(__file__).parents[1] / "dataset" / "conftest.py"
    spec = importlib.util.spec_from_file_location("dataset_test_helpers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_manifest(version: int = 1, previous: Manifest | None = None, **changes: Any) -> Manifest:
    """Return a valid manifest."""
    data: dict[str, Any] = {
        "dataset_id": DATASET,
        "version": version,
        "title": "Ni–Al 合金",
        "created": "2026-01-31T12:00:00Z",
        "node": "node-1",
        "domain": "advanced-nonferrous-metals",
        "node_class": "computation",
        "grade": "general",
        "tier": "public",
        "licence": "CC-BY-4.0",
        "counts": {"entries": 3, "sites": 7, "shards": 1, "failed": 0},
        "files": [
            {
                "path": "data/a.h5",
                "size": 1,
                "sha256": "0" * 64,
                "media_type": "application/x-hdf5",
                "role": "data",
            }
        ],
        "structures_sha256": "1" * 64,
    }
    if previous is not None:
        data["previous"] = {"version": previous.version, "manifest_sha256": previous.sha256}
    return Manifest.model_validate(data | changes)


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return generate(tmp_path / "keys")


@pytest.fixture
def write_dataset() -> Callable[..., Any]:
    """``write(path, n, seed, **metadata)``: a complete dataset, failures and provenance included."""
    return _dataset_helpers().write  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def s3() -> Iterator[Server]:
    with server() as found:
        yield found


@pytest.fixture(name="make_manifest")
def _make_manifest() -> Callable[..., Manifest]:
    return make_manifest
