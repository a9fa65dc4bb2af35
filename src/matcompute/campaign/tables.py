"""What ``campaign check`` and ``campaign plan`` print."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from matcompute.campaign.plan import Plan
    from matcompute.structures import IngestReport
    from matcompute.yamlfile import Problem

__all__ = ["file_lines", "placement_lines", "plan_table", "structure_lines", "warning_lines"]


def _hours(hours: float) -> str:
    """Return a time as people say it."""
    seconds = hours * 3600
    if seconds < 1:
        return "< 1 s" if seconds else "0 s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if hours < 2:
        return f"{seconds / 60:.0f} min"
    if hours < 48:
        return f"{hours:.1f} h"
    return f"{hours / 24:.1f} d"


def _number(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"


def structure_lines(report: IngestReport, examples: int = 3) -> Iterator[str]:
    """Yield lines on what was kept, added and kept out, with the first examples of each cause."""
    from matcompute.structures.screening import CAUSES

    yield f"structures: {report.n_read:,} read, {report.n_kept:,} kept, {len(report.rejects):,} kept out"
    for cause, rejects in report.by_cause().items():
        yield f"  {cause}: {len(rejects):,} ({CAUSES.get(cause, 'refused by its source')})"
        for reject in rejects[:examples]:
            label = f"{reject.label}: " if reject.label else ""
            yield f"    {reject.source}:{reject.line}: {label}{reject.reason}"
        if len(rejects) > examples:
            yield f"    … {len(rejects) - examples:,} more; --json lists all"
    if report.references:
        symbols = ", ".join(reference.symbol for reference in report.references)
        yield f"elemental references added for the hull: {symbols}"


def warning_lines(warnings: list[Problem], path: Any) -> Iterator[str]:
    """Yield a line for each warning."""
    for warning in warnings:
        yield f"warning: {path}:{warning.line}: {warning.key}: {warning.message}"


def file_lines(plan: Plan) -> Iterator[str]:
    """Yield a line for each stage that leaves files in the AiiDA repository: how much, and what becomes of them."""
    for stage in plan.stages:
        if stage.files:
            yield f"{stage.name}: about {_size(stage.stored_bytes)} in the AiiDA repository ({stage.files})"


def _size(size: float) -> str:
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.2g} {unit}"
    return f"{size / 1e3:.0f} kB"


def placement_lines(plan: Plan) -> list[str]:
    """Return a line a stage: where its first batch would go, where else it fits, and why not to the others."""
    lines = []
    for stage, choices in plan.placements.items():
        first = next((choice.centre for choice in choices if choice.verdict == "chosen"), None)
        others = [choice.centre for choice in choices if choice.verdict == "fits"]
        no = [f"not {choice.centre}: {choice.why}" for choice in choices if choice.verdict == "no"]
        text = f"{stage} → {first or 'no centre'}" + (f" or {', '.join(others)}" if others else "")
        lines.append(text + (f" ({'; '.join(no)})" if no else ""))
    return lines


def plan_table(plan: Plan) -> Table:
    """Return a table of the stages with totals."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False)
    budget = plan.campaign.budget.core_hours
    of_budget = "" if budget is None else f" of {_number(budget)}"
    table.add_column("stage", footer="total")
    table.add_column("by")
    table.add_column("structures", justify="right")
    table.add_column("tasks", justify="right", footer=f"{plan.tasks:,}")
    table.add_column("batches", justify="right", footer=f"{plan.batches:,}")
    table.add_column("of size", justify="right")
    table.add_column("core-hours", justify="right", footer=_number(plan.core_hours) + of_budget)
    table.add_column("wall", justify="right", footer=_hours(plan.wall_hours))
    for stage in plan.stages:
        name = stage.name if stage.name == stage.kind else f"{stage.name} ({stage.kind})"
        if stage.is_gate:
            table.add_row(name, "gate", f"{stage.structures:,}", "", "", "", "", _hours(stage.wall_hours))
            continue
        table.add_row(
            name,
            stage.calculator or "",
            f"{stage.structures:,}",
            f"{stage.tasks:,}",
            f"{stage.batches:,}",
            f"{stage.batch_size:,}",
            _number(stage.core_hours),
            _hours(stage.wall_hours),
        )
    return table
