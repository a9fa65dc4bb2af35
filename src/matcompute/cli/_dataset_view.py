"""How ``matcompute dataset`` prints: rich tables, nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from matcompute.units import format_unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from matcompute.dataset import Dataset, Difference, Entry, TraceStep
    from matcompute.dataset.listing import Listing

__all__ = ["entry_json", "print_difference", "print_entry", "print_summary", "print_table", "print_trace"]

_SHOWN_CHANGES = 50


def _number(value: Any) -> str:
    if isinstance(value, float):
        return "–" if value != value else f"{value:.6g}"
    return str(value)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return ""


def print_summary(console: Console, summary: dict[str, Any]) -> None:
    """Print what `matcompute.dataset.summarize` returns."""
    facts = Table.grid(padding=(0, 2))
    metadata = summary["metadata"]
    lo_mid_hi = summary["n_sites"]
    lines = {
        "file": f"{summary['path']}, {_size(summary['bytes'])}, format {summary['format_version']}",
        "title": metadata["title"],
        "dataset": f"{metadata['dataset_id']} version {metadata['dataset_version']}, shard {metadata['shard']}",
        "campaign": " ".join(x for x in (metadata["campaign"], metadata["campaign_uuid"]) if x),
        "domain": metadata["domain"],
        "grade, tier": f"{metadata['grade']}, {metadata['tier']}",
        "licence": metadata["license"],
        "created": metadata["created"],
        "entries": f"{summary['entries']:,} with {summary['sites']:,} sites"
        + (f" ({lo_mid_hi[0]} to {lo_mid_hi[2]}, median {lo_mid_hi[1]:g})" if lo_mid_hi else ""),
        "elements": " ".join(f"{symbol} {count}" for symbol, count in summary["elements"].items()),
        "quality": ", ".join(f"{name} {count}" for name, count in summary["quality"].items() if count),
        "methods": ", ".join(summary["methods"]),
        "sources": ", ".join(summary["sources"][:5]) + (" …" if len(summary["sources"]) > 5 else ""),
        "processes": str(summary["processes"]),
    }
    for name, value in lines.items():
        if value:
            facts.add_row(f"[bold]{name}[/]", escape(value))
    console.print(facts)
    if summary["properties"]:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for title in ("property", "unit", "shape", "min", "max"):
            table.add_column(title, justify="right" if title in ("min", "max") else "left", overflow="fold")
        failures = any(set(item["statuses"]) != {"ok"} for item in summary["properties"].values())
        if failures:
            table.add_column("not ok", overflow="fold")
        for name, item in summary["properties"].items():
            shape = ("site × " if item["per"] == "site" else "") + " × ".join(map(str, item["shape"]))
            numbers = [_number(item[k]) if k in item else "" for k in ("min", "max")]
            more = [_failures(item["statuses"])] if failures else []
            table.add_row(name, format_unit(item["units"]), shape.removesuffix(" × "), *numbers, *more)
        console.print()
        console.print(table)
    if summary["descriptors"]:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for title in ("descriptor", "kernel", "features", "a row per", "not ok"):
            table.add_column(title, justify="right" if title == "features" else "left", overflow="fold")
        for name, item in summary["descriptors"].items():
            per = item["per"] + (", in blocks" if item["layout"] == "block-sparse" else "")
            table.add_row(name, item["kernel"], f"{item['n_features']:,}", per, _failures(item["statuses"]))
        console.print()
        console.print(table)
    for name, item in summary["selections"].items():
        console.print(
            f"[bold]selection[/] {escape(name)}: {item['passed']} passed  {escape(item['expression'])}"
        )


def _failures(statuses: dict[str, int]) -> str:
    return ", ".join(f"{label} {count}" for label, count in statuses.items() if label != "ok")


def print_difference(console: Console, difference: Difference) -> None:
    """Print a difference."""
    for title, names in (
        ("added", difference.added),
        ("removed", difference.removed),
        ("column added", difference.columns_added),
        ("column removed", difference.columns_removed),
    ):
        for name in names[:_SHOWN_CHANGES]:
            console.print(f"{title}: {escape(name)}")
        if len(names) > _SHOWN_CHANGES:
            console.print(f"{title}: … {len(names) - _SHOWN_CHANGES} more")
    if difference.changed:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for title in ("entry", "column", "old", "new", "difference"):
            table.add_column(title, overflow="fold")
        for change in difference.changed[:_SHOWN_CHANGES]:
            delta = "" if change.difference is None else f"{change.difference:.3g}"
            table.add_row(change.id, change.column, _short(change.old), _short(change.new), delta)
        console.print(table)
        if len(difference.changed) > _SHOWN_CHANGES:
            console.print(f"… {len(difference.changed) - _SHOWN_CHANGES} more")
    summary = (
        f"{len(difference.added)} added, {len(difference.removed)} removed, "
        f"{len({c.id for c in difference.changed})} changed of {difference.compared} in both"
    )
    console.print("equal: " + summary if difference.equal else "different: " + summary)


def _short(value: Any) -> str:
    text = _number(value)
    return escape(text if len(text) <= 40 else text[:39] + "…")


def print_trace(console: Console, steps: Sequence[TraceStep]) -> None:
    """Print the chain, the number first."""
    for depth, step in enumerate(steps):
        arrow = "" if depth == 0 else "└─ "
        uuid = f"  [dim]{step.uuid}[/]" if step.uuid else ""
        console.print(
            f"{'   ' * max(depth - 1, 0)}{arrow}[bold]{step.kind}[/] {escape(step.label)}{uuid}",
            soft_wrap=True,
        )
        hidden = {"value", "units", "entry", "property", "inputs", "file", "line"}
        for name, value in step.details.items():
            if name not in hidden and value not in ("", None):
                console.print(f"{'   ' * (depth + 1)}{name}: {escape(str(value))}", soft_wrap=True)


def print_table(console: Console, listing: Listing) -> None:
    """Print rows."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in listing.columns:
        unit = format_unit(listing.units.get(name, "1"))
        table.add_column(f"{name}\n{unit}" if unit else name, overflow="fold")
    for row in listing.rows:
        table.add_row(*(escape(_number(value)) for value in row))
    console.print(table)
    if listing.total > len(listing.rows):
        console.print(f"{len(listing.rows)} of {listing.total} entries (-n for more)")


