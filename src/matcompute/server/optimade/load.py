"""Load the structures of a release into the tables of the OPTIMADE door: the indexer `load_structures`."""

from __future__ import annotations

import gzip
import hashlib
import json
import secrets
import time
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, and_, delete, func, insert, select, update

from matcompute.errors import MatcomputeError
from matcompute.server.errors import ServerError
from matcompute.server.optimade.elements import masks
from matcompute.server.optimade.tables import (
    N_NUMBERS,
    N_TEXTS,
    ROWS,
    bodies,
    number,
    properties,
    sets,
    structures,
    text,
)
from matcompute.server.tables import versions

if TYPE_CHECKING:
    from matcompute.server.node import Node

__all__ = ["load_lines", "load_structures"]

FILE = "optimade.jsonl.gz"
_BATCH = 2000
_PREFIX = "_matcompute_"
#: Names that the server gives itself; a property of a release that has one of them is renamed.
RESERVED = (f"{_PREFIX}dataset_id", f"{_PREFIX}dataset_version", f"{_PREFIX}licence", f"{_PREFIX}computed")


def load_structures(connection: Connection, node: Node, dataset_id: str, version: int) -> Iterator[None]:
    """Load one version; what was done is committed at each ``yield``, and nothing is served before the end.

    An entry that is the same as in the version served before keeps its ``last_modified``; all others have the time at
    which they began to be served, so that a client that asks for what changed since its last visit misses nothing.
    """
    # `rebuild` empties the table `versions`: what belongs to no version is left over.
    _drop(connection, [no for no, *_ in _stale(connection, dataset_id, version)])
    newer = connection.execute(
        select(func.count()).where(
            versions.c.dataset_id == dataset_id, versions.c.version > version, ~versions.c.withdrawn
        )
    ).scalar_one()
    present = connection.execute(
        select(func.count()).where(versions.c.dataset_id == dataset_id, versions.c.version == version)
    ).scalar_one()
    # Two versions are kept: the one that is served, and the one that takes its place if it is withdrawn.
    if newer > 1 or not present or not _has_file(node, dataset_id, version):
        return
    with node.publication.store.open(dataset_id, version, FILE) as raw, gzip.GzipFile(fileobj=raw) as stream:
        yield from load_lines(connection, dataset_id, version, stream)


def load_lines(
    connection: Connection, dataset_id: str, version: int, lines: Iterator[bytes]
) -> Iterator[None]:
    """Load OPTIMADE JSON Lines as a version of a dataset; the same steps as `load_structures`."""
    # Not simply the next number: a process that was overtaken must not take another's set for its own.
    last = int(connection.execute(select(func.coalesce(func.max(sets.c.no), 0))).scalar_one())
    no = last + 1 + secrets.randbelow(1 << 16)
    connection.execute(
        insert(sets).values(no=no, dataset_id=dataset_id, version=version, rows=0, since=None, settled=False)
    )
    before = _served(connection, dataset_id, version)
    slots = _properties(connection, no, dataset_id, lines)
    done = 0
    while batch := list(islice(lines, _BATCH)):
        if connection.execute(select(sets.c.no).where(sets.c.no == no)).first() is None:
            raise ServerError(f"{dataset_id} version {version}: another process loads its structures as well")
        entries = [json.loads(line) for line in batch if line.strip()]
        entries = [entry for entry in entries if entry["type"] == "structures"]
        _insert(connection, no, done, dataset_id, before, slots, entries)
        done += len(entries)
        yield
    # From this commit on it is served, and the time is that of this commit.
    since = time.time_ns() // 1000
    connection.execute(update(sets).where(sets.c.no == no).values(rows=done, since=since))
    yield
    for start in range(no * ROWS, no * ROWS + done, 50_000):
        fresh = structures.c.key.between(start, start + 49_999) & structures.c.last_modified.is_(None)
        connection.execute(
            update(structures).where(fresh, structures.c.set_no == no).values(last_modified=since)
        )
        yield
    connection.execute(update(sets).where(sets.c.no == no).values(settled=True))
    _drop(connection, _superseded(connection, dataset_id))


def _has_file(node: Node, dataset_id: str, version: int) -> bool:
    try:
        node.publication.store.path(dataset_id, version, FILE)
    except MatcomputeError:
        return False
    return True


def _stale(connection: Connection, dataset_id: str, version: int) -> list[Any]:
    """Sets of this version, of versions that are no more, and of loads that were interrupted."""
    known = and_(versions.c.dataset_id == sets.c.dataset_id, versions.c.version == sets.c.version)
    joined = sets.outerjoin(versions, known)
    of_this = and_(sets.c.dataset_id == dataset_id, sets.c.version == version)
    gone = versions.c.version.is_(None)
    unfinished = and_(sets.c.dataset_id == dataset_id, sets.c.since.is_(None))
    return list(connection.execute(select(sets.c.no).select_from(joined).where(of_this | gone | unfinished)))


def _superseded(connection: Connection, dataset_id: str) -> list[int]:
    """Loaded versions that are withdrawn, or have two newer ones that are loaded."""
    rows = connection.execute(
        select(sets.c.no, versions.c.withdrawn)
        .join_from(
            sets,
            versions,
            and_(versions.c.dataset_id == sets.c.dataset_id, versions.c.version == sets.c.version),
        )
        .where(sets.c.dataset_id == dataset_id, sets.c.since.is_not(None))
        .order_by(sets.c.version.desc())
    ).all()
    available = [row.no for row in rows if not row.withdrawn]
    return [row.no for row in rows if row.withdrawn] + available[2:]


