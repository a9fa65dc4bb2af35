"""Bring the index up to the events: what was released, what holds now, and where each file lies."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, func, insert, inspect, select, update

from matcompute.errors import MatcomputeError
from matcompute.publish.events import Event
from matcompute.publish.manifest import MANIFEST, SIGNATURE, Manifest
from matcompute.server.tables import changes, datasets, domains, files, state, versions

if TYPE_CHECKING:
    from matcompute.publish.release import Publication

__all__ = ["add_missing", "apply_events", "indexed_head", "lock_head"]

_log = logging.getLogger("matcompute.server")


def indexed_head(connection: Connection) -> int:
    """Return the last event in the index; 0 for an empty one."""
    return int(connection.execute(select(func.max(state.c.head))).scalar() or 0)


def lock_head(connection: Connection) -> int:
    """Take the writer's lock for the rest of the transaction and return the last event in the index."""
    # A write as the first statement: SQLite then gives the lock at once or not at all, PostgreSQL locks the row.
    if connection.execute(update(state).values(head=state.c.head)).rowcount == 0:
        connection.execute(insert(state).values(id=1, head=0))
    return indexed_head(connection)


def apply_events(connection: Connection, publication: Publication, events: list[Event]) -> None:
    """Write events, in their order, into the index; the caller commits."""
    rows: list[dict[str, Any]] = []
    # What holds of the datasets that were touched already: most of a long feed is about few datasets.
    known: dict[str, tuple[dict[str, Any] | None, tuple[int, str] | None]] = {}
    for event in events:
        if event.dataset_id in known:
            before, newest = known[event.dataset_id]
        else:
            query = select(datasets).where(datasets.c.id == event.dataset_id)
            row = connection.execute(query).mappings().first()
            before, newest = (dict(row) if row else None), None
        if event.op == "regrade" and before is not None and event.dataset_id in known:
            now = {"grade": event.grade, "tier": event.tier, "changed_at": event.at, "seq": event.seq}
            connection.execute(update(datasets).where(datasets.c.id == event.dataset_id).values(**now))
            after: dict[str, Any] | None = before | now
        else:
            newest = _apply(connection, publication, event, before)
            query = select(datasets).where(datasets.c.id == event.dataset_id)
            found = connection.execute(query).mappings().first()
            after = dict(found) if found else None
        known[event.dataset_id] = (after, newest)
        rows.append(
            {
                **event.to_json(),
                "grade_before": before and before["grade"],
                "tier_before": before and before["tier"],
                "newest": newest and newest[0],
                "newest_sha256": newest and newest[1],
            }
        )
    if rows:
        connection.execute(insert(changes), rows)
        connection.execute(update(state).values(head=events[-1].seq))


def _apply(
    connection: Connection, publication: Publication, event: Event, before: dict[str, Any] | None
) -> tuple[int, str] | None:
    """Write what an event did to versions and dataset; return the newest available version and its digest."""
    if event.op in ("publish", "revise") and event.version is not None:
        try:
            _add_version(connection, publication, event.dataset_id, event.version)
        except MatcomputeError as error:
            # A damaged version must not stop the node: it stays out of sight until the index is made again.
            _log.error(
                "event %d: %s version %d: %s", event.seq, event.dataset_id, event.version, error.message
            )
    elif event.op == "withdraw":
        wanted = versions.c.dataset_id == event.dataset_id
        if event.version is not None:
            wanted &= versions.c.version == event.version
        connection.execute(update(versions).where(wanted).values(withdrawn=True))
    return _refresh_dataset(connection, publication, event, before)


