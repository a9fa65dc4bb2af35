"""Evidence for an assessment after GB/T 36073-2018 (DCMM): what a node can prove of itself, item by item.

No level is claimed: that is the assessors' work, and half of what they ask (organisation, plans, rules) is no matter of
a program. Such items are listed as open unless the organisation's own documents are given.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sqlalchemy import select

import matcompute
from matcompute.dataset import DOMAINS as FIELDS
from matcompute.dataset import GRADES, NODE_CLASSES, TIERS
from matcompute.errors import InputError
from matcompute.publish.canonical import dump, sha256_file
from matcompute.publish.keys import Keyring
from matcompute.server.duties.dcmm_items import DOMAINS, ITEMS
from matcompute.server.duties.errors import DutyError
from matcompute.server.duties.kpi import audit_of, report
from matcompute.server.duties.leaving import all_events
from matcompute.server.duties.period import Period
from matcompute.server.duties.statement import key_of, write_statement
from matcompute.server.node import Node
from matcompute.server.tables import datasets, receipts, tokens, versions
from matcompute.times import utc_now

__all__ = ["SCHEMA", "export_evidence"]

SCHEMA = "matcompute.dcmm/v1"
#: Columns of tables that are handed out; never the digests of tokens.
_TOKENS = ("id", "name", "tier", "grade", "scopes", "products", "created", "expires", "revoked")


def export_evidence(node: Node, out: Path, period: Period, documents: Path | None = None) -> dict[str, Any]:
    """Write the folder of evidence: ``index.json`` (signed), ``index.md``, ``evidence/`` and ``documents/``.

    Parameters
    ----------
    node, out
        The node; the folder to make.
    period
        Of the numbers and alerts.
    documents
        Folder of the organisation's own documents, in folders named by item: ``6.1/``, ``7.2/`` …

    Returns
    -------
    dict
        The content of ``index.json``.

    Raises
    ------
    InputError
        If a folder of documents belongs to no item.
    DutyError
        If the folder exists.
    """
    if out.exists():
        raise DutyError(f"{out} exists", hint="name another folder")
    own = _documents(documents)
    partial = out.with_name(f".{out.name}.partial")
    if partial.exists():
        import shutil

        shutil.rmtree(partial)
    evidence = partial / "evidence"
    evidence.mkdir(parents=True)
    for name, raw in _evidence(node, period).items():
        (evidence / name).write_bytes(raw)
    for number, files in own.items():
        for name, source in files.items():
            target = partial / "documents" / number / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    items = []
    for item in ITEMS:
        found = [{"file": f"evidence/{name}", "shows": text} for name, text in item.evidence.items()]
        found += [
            {"file": f"documents/{item.number}/{name}", "shows": "document"}
            for name in own.get(item.number, {})
        ]
        state = "documents" if own.get(item.number) else "node" if found else "open"
        items.append({"number": item.number, "zh": item.zh, "en": item.en, "state": state, "evidence": found})
    content = {
        "schema": SCHEMA,
        "standard": "GB/T 36073-2018",
        "node": node.settings.id,
        "organisation": node.settings.organisation.model_dump(),
        "period": {"begin": period.begin, "end": period.end},
        "made": utc_now(),
        "software": f"matcompute {matcompute.__version__}",
        "domains": [{"number": str(n), "zh": zh, "en": en} for n, (zh, en) in DOMAINS.items()],
        "items": items,
        "open": [item["number"] for item in items if item["state"] == "open"],
        "sha256": {
            p.relative_to(partial).as_posix(): sha256_file(p)
            for p in sorted(partial.rglob("*"))
            if p.is_file()
        },
    }
    (partial / "index.md").write_text(_markdown(content), encoding="utf-8")
    write_statement("dcmm", content, partial / "index.json", key_of(node.publication.keys))
    partial.rename(out)
    return content


def _documents(folder: Path | None) -> dict[str, dict[str, Path]]:
    if folder is None:
        return {}
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder")
    known = {item.number for item in ITEMS}
    found: dict[str, dict[str, Path]] = {}
    for part in sorted(p for p in folder.iterdir() if p.is_dir()):
        if part.name not in known:
            raise InputError(
                f"{part}: {part.name} is no item of GB/T 36073-2018", hint="name folders 6.1, 6.2 … 13.4"
            )
        files = [p for p in sorted(part.rglob("*")) if p.is_file() and not p.is_symlink()]
        found[part.name] = {p.relative_to(part).as_posix(): p for p in files}
    return found


def _evidence(node: Node, period: Period) -> dict[str, bytes]:
    numbers = report(node, period)
    log = audit_of(node)
    problems = log.verify()
    kinds = Counter(entry.data["kind"] for entry in log.entries(since=period.begin, until=period.end))
    alerts = [e.data for e in log.entries(since=period.begin, until=period.end, kinds=("alert", "incident"))]
    with node.engine.connect() as connection:
        rows = connection.execute(select(datasets).order_by(datasets.c.id)).mappings().all()
        made = connection.execute(
            select(versions.c.manifest, versions.c.withdrawn).order_by(
                versions.c.dataset_id, versions.c.version
            )
        ).all()
        held = connection.execute(
            select(*(tokens.c[n] for n in _TOKENS)).order_by(tokens.c.created)
        ).mappings()
        members = [dict(row) for row in held]
        told = [
            dict(row) for row in connection.execute(select(receipts).order_by(receipts.c.number)).mappings()
        ]
    manifests = [(json.loads(raw), withdrawn) for raw, withdrawn in made]
    catalogue = (
        "id", "title", "domain", "node_class", "licence", "grade", "tier", "withdrawn", "version", "entries",
        "first_at", "changed_at",
    )  # fmt: skip
    return {
        "settings.json": _json(node.settings.model_dump(mode="json", exclude={"database"})),
        "kpi.json": dump(numbers),
        "catalogue.csv": _csv(catalogue, rows),
        "events.jsonl": _lines(event.to_json() for event in all_events(node.publication)),
        "quality.csv": _quality(manifests),
        "audit.json": _json(
            {
                "head": log.head().to_json(),
                "whole": not problems,
                "problems": [{"seq": p.seq, "message": p.message} for p in problems],
                "records": dict(sorted(kinds.items())),
                "runs": [
                    {"begin": b, "end": e} for b, e in log.runs() if e >= period.begin and b < period.end
                ],
            }
        ),
        "alerts.jsonl": _lines(alerts),
        "tokens.csv": _csv(_TOKENS, members),
        "receipts.csv": _csv([c.name for c in receipts.columns if c.name != "token_id"], told),
        "keyring.json": Keyring.read(node.publication.keys).to_bytes(),
        "mappings.json": _json(_mappings()),
        "vocabularies.json": _json(
            {"domain": FIELDS, "node_class": NODE_CLASSES, "grade": GRADES, "tier": TIERS}
        ),
        "data-model.json": _json(_model()),
        "software.json": _json(_software(manifests)),
    }


def _quality(manifests: list[tuple[dict[str, Any], bool]]) -> bytes:
    rows = []
    for manifest, withdrawn in manifests:
        counts = manifest["counts"]
        fraction = round(1 - counts["failed"] / counts["entries"], 6) if counts["entries"] else ""
        rows.append(
            {
                "dataset_id": manifest["dataset_id"],
                "version": manifest["version"],
                "created": manifest["created"],
                "withdrawn": withdrawn,
                **{k: counts[k] for k in ("entries", "sites", "failed")},
                "converged_fraction": fraction,
            }
        )
    names = (
        "dataset_id",
        "version",
        "created",
        "withdrawn",
        "entries",
        "sites",
        "failed",
        "converged_fraction",
    )
    return _csv(names, rows)


def _mappings() -> list[dict[str, Any]]:
    from matcompute.publish.mappings import load_table, table_names

    tables = [load_table(name) for name in table_names()]
    return [{"name": t.name, "version": t.version, "standard": t.standard} for t in tables]


def _model() -> list[dict[str, Any]]:
    from matcompute.dataset import PROPERTIES

    return [
        {"name": p.name, "units": p.units, "dtype": p.dtype, "per": p.per, "definition": p.definition}
        for p in PROPERTIES.values()
    ]


def _software(manifests: list[tuple[dict[str, Any], bool]]) -> dict[str, Any]:
    found: dict[str, set[str]] = {}
    for manifest, _ in manifests:
        for name, version in manifest.get("software", {}).items():
            found.setdefault(name, set()).add(version)
    return {name: sorted(versions) for name, versions in sorted(found.items())}


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False, default=str).encode() + b"\n"


def _lines(items: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(item, ensure_ascii=False).encode() + b"\n" for item in items)


def _csv(names: Iterable[str], rows: Iterable[Any]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names := list(names))
    for row in rows:
        writer.writerow([_cell(row[name]) for name in names])
    return b"\xef\xbb\xbf" + out.getvalue().encode()  # office programs read UTF-8 by its mark only


def _cell(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
    # A cell that begins like a formula would be one in an office program.
    return f"'{text}" if text[:1] in "=+-@\t\r" and text[:1] else text


_STATES = {"documents": "documents 已附文件", "node": "node 节点证据", "open": "**open 待补充**"}


def _markdown(content: dict[str, Any]) -> str:
    organisation = content["organisation"]
    name = (
        " / ".join(filter(None, dict.fromkeys((organisation["zh"], organisation["en"])))) or content["node"]
    )
    text = f"# DCMM evidence 数据管理能力成熟度评估证据 ({content['standard']}): {name}\n\n"
    text += f"{content['period']['begin']} – {content['period']['end']}; made {content['made']}.\n"
    text += "No maturity level is claimed. 本文件不主张任何成熟度等级。\n"
    for domain in content["domains"]:
        text += f"\n## {domain['number']} {domain['zh']} {domain['en']}\n\n"
        text += "| | item | state | evidence |\n|---|---|---|---|\n"
        for item in content["items"]:
            if item["number"].partition(".")[0] == domain["number"]:
                files = (
                    "; ".join(f"[{e['file']}]({e['file']}): {e['shows']}" for e in item["evidence"]) or "–"
                )
                text += (
                    f"| {item['number']} | {item['zh']} {item['en']} | {_STATES[item['state']]} | {files} |\n"
                )
    return text
