"""Structures and files that the dataset tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from matcompute.dataset import (
    DatasetWriter,
    Metadata,
    Method,
    ProcessRecord,
    Provenance,
    Quality,
    Source,
    Status,
    uuid_array,
)
from matcompute_kernels import Batch

SOURCE, INGEST, SHARD, RELAX, RESULT = (f"00000000-0000-4000-8000-{k:012d}" for k in range(1, 6))


def random_batch(n: int, seed: int = 0, sites: tuple[int, int] = (1, 12)) -> Batch:
    """Return n structures with random cells and species, all different."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(sites[0], sites[1] + 1, size=n)
    ptr = np.concatenate([[0], np.cumsum(sizes)])
    m = int(ptr[-1])
    cell = np.eye(3) * rng.uniform(4, 9, size=(n, 3, 1)) + rng.normal(scale=0.3, size=(n, 3, 3))
    fractions = rng.random((m, 3))
    positions = np.einsum("mi,mij->mj", fractions, np.repeat(cell, sizes, axis=0))
    numbers = rng.choice([13, 22, 28, 29, 8], size=m).astype("u1")
    return Batch(numbers, positions, cell, np.ones((n, 3), bool), ptr)


def write(path: Path, n: int = 50, seed: int = 0, **metadata: str) -> Batch:
    """Write a complete dataset of n entries, with failures, and return its structures."""
    batch = random_batch(n, seed)
    m = batch.numbers.shape[0]
    rng = np.random.default_rng(seed + 1)
    status = np.full(n, Status.OK, dtype="u1")
    status[3::7] = Status.NOT_CONVERGED
    status[5::11] = Status.CRASHED
    facts = {
        "title": "Test entries",
        "domain": "advanced-nonferrous-metals",
        "license": "CC-BY-4.0",
        "campaign_uuid": "00000000-0000-4000-8000-0000000000aa",
    } | metadata
    with DatasetWriter(path, Metadata(**facts)) as writer:
        method = writer.add_method(Method("emt", code="ase", code_version="3.29.0", centre="local"))
        source = writer.add_source(Source("structures.extxyz", "ab" * 32, SOURCE))
        writer.set_provenance(
            Provenance(
                (
                    ProcessRecord(
                        INGEST, "ingest", inputs=(("source", SOURCE),), outputs=(("structures", SHARD),)
                    ),
                    ProcessRecord(
                        RELAX,
                        "relax",
                        "matcompute.batch",
                        inputs=(("structures", SHARD),),
                        outputs=(("results", RESULT),),
                        code="matcompute-node",
                        code_version="0.1.0",
                        computer="local",
                        model_sha256="cd" * 32,
                        method_index=method,
                    ),
                )
            )
        )
        writer.append(
            batch,
            results={
                "energy": rng.normal(size=n),
                "stress": rng.normal(size=(n, 6)),
                "n_steps": rng.integers(0, 99, size=n),
                "eos_volume": rng.normal(size=(n, 7)),
            },
            site_results={"forces": rng.normal(size=(m, 3))},
            status=dict.fromkeys(("energy", "stress", "n_steps", "eos_volume", "forces"), status),
            process=dict.fromkeys(("energy", "stress", "n_steps", "eos_volume", "forces"), np.full(n, 1)),
            entry={
                "source_index": np.full(n, source),
                "source_line": np.arange(n) * 14 + 1,
                "method_index": np.full(n, method),
                "node_uuid": np.repeat(uuid_array([SHARD]), n, axis=0),
                "quality": np.where(status == Status.OK, Quality.CONVERGED, Quality.FAILED),
                "message": ["" if s != Status.CRASHED else "Rechnung abgestürzt: Å" for s in status],
                "attempt": np.ones(n),
            },
        )
        writer.set_selection(
            "hull", np.arange(n) % 2 == 0, expression="e_above_hull <= 0.1", inputs=["energy"]
        )
    return batch


@pytest.fixture
def dataset_path(tmp_path: Path) -> Path:
    """A valid dataset of 50 entries."""
    path = tmp_path / "entries.h5"
    write(path)
    return path


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """The function that makes random structures."""
    return random_batch


@pytest.fixture
def make_dataset() -> Callable[..., Batch]:
    """The function that writes a complete dataset."""
    return write
