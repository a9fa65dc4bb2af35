"""Load what the portal shows of a version into its tables."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, delete, insert, select

from matcompute.errors import MatcomputeError
from matcompute.publish.manifest import Manifest
from matcompute.publish.summary import summarize_release
from matcompute.server.portal.contents import Contents
from matcompute.server.portal.tables import elements, properties, summaries
from matcompute.server.tables import versions

if TYPE_CHECKING:
    from matcompute.server.node import Node

__all__ = ["index_version"]

_log = logging.getLogger("matcompute.server")


def index_version(connection: Connection, node: Node, dataset_id: str, version: int) -> Iterator[None]:
    """Load one version; an indexer of `Node.register`."""
    for table in (summaries, elements, properties):
        connection.execute(delete(table).where(table.c.dataset_id == dataset_id, table.c.version == version))
    raw = connection.execute(
        select(versions.c.manifest).where(versions.c.dataset_id == dataset_id, versions.c.version == version)
    ).scalar_one()
    manifest = Manifest.from_bytes(raw)
    shards = [
        Path(node.publication.store.path(dataset_id, version, file.path))
        for file in manifest.files
        if file.role == "data"
    ]
    bare: dict[str, Any] = {**manifest.counts.model_dump(), "elements": [], "properties": []}
    if node.publication.store.local is None:
        # The HDF5 files are not fetched over the network: the table says enough for the catalogue.
        try:
            summary = bare | Contents(node.publication.store, manifest).overview()
        except (MatcomputeError, OSError) as error:
            _log.error("portal: %s version %d: %s", dataset_id, version, error)
            summary = bare
    else:
        # A million entries take a while: the index is not locked meanwhile.
        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(summarize_release, shards)
            while not job.done():
                yield
        try:
            summary = job.result()
        except (MatcomputeError, OSError) as error:
            # A damaged file must not stop the node.
            _log.error("portal: %s version %d: %s", dataset_id, version, error)
            summary = bare
    keys = {"dataset_id": dataset_id, "version": version}
    connection.execute(insert(summaries).values(**keys, summary=summary))
    found = [{**keys, "symbol": item["symbol"], "entries": item["entries"]} for item in summary["elements"]]
    if found:
        connection.execute(insert(elements), found)
    ranges = [
        {
            **keys,
            "name": p["name"],
            "long_name": p["long_name"],
            "units": p["units"],
            "low": p["min"],
            "high": p["max"],
        }
        for p in summary["properties"]
        if "min" in p
    ]
    if ranges:
        connection.execute(insert(properties), ranges)
