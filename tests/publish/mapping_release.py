"""A release folder with its facts, for the tests of the mappings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matcompute.publish.facts import Contributor, FileFact, Identifiers, NodeFact, ReleaseFacts, SoftwareFact
from matcompute.publish.parquet import write_summary_table
from matcompute.publish.rights import Rights
from matcompute.publish.summary import summarize_release


def _file(folder: Path, path: str, media_type: str, role: str) -> FileFact:
    data = (folder / path).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return FileFact(path=path, size=len(data), sha256=digest, media_type=media_type, role=role)


def make_release(folder: Path, write: Callable[..., Any], **changes: Any) -> ReleaseFacts:
    """Write a shard and the summary table into a folder; return the facts of that release."""
    (folder / "data").mkdir(parents=True)
    shard = folder / "data" / "a.h5"
    write(shard)
    write_summary_table([shard], folder / "summary.parquet")
    summary = summarize_release([shard])
    facts: dict[str, Any] = {
        "dataset_id": "11111111-1111-4111-8111-111111111111",
        "version": 2,
        "title": "Ni–Al 合金",
        "description": "Energies of alloys.",
        "created": "2026-01-31T12:00:00Z",
        "node": NodeFact(name="Node 1", url="https://node.example"),
        "domain": "advanced-nonferrous-metals",
        "licence": "cc-by-4.0",
        "keywords": ("alloys",),
        "contributors": (
            Contributor(
                name="Doe, Jane", orcid="https://orcid.org/0000-0002-1825-0097", affiliation="Institute"
            ),
            Contributor(name="Laboratory", kind="organization"),
        ),
        "software": (SoftwareFact(name="ase", version="3.29.0"), SoftwareFact(name="own", version="1")),
        "files": (
            _file(folder, "data/a.h5", "application/x-hdf5", "data"),
            _file(folder, "summary.parquet", "application/vnd.apache.parquet", "summary"),
        ),
        "methods": tuple(summary["methods"]),
        "summary": summary,
        "identifiers": Identifiers(cstr="12345.11.abc", doi="10.1234/abc"),
        "rights": Rights(
            holder="Institute", project="2022YFB0000000", embargo="2027-01-31", patents=("CN1",)
        ),
    }
    return ReleaseFacts(**(facts | changes))
