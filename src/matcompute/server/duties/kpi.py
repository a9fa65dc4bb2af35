"""The KPI report: volume, quality, uptime, use and receipts of a period."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from sqlalchemy import select

import matcompute
from matcompute.server.duties.period import Period
from matcompute.server.guard.audit import AuditLog
from matcompute.server.guard.metrics import door_of
from matcompute.server.guard.middleware import FILE
from matcompute.server.node import Node
from matcompute.server.tables import changes, datasets, receipts, versions
from matcompute.times import utc_now

__all__ = ["SCHEMA", "audit_of", "markdown", "report"]

SCHEMA = "matcompute.kpi/v1"


def audit_of(node: Node) -> AuditLog:
    """Return the audit of a node."""
    return AuditLog(node.publication.folder / FILE)


def report(node: Node, period: Period) -> dict[str, Any]:
    """Return the numbers of a period, JSON-able.

    Volume and quality are what is available now; releases, uptime, use and receipts are those of the period. Whoever
    wants to trust the use checks the audit first: the report names its head.
    """
    node.create_tables()
    node.refresh()
    log = audit_of(node)
    return {
        "schema": SCHEMA,
        "node": node.settings.id,
        "title": node.settings.title.model_dump(),
        "period": {"begin": period.begin, "end": period.end},
        "made": utc_now(),
        "software": f"matcompute {matcompute.__version__}",
        "volume": _volume(node, period),
        "quality": _quality(node),
        "uptime": _uptime(log, period),
        "use": _use(log, period),
        "receipts": _receipts(node, period),
        "audit": log.head().to_json(),
    }


def _volume(node: Node, period: Period) -> dict[str, Any]:
    with node.engine.connect() as connection:
        rows = connection.execute(select(datasets).where(~datasets.c.withdrawn)).all()
        sizes = connection.execute(select(versions.c.size).where(~versions.c.withdrawn)).scalars().all()
        withdrawn = len(connection.execute(select(datasets.c.id).where(datasets.c.withdrawn)).all())
        ops = connection.execute(
            select(changes.c.op).where(changes.c.at >= period.begin, changes.c.at < period.end)
        ).scalars()
        done = Counter(ops)
    return {
        "datasets": len(rows),
        "datasets_withdrawn": withdrawn,
        "versions": len(sizes),
        "entries": sum(row.entries for row in rows),
        "bytes": sum(sizes),
        "by_domain": dict(sorted(Counter(row.domain for row in rows).items())),
        "by_grade": dict(sorted(Counter(row.grade for row in rows).items())),
        "by_tier": dict(sorted(Counter(row.tier for row in rows).items())),
        "events": {op: done.get(op, 0) for op in ("publish", "revise", "regrade", "withdraw")},
    }


def _quality(node: Node) -> dict[str, Any]:
    """Return counts over the newest available versions; a failed entry is published as such, with its reason."""
    newest = (versions.c.dataset_id == datasets.c.id) & (versions.c.version == datasets.c.version)
    query = (
        select(versions.c.manifest).select_from(datasets.join(versions, newest)).where(~datasets.c.withdrawn)
    )
    entries = failed = sites = 0
    with node.engine.connect() as connection:
        for raw in connection.execute(query).scalars():
            counts = json.loads(raw)["counts"]
            entries, failed = entries + counts["entries"], failed + counts["failed"]
            sites += counts["sites"]
    return {
        "entries": entries,
        "failed": failed,
        "sites": sites,
        "converged_fraction": round(1 - failed / entries, 6) if entries else None,
    }


def _uptime(log: AuditLog, period: Period) -> dict[str, Any]:
    """Return the time for which a server run showed signs of life (every 15 s), of the period's time so far."""
    runs = [run for run in log.runs() if run[1] >= period.begin and run[0] < period.end]
    covered, passed = period.seconds_of(runs)
    return {
        "seconds": round(covered),
        "of_seconds": round(passed),
        "fraction": round(covered / passed, 6) if passed else None,
        "starts": sum(period.holds(begin) for begin, _ in runs),
    }