def _drop(connection: Connection, numbers: list[int]) -> None:
    for no in numbers:
        for table in (structures, bodies):
            connection.execute(delete(table).where(table.c.key.between(no * ROWS, (no + 1) * ROWS - 1)))
        connection.execute(delete(properties).where(properties.c.no == no))
        connection.execute(delete(sets).where(sets.c.no == no))


def _served(connection: Connection, dataset_id: str, version: int) -> int | None:
    """The set that was served before this version."""
    return connection.execute(
        select(sets.c.no)
        .where(sets.c.dataset_id == dataset_id, sets.c.version < version, sets.c.since.is_not(None))
        .order_by(sets.c.version.desc())
        .limit(1)
    ).scalar()


def _properties(
    connection: Connection, no: int, dataset_id: str, lines: Iterator[bytes]
) -> dict[str, tuple[str, str | None]]:
    """Read header and entry info; give each property its name and column. Returns source name → (name, column)."""
    next(lines)
    info = json.loads(next(lines))
    taken: dict[str, tuple[str | None, str]] = {}
    for row in connection.execute(select(properties)):
        taken[row.name] = (row.slot, _kind(json.loads(row.definition)))
    used = {slot for slot, _ in taken.values()}
    found: dict[str, tuple[str, str | None]] = {}
    for source, definition in info.get("properties", {}).items():
        if not source.startswith(_PREFIX):
            continue
        # Two datasets may mean different things by one name: the second one's is marked with its dataset.
        name, kind = source, _kind(definition)
        if name in RESERVED or (name in taken and taken[name][1] != kind):
            name = f"{source}_{dataset_id.replace('-', '')[:8]}"
        slot = taken[name][0] if name in taken else _free(definition, used)
        used.add(slot)
        connection.execute(
            insert(properties).values(
                no=no,
                name=name,
                source=source,
                slot=slot,
                definition=json.dumps(definition, ensure_ascii=False),
            )
        )
        found[source] = (name, slot)
    return found


def _kind(definition: dict[str, Any]) -> str:
    return json.dumps(
        [definition.get(k) for k in ("x-optimade-type", "x-optimade-unit", "items")], sort_keys=True
    )


def _free(definition: dict[str, Any], used: set[str | None]) -> str | None:
    kind = definition.get("x-optimade-type")
    columns: list[str] = []
    if kind in ("float", "integer"):
        columns = [number(k) for k in range(N_NUMBERS)]
    elif kind == "string":
        columns = [text(k) for k in range(N_TEXTS)]
    return next((c for c in columns if c not in used), None)


_SLOTS = [*map(number, range(N_NUMBERS)), *map(text, range(N_TEXTS))]


def _insert(
    connection: Connection,
    no: int,
    start: int,
    dataset_id: str,
    before: int | None,
    slots: dict[str, tuple[str, str | None]],
    entries: list[dict[str, Any]],
) -> None:
    if not entries:
        return
    rows, beside = [], []
    columns = [slot for _, slot in slots.values() if slot is not None]
    for k, entry in enumerate(entries):
        a = entry["attributes"]
        own = {"_matcompute_computed": a.pop("last_modified", None)}
        a.pop("immutable_id", None)
        values = dict.fromkeys(columns)
        for source, (name, slot) in slots.items():
            own[name] = a.pop(source, None)
            if slot is not None:
                values[slot] = own[name]
        lo, hi = masks(a["elements"])
        key = no * ROWS + start + k
        rows.append(
            {
                "key": key,
                "set_no": no,
                "last_modified": None,
                "nelements": a["nelements"],
                "nsites": a["nsites"],
                "nperiodic": a["nperiodic_dimensions"],
                "elements_lo": lo,
                "elements_hi": hi,
                "reduced": a["chemical_formula_reduced"],
                "anonymous": a["chemical_formula_anonymous"],
                "descriptive": a["chemical_formula_descriptive"],
                "elements": _json(a["elements"]),
                "elements_ratios": _json(a["elements_ratios"]),
                "dimension_types": _json(a["dimension_types"]),
                **values,
            }
        )
        attributes = _json(a | own)
        beside.append(
            {
                "key": key,
                "id": f"{dataset_id}/{entry['id']}",
                "digest": hashlib.sha256(attributes.encode()).hexdigest()[:32],
                "attributes": attributes,
            }
        )
    if before is not None:
        _keep_times(connection, before, rows, beside)
    connection.execute(insert(structures), rows)
    connection.execute(insert(bodies), beside)


def _keep_times(
    connection: Connection, before: int, rows: list[dict[str, Any]], beside: list[dict[str, Any]]
) -> None:
    """Give the entries that did not change the time that they had."""
    known: dict[str, tuple[str, int]] = {}
    since = connection.execute(select(sets.c.since).where(sets.c.no == before)).scalar_one()
    for start in range(0, len(beside), 500):
        ids = [b["id"] for b in beside[start : start + 500]]
        for old in connection.execute(
            select(bodies.c.id, bodies.c.digest, structures.c.last_modified)
            .join_from(bodies, structures, bodies.c.key == structures.c.key)
            .where(bodies.c.id.in_(ids), structures.c.set_no == before)
        ):
            known[old.id] = (old.digest, old.last_modified if old.last_modified is not None else since)
    for row, body in zip(rows, beside):
        digest, modified = known.get(body["id"], ("", None))
        if digest == body["digest"]:
            row["last_modified"] = modified


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
