"""The import of an exit export into an empty node: everything is checked first, and the digests are the same after."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from matcompute.publish.canonical import load
from matcompute.publish.errors import KeyFileError
from matcompute.publish.events import Event, Events
from matcompute.publish.keys import KEYRING, Keyring, Rotation, SigningKey
from matcompute.publish.keys import load as load_key
from matcompute.publish.release import Publication
from matcompute.server.duties.bag import check_bag
from matcompute.server.duties.errors import DutyError
from matcompute.server.duties.leaving import SCHEMA, content_of
from matcompute.server.duties.statement import read_statement
from matcompute.server.duties.succession import accept, save
from matcompute.server.guard.audit import FIRST, AuditLog, digest_of, link, now
from matcompute.server.guard.middleware import FILE as AUDIT
from matcompute.server.node import Node
from matcompute.server.settings import FILE as SETTINGS
from matcompute.server.tables import receipts

__all__ = ["import_node"]

_MARK = ".importing"
Progress = Callable[[str, int, int], None]


def import_node(
    export: Path,
    folder: Path,
    *,
    store: str | Path | None = None,
    trusted: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Make an empty node the holder of what another node exported.

    An import that was interrupted is begun anew by calling this again. What the other node's audit says is kept in
    ``imported/``; the new node's own audit begins with where it came from.

    Parameters
    ----------
    export
        Folder that `export_node` made.
    folder
        Folder of the new publication: missing, empty, or with keys only.
    store
        Another place of its store, empty too.
    trusted
        Key ids of the old node that one knows by another way; the keyring must hold one of them, if any are given.
    progress
        Called with (what is done, files done, in all).

    Returns
    -------
    dict
        The content of ``exit.json``.

    Raises
    ------
    DutyError
        If the folder is not empty, or the export is not what its signed list says; says what.
    """
    show = progress or (lambda *_: None)
    publication = Publication(folder, store)
    _require_empty(publication, apart=store is not None)
    paths = check_bag(export, lambda done, total: show("checking", done, total))
    data = export / "data"
    keyring = Keyring.read(data / KEYRING)
    keyring.check(trusted or None)
    said = read_statement("exit", data / "exit.json", keyring)
    if said.get("schema") != SCHEMA:
        raise DutyError(f"{export}: not an exit export of a version that this program reads")
    _check_list(export, said, paths)
    _check_audit(data / "audit.jsonl", said["audit"])
    own = _own_key(folder / "keys")
    keyring_before = (folder / "keys" / KEYRING).read_bytes() if own else b""
    after = _successor(data, keyring, own)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARK).touch()
    try:
        files = publication.store.files
        stored = [p for p in paths if p.startswith("store/")]
        for done, path in enumerate(stored, start=1):
            files.copy(data / path, f"{files.root}/{path.removeprefix('store/')}")
            show("copying", done, len(stored))
        save(after, publication.keys)
        events = [Event(**json.loads(line)) for line in (data / "events.jsonl").read_bytes().splitlines()]
        Events(folder / "events.sqlite").restore(
            events, [m for name in _ids(events) for m in publication.manifests(name)]
        )
        if problems := publication.verify(progress=lambda done, total: show("verifying", done, total)):
            raise DutyError(f"{export}: {problems[0].dataset_id}: {problems[0].message}")
        found = content_of(publication)
        if found["content_sha256"] != said["content_sha256"]:
            raise DutyError(f"{export}: the content is not the one that was signed")
        (folder / "imported").mkdir(exist_ok=True)
        for name in ("audit.jsonl", "exit.json", "exit.json.sig"):
            shutil.copyfile(data / name, folder / "imported" / name)
        if not (folder / SETTINGS).exists():
            shutil.copyfile(data / SETTINGS, folder / SETTINGS)
        node = Node(publication)
        node.create_tables()
        rows = [json.loads(line) for line in (data / "receipts.jsonl").read_bytes().splitlines()]
        with node.write() as connection:
            connection.execute(receipts.delete())
            if rows:
                connection.execute(insert(receipts), rows)
        AuditLog(folder / AUDIT).append(
            [
                {
                    "at": now(),
                    "kind": "import",
                    "node": said["node"],
                    "content_sha256": said["content_sha256"],
                    "head": said["audit"],
                }
            ]
        )
    except BaseException:
        _clear(publication, keep_keys=own is not None, apart=store is not None)
        if own is not None:
            (folder / "keys" / KEYRING).write_bytes(keyring_before)
        raise
    (folder / _MARK).unlink()
    return said


def _ids(events: Sequence[Event]) -> list[str]:
    return list(dict.fromkeys(event.dataset_id for event in events))


def _require_empty(publication: Publication, *, apart: bool) -> None:
    folder, files = publication.folder, publication.store.files
    if (folder / _MARK).exists():
        _clear(publication, keep_keys=_own_key(folder / "keys") is not None, apart=apart)
    if apart and files.names(files.root):
        raise DutyError(f"the store {files.root} is not empty", hint="an import wants a place of its own")
    extra = {p.name for p in folder.iterdir()} - {"keys", SETTINGS} if folder.is_dir() else set()
    if (folder / "keys" / KEYRING).exists() and _own_key(folder / "keys") is None:
        extra.add(f"keys/{KEYRING}, but no private key")
    if extra:
        raise DutyError(
            f"{folder} is not empty: it holds {sorted(extra)[0]}",
            hint="an import wants a new folder, or one with the new node's keys and node.yaml only",
        )


def _clear(publication: Publication, *, keep_keys: bool, apart: bool) -> None:
    folder, files = publication.folder, publication.store.files
    if apart and files.names(files.root):
        files.remove(files.root)
    for path in folder.iterdir():
        if path.name == _MARK or path.name == SETTINGS or (path.name == "keys" and keep_keys):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    (folder / _MARK).unlink(missing_ok=True)


def _own_key(keys: Path) -> SigningKey | None:
    # A keyring alone is what an interrupted import left, or what this import is about to write.
    return load_key(keys) if keys.is_dir() and any(keys.glob("*.pem")) else None


def _successor(data: Path, keyring: Keyring, own: SigningKey | None) -> Keyring:
    """Return the keyring of the new node; without a key of its own it can serve and prove, but not release."""
    path = data / "successor.json"
    if own is None:
        return keyring
    if not path.exists():
        raise KeyFileError(
            f"this node has key {own.key_id}, but the export names no successor",
            hint="give its keyring to the old node: matcompute node export --successor keyring.json",
        )
    if any(key.key_id == own.key_id for key in keyring.keys):
        return keyring
    return accept(Rotation.model_validate(load(path.read_bytes(), str(path))), keyring, own)


def _check_list(export: Path, said: dict[str, Any], digests: dict[str, str]) -> None:
    there = {path: digest for path, digest in digests.items() if path not in ("exit.json", "exit.json.sig")}
    for path in sorted({*there, *said["files"]}):
        if there.get(path) != said["files"].get(path):
            raise DutyError(f"{export}: data/{path} is not the file that was signed")


def _check_audit(path: Path, head: dict[str, Any]) -> None:
    before, seq = FIRST, 0
    with path.open(encoding="ascii") as file:
        for line in file:
            item = json.loads(line)
            if item["seq"] != seq + 1 or link(before, digest_of(item["record"])) != item["hash"]:
                raise DutyError(f"{path}: the chain breaks at record {seq + 1}")
            before, seq = item["hash"], item["seq"]
    if (seq, before) != (head["seq"], head["hash"]):
        raise DutyError(f"{path}: the records end before the signed head")