def print_entry(console: Console, entry: Entry, dataset: Dataset) -> None:
    """Print one entry in full."""
    facts = Table.grid(padding=(0, 2))
    atoms = entry.atoms
    lines = {
        "entry": entry.id,
        "formula": f"{entry.formula}, {len(atoms)} sites",
        "cell": "  ".join(f"{x:.5f}" for x in atoms.cell.cellpar()) + "  (Å, degrees)",
        "structure hash": entry.structure_hash,
        "quality": ", ".join(str(q.name).lower() for q in type(entry.quality) if q in entry.quality),
        "selections": ", ".join(entry.selections),
        "method": entry.method.name if entry.method else "",
        "source": f"{entry.source.path}:{entry.source_line}" if entry.source else "",
        "label": entry.label,
        "message": entry.message,
    }
    for name, value in lines.items():
        if value:
            facts.add_row(f"[bold]{name}[/]", escape(value))
    for name, value in entry.values.items():
        if not entry.statuses[name].keeps_value:
            facts.add_row(f"[bold]{name}[/]", entry.statuses[name].label)
            continue
        if dataset.properties[name].per == "site":
            text = f"{value.shape[0]} sites"
        elif hasattr(value, "tolist"):
            text = " ".join(_number(x) for x in value.tolist())
        else:
            text = _number(value)
        unit = format_unit(entry.units[name])
        facts.add_row(f"[bold]{name}[/]", escape(f"{text} {unit}".strip()))
    console.print(facts)


def entry_json(entry: Entry) -> dict[str, Any]:
    """Return an entry in JSON-able form."""
    atoms = entry.atoms
    return {
        "id": entry.id,
        "row": entry.row,
        "formula": entry.formula,
        "structure_hash": entry.structure_hash,
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.array.tolist(),
        "pbc": atoms.pbc.tolist(),
        "values": {n: v.tolist() if hasattr(v, "tolist") else v for n, v in entry.values.items()},
        "units": entry.units,
        "statuses": {n: s.label for n, s in entry.statuses.items()},
        "quality": [str(q.name).lower() for q in type(entry.quality) if q in entry.quality],
        "selections": list(entry.selections),
        "label": entry.label,
        "message": entry.message,
        "attempt": entry.attempt,
        "source": entry.source.path if entry.source else None,
        "source_line": entry.source_line,
        "node_uuid": entry.node_uuid,
        "process_uuid": entry.process_uuid,
    }
