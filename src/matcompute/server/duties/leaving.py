"""The exit export: everything a node published, and its records, in one folder that proves itself."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import select

import matcompute
from matcompute.publish.canonical import dump, sha256
from matcompute.publish.events import Event
from matcompute.publish.keys import Keyring, load
from matcompute.publish.release import Publication
from matcompute.server.duties.bag import Bag
from matcompute.server.duties.errors import DutyError
from matcompute.server.duties.kpi import audit_of
from matcompute.server.duties.statement import write_statement
from matcompute.server.duties.succession import hand_over
from matcompute.server.guard.audit import FIRST, Head, now
from matcompute.server.node import Node
from matcompute.server.tables import receipts
from matcompute.times import utc_now

__all__ = ["SCHEMA", "all_events", "content_of", "export_node"]

SCHEMA = "matcompute.exit/v1"
#: Settings that are of this machine, or secret.
_OWN = {"database", "x_accel", "on_access_end", "base_url"}
Progress = Callable[[str, int, int], None]


def all_events(publication: Publication) -> list[Event]:
    """Return all events, oldest first."""
    found: list[Event] = []
    while batch := publication.events.after(found[-1].seq if found else 0):
        found += batch
    return found


def content_of(publication: Publication) -> dict[str, Any]:
    """Return what a node holds, and the digest of it: equal for a node and for one that imported its export.

    The digest is that of the canonical JSON of all events and of the digest of every version's manifest, which in turn
    lists the digest of every file.
    """
    events = [event.to_json() for event in all_events(publication)]
    standings = publication.events.all()
    manifests = [
        [m.dataset_id, m.version, m.sha256] for s in standings for m in publication.manifests(s.dataset_id)
    ]
    return {
        "content_sha256": sha256(dump({"events": events, "manifests": sorted(manifests)})),
        "datasets": len(standings),
        "versions": len(manifests),
        "head": events[-1]["seq"] if events else 0,
    }


def export_node(
    node: Node, out: Path, *, successor: Keyring | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Write the exit export.

    In the folder, a BagIt bag, are the store (an OCFL root that any OCFL client reads), events, public keys, receipts,
    the audit and the settings, and ``exit.json``, signed. Private keys and tokens stay here.

    Parameters
    ----------
    node, out
        The node; the folder to make.
    successor
        Keyring of the node that takes over: this node's key signs that its key follows.
    progress
        Called with (what is done, files done, in all).

    Returns
    -------
    dict
        The content of ``exit.json``.

    Raises
    ------
    DutyError
        If the folder exists, or what the node holds is damaged.
    """
    show = progress or (lambda *_: None)
    if out.exists():
        raise DutyError(f"{out} exists", hint="name another folder")
    publication, log = node.publication, audit_of(node)
    key = load(publication.keys)
    if problems := publication.verify(progress=lambda done, total: show("checking", done, total)):
        first = problems[0]
        raise DutyError(
            f"{len(problems)} problem(s) in the store, the first: {first.dataset_id}: {first.message}",
            hint="see `matcompute publish verify`; mend the store before the node leaves",
        )
    if broken := log.verify():
        raise DutyError(f"the audit is not whole: record {broken[0].seq}: {broken[0].message}")
    log.append(
        [{"at": now(), "kind": "export", "successor": successor.current.key_id if successor else None}]
    )
    before = content_of(publication)
    partial = out.with_name(f".{out.name}.partial")
    if partial.exists():
        import shutil

        shutil.rmtree(partial)
    bag = Bag(partial)
    _store(bag, publication, show)
    bag.add("events.jsonl", _lines(event.to_json() for event in all_events(publication)))
    bag.add("keyring.json", io.BytesIO(Keyring.read(publication.keys).to_bytes()))
    bag.add("receipts.jsonl", _lines(_receipts(node)))
    head = Head(0, FIRST)
    with (partial / "data" / "audit.jsonl").open("w", encoding="ascii") as file:
        for entry in log.entries():
            file.write(json.dumps({"seq": entry.seq, "record": entry.record, "hash": entry.hash}) + "\n")
            head = Head(entry.seq, entry.hash)
    bag.note("audit.jsonl")
    settings = node.settings.model_dump(mode="json", exclude=_OWN, exclude_defaults=True)
    bag.add("node.yaml", io.BytesIO(yaml.safe_dump(settings, allow_unicode=True, sort_keys=False).encode()))
    if successor is not None:
        bag.add("successor.json", io.BytesIO(dump(hand_over(key, successor).model_dump())))
    if content_of(publication) != before:
        raise DutyError(
            "something was released or regraded meanwhile", hint="export again, with nobody releasing"
        )
    content = {
        "schema": SCHEMA,
        "node": node.settings.id,
        "made": utc_now(),
        "software": f"matcompute {matcompute.__version__}",
        **before,
        "receipts": len(_receipts(node)),
        "audit": head.to_json(),
        "successor": successor.current.key_id if successor else None,
        "files": {path.removeprefix("data/"): digest for path, digest in sorted(bag.digests.items())},
    }
    write_statement("exit", content, partial / "data" / "exit.json", key)
    bag.note("exit.json")
    bag.note("exit.json.sig")
    bag.close({"External-Identifier": node.settings.id, "Bagging-Date": utc_now()[:10]})
    partial.rename(out)
    return content


def _store(bag: Bag, publication: Publication, show: Progress) -> None:
    store = publication.store
    names = store.files.all()
    for done, name in enumerate(names, start=1):
        with store.files.open(name) as file:
            bag.add(f"store/{name.removeprefix(store.root).lstrip('/')}", file)
        show("copying", done, len(names))


def _receipts(node: Node) -> list[dict[str, Any]]:
    node.create_tables()
    with node.engine.connect() as connection:
        rows = connection.execute(select(receipts).order_by(receipts.c.number))
        return [dict(row._mapping) for row in rows]


def _lines(items: Iterable[dict[str, Any]]) -> io.BytesIO:
    return io.BytesIO(b"".join(dump(item) + b"\n" for item in items))