def _add_version(connection: Connection, publication: Publication, dataset_id: str, version: int) -> None:
    store = publication.store
    raw = store.read(dataset_id, version, MANIFEST)
    signature = store.read(dataset_id, version, SIGNATURE)
    manifest = Manifest.from_bytes(raw, f"{dataset_id} version {version}")
    root = store.root.rstrip("/") + "/"
    # One look into the inventory for all files: path() reads it each time.
    folder = store.path(dataset_id, version, MANIFEST).removeprefix(root)
    inventory = store.inventory(dataset_id)
    content = inventory.content[inventory.version(version).state[MANIFEST]]
    folder = folder.removesuffix(content)
    connection.execute(
        insert(versions).values(
            dataset_id=dataset_id,
            version=version,
            manifest_sha256=manifest.sha256,
            manifest=raw,
            signature=signature,
            created=manifest.created,
            withdrawn=False,
            entries=manifest.counts.entries,
            size=sum(f.size for f in manifest.files),
        )
    )
    rows = [
        {
            **file.model_dump(),
            "dataset_id": dataset_id,
            "version": version,
            "location": folder + inventory.content[file.sha256],
        }
        for file in manifest.files
    ]
    if rows:
        connection.execute(insert(files), rows)
    _note_domain(connection, dataset_id, manifest.domain)


def _note_domain(connection: Connection, dataset_id: str, domain: str) -> None:
    known = select(domains).where(domains.c.dataset_id == dataset_id, domains.c.domain == domain)
    if connection.execute(known).first() is None:
        connection.execute(insert(domains).values(dataset_id=dataset_id, domain=domain))


def add_missing(connection: Connection) -> None:
    """Bring an index that an older release made up to date: what its tables lack is added; the caller commits."""
    if "products" not in {column["name"] for column in inspect(connection).get_columns("tokens")}:
        connection.exec_driver_sql("ALTER TABLE tokens ADD COLUMN products JSON")
    lacking = ~versions.c.dataset_id.in_(select(domains.c.dataset_id))
    query = select(versions.c.dataset_id, versions.c.manifest).where(lacking)
    for row in connection.execute(query.order_by(versions.c.dataset_id, versions.c.version)).all():
        _note_domain(connection, row.dataset_id, Manifest.from_bytes(row.manifest).domain)


def _refresh_dataset(
    connection: Connection, publication: Publication, event: Event, before: dict[str, Any] | None
) -> tuple[int, str] | None:
    """Write what holds now of the event's dataset; return its newest available version and that one's digest."""
    columns = (versions.c.version, versions.c.manifest_sha256, versions.c.withdrawn)
    rows = connection.execute(
        select(*columns).where(versions.c.dataset_id == event.dataset_id).order_by(versions.c.version.desc())
    ).all()
    now: dict[str, Any] = {
        "grade": event.grade,
        "tier": event.tier,
        "changed_at": event.at,
        "seq": event.seq,
        "withdrawn": all(row.withdrawn for row in rows),
    }
    if not rows:
        return None
    shown = next((row for row in rows if not row.withdrawn), rows[0])
    if before is None or event.op != "regrade":
        raw = connection.execute(
            select(versions.c.manifest).where(
                versions.c.dataset_id == event.dataset_id, versions.c.version == shown.version
            )
        ).scalar_one()
        manifest = Manifest.from_bytes(raw)
        now |= {
            "title": manifest.title,
            "description": _description(publication, manifest),
            "domain": manifest.domain,
            "node_class": manifest.node_class,
            "licence": manifest.licence,
            "version": manifest.version,
            "entries": manifest.counts.entries,
            "summary": {"counts": manifest.counts.model_dump(), "software": manifest.software},
        }
    if before is None:
        connection.execute(insert(datasets).values(id=event.dataset_id, first_at=event.at, **now))
    else:
        if before["version"] == now.get("version"):
            del now["summary"]  # with what indexers added to it
        connection.execute(update(datasets).where(datasets.c.id == event.dataset_id).values(**now))
    return None if shown.withdrawn else (shown.version, shown.manifest_sha256)


def _description(publication: Publication, manifest: Manifest) -> str:
    """Return the abstract that stands in the release's DataCite document; empty if there is none."""
    try:
        raw = publication.store.read(manifest.dataset_id, manifest.version, "datacite.json")
        found = json.loads(raw)
        found = found.get("data", {}).get("attributes", found)
        return str(found["descriptions"][0]["description"])
    except (MatcomputeError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        return ""