def _use(log: AuditLog, period: Period) -> dict[str, Any]:
    doors: Counter[str] = Counter()
    tiers: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    top: Counter[str] = Counter()
    alerts: Counter[str] = Counter()
    members: set[str] = set()
    addresses: set[str] = set()
    requests = refused = errors = files = broken = 0
    for entry in log.entries(since=period.begin, until=period.end):
        data = entry.data
        kind, tier = data["kind"], data.get("tier", "public")
        if kind == "alert":
            alerts[data.get("rule", "")] += 1
        if kind not in ("request", "open", "close"):
            continue
        sizes[tier] += data.get("bytes", 0)
        broken += bool(data.get("broken"))
        if data.get("dataset_id"):
            top[data["dataset_id"]] += data.get("bytes", 0)
        if kind == "close":
            continue
        requests += 1
        status = data.get("status", 0)
        refused += status in (401, 403, 429)
        errors += status >= 500
        files += bool(data.get("sha256")) and status < 300
        doors[door_of(data.get("path", ""))] += 1
        tiers[tier] += 1
        if data.get("principal"):
            members.add(data["principal"])
        elif data.get("address"):
            addresses.add(data["address"])
    return {
        "requests": requests,
        "refused": refused,
        "server_errors": errors,
        "files_served": files,
        "broken_off": broken,
        "bytes": sum(sizes.values()),
        "bytes_by_tier": dict(sorted(sizes.items())),
        "requests_by_tier": dict(sorted(tiers.items())),
        "requests_by_door": dict(sorted(doors.items())),
        "members": len(members),
        "anonymous_addresses": len(addresses),
        "top_datasets": [{"dataset_id": name, "bytes": size} for name, size in top.most_common(10)],
        "alerts": dict(sorted(alerts.items())),
    }


def _receipts(node: Node, period: Period) -> dict[str, Any]:
    r, v = receipts.c, versions.c
    with node.engine.connect() as connection:
        found = connection.execute(
            select(r.verdict).where(r.received >= period.begin, r.received < period.end)
        ).scalars()
        verdicts = Counter(found)
        same = (r.dataset_id == v.dataset_id) & (r.version == v.version) & (r.verdict == "accept")
        missing = (
            select(v.version)
            .select_from(versions.outerjoin(receipts, same))
            .where(r.number.is_(None), ~v.withdrawn)
        )
        without = len(connection.execute(missing).all())
    return {
        "accepted": verdicts.get("accept", 0),
        "rejected": verdicts.get("reject", 0),
        "available_versions_never_accepted": without,
    }


_TITLES = {
    "volume": "Volume 数据量",
    "quality": "Quality 数据质量",
    "uptime": "Uptime 在线率",
    "use": "Use 使用情况",
    "receipts": "Receipts 接收回执",
}


def markdown(numbers: dict[str, Any]) -> str:
    """Return the report as a page for people, in Chinese and English."""
    period, title = numbers["period"], numbers["title"]
    name = " / ".join(filter(None, dict.fromkeys((title["zh"], title["en"]))))
    text = f"# KPI report 节点运行报告: {name} ({numbers['node']})\n\n"
    text += f"{period['begin']} – {period['end']}; made {numbers['made']} by {numbers['software']}.\n"
    for part, heading in _TITLES.items():
        text += f"\n## {heading}\n\n| | |\n|---|---:|\n"
        for key, value in numbers[part].items():
            text += "".join(
                f"| {label} | {shown} |\n" for label, shown in _rows(key.replace("_", " "), value)
            )
    head = numbers["audit"]
    return text + f"\nHead of the audit: {head['seq']}:{head['hash']}\n"


def _rows(label: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [row for key, item in value.items() for row in _rows(f"{label}: {key}", item)] or [
            (label, "–")
        ]
    if isinstance(value, list):
        return [(f"{label}: {item['dataset_id']}", f"{item['bytes']:,}") for item in value] or [(label, "–")]
    if value is None:
        return [(label, "–")]
    return [(label, f"{value:.4%}" if isinstance(value, float) else f"{value:,}")]
