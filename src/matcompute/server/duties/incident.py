"""The file of an incident: what happened, and the part of the audit that shows it, with proof that it is whole."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import matcompute
from matcompute.errors import InputError
from matcompute.publish.canonical import dump, sha256
from matcompute.publish.errors import SignatureError
from matcompute.publish.keys import Keyring
from matcompute.server.duties.errors import DutyError
from matcompute.server.duties.kpi import audit_of
from matcompute.server.duties.period import Period
from matcompute.server.duties.statement import key_of, sign_statement
from matcompute.server.guard.audit import FIRST, digest_of, link, now
from matcompute.server.node import Node
from matcompute.times import utc_now

__all__ = ["SCHEMA", "SEVERITIES", "check_incident", "export_incident"]

SCHEMA = "matcompute.incident/v1"
SEVERITIES = ("low", "medium", "high", "critical")
_INCIDENT, _SIGNATURE, _AUDIT, _EVENTS, _KEYRING = (
    "incident.json",
    "incident.json.sig",
    "audit.jsonl",
    "events.jsonl",
    "keyring.json",
)


def export_incident(
    node: Node,
    out: Path,
    period: Period,
    description: str,
    *,
    severity: str = "medium",
    principal: str | None = None,
    address: str | None = None,
    dataset_id: str | None = None,
) -> dict[str, Any]:
    """Write the file of an incident, and note in the audit that it was written.

    Parameters
    ----------
    node, out
        The node; the ZIP file to make.
    period
        From when to when.
    description
        What happened.
    severity
        Of `SEVERITIES`.
    principal, address, dataset_id
        Show only records that one of those given appears in. Of every other record only its digest goes into the
        file: nobody else's doings are told, and the chain can be checked all the same.

    Returns
    -------
    dict
        The content of ``incident.json``.

    Raises
    ------
    InputError
        If the severity is unknown, the description is missing or the file exists.
    """
    if severity not in SEVERITIES:
        raise InputError(f"severity '{severity}' is not one of {', '.join(SEVERITIES)}")
    if not description.strip():
        raise InputError("say what happened", hint="--description '…'")
    if out.exists():
        raise InputError(f"{out} exists")
    log = audit_of(node)
    wanted = {"principal": principal, "address": address, "dataset_id": dataset_id}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    noted = {
        "at": now(), "kind": "incident", "severity": severity, "description": description[:2000],
        "about": wanted, "period": [period.begin, period.end],
    }  # fmt: skip
    number = log.append([noted])[0]
    inside = [e.seq for e in log.entries(since=period.begin, until=period.end) if e.seq < number]
    first, last = (inside[0], inside[-1]) if inside else (number, number)
    shown = 0
    partial = out.with_name(f".{out.name}.partial")
    key = key_of(node.publication.keys)
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            lines, before = bytearray(), FIRST
            # Times of records may overlap a little where several processes write: the slice is one of numbers.
            for entry in log.entries(after=max(0, first - 2)):
                if entry.seq < first:
                    before = entry.hash
                    continue
                if entry.seq > last:
                    break
                data = entry.data
                match = not wanted or any(
                    data.get(k) == v or data.get("subject") == v for k, v in wanted.items()
                )
                shown += match
                body = {"record": entry.record} if match else {"sha256": digest_of(entry.record)}
                lines += json.dumps({"seq": entry.seq, **body, "hash": entry.hash}).encode() + b"\n"
            archive.writestr(_AUDIT, bytes(lines))
            events = [
                e for e in _events(node) if period.holds(e["at"]) and dataset_id in (None, e["dataset_id"])
            ]
            told = b"".join(json.dumps(e, ensure_ascii=False).encode() + b"\n" for e in events)
            archive.writestr(_EVENTS, told)
            content = {
                "schema": SCHEMA,
                "node": node.settings.id,
                "organisation": node.settings.organisation.model_dump(),
                "contact": node.settings.contact,
                "made": utc_now(),
                "software": f"matcompute {matcompute.__version__}",
                "severity": severity,
                "description": description,
                "period": {"begin": period.begin, "end": period.end},
                "about": wanted,
                "audit": {
                    "first": first,
                    "last": last,
                    "before": before,
                    "shown": shown,
                    "head": log.head().to_json(),
                    "whole": not log.verify(),
                },
                "events": len(events),
                "sha256": {_AUDIT: sha256(bytes(lines)), _EVENTS: sha256(told)},
            }
            raw = dump(content)
            archive.writestr(_INCIDENT, raw)
            if key is not None:
                archive.writestr(_SIGNATURE, sign_statement("incident", raw, key))
                archive.writestr(_KEYRING, Keyring.read(node.publication.keys).to_bytes())
        partial.rename(out)
    finally:
        partial.unlink(missing_ok=True)
    return content


def _events(node: Node) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after = 0
    while batch := node.publication.events.after(after):
        found += [event.to_json() for event in batch]
        after = batch[-1].seq
    return found


def check_incident(path: Path, trusted: list[str] | None = None) -> dict[str, Any]:
    """Check the file of an incident: signature, digests, and the chain of the records in it.

    Parameters
    ----------
    path
        The ZIP file.
    trusted
        Key ids of the node that the reader trusts.

    Raises
    ------
    DutyError
        If a part is missing or was changed; says which.
    """
    import tempfile

    from matcompute.server.duties.statement import read_statement

    try:
        with zipfile.ZipFile(path) as archive:
            parts: dict[str, bytes] = {}
            for name in (_INCIDENT, _SIGNATURE, _AUDIT, _EVENTS, _KEYRING):
                if archive.getinfo(name).file_size > 1 << 30:
                    raise DutyError(f"{path}: {name} is larger than any incident")
                parts[name] = archive.read(name)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise DutyError(f"{path}: not a signed incident file ({error})") from error
    keyring = Keyring.from_bytes(parts[_KEYRING])
    keyring.check(trusted)
    with tempfile.TemporaryDirectory() as folder:
        for name in (_INCIDENT, _SIGNATURE):
            Path(folder, name).write_bytes(parts[name])
        try:
            content = read_statement("incident", Path(folder, _INCIDENT), keyring)
        except SignatureError as error:
            raise DutyError(f"{path}: {error.message}") from error
    for name, digest in content["sha256"].items():
        if sha256(parts[name]) != digest:
            raise DutyError(f"{path}: {name} was changed")
    _check_chain(path, parts[_AUDIT], content["audit"])
    return content


def _check_chain(path: Path, raw: bytes, said: dict[str, Any]) -> None:
    before, seq = said["before"], said["first"] - 1
    for line in raw.splitlines():
        item = json.loads(line)
        digest = digest_of(item["record"]) if "record" in item else item["sha256"]
        if item["seq"] != seq + 1 or link(before, digest) != item["hash"]:
            raise DutyError(f"{path}: the chain breaks at record {seq + 1}")
        before, seq = item["hash"], item["seq"]
    if seq != said["last"]:
        raise DutyError(f"{path}: the records end at {seq}, not at {said['last']}")
