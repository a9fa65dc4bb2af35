"""``matcompute node audit``: check and read the audit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from matcompute.cli._shared import print_json
from matcompute.cli.node import open_node, period_of

if TYPE_CHECKING:
    from matcompute.server.guard.audit import AuditLog

__all__ = ["audit"]


@click.group()
def audit() -> None:
    """Check and read the audit of all requests."""


def _log() -> AuditLog:
    from matcompute.server.duties.kpi import audit_of

    return audit_of(open_node())


@audit.command()
@click.option(
    "--known", multiple=True, help="A head that a report holds: <number>:<hash>. May be given again."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def verify(ctx: click.Context, known: tuple[str, ...], as_json: bool) -> None:
    """Check every record, the chain, the metering. Exit code 1 if something is wrong."""
    from matcompute.server.guard.audit import Head

    log = _log()
    problems = log.verify([Head.parse(text) for text in known])
    head = log.head()
    if as_json:
        found = [{"seq": p.seq, "message": p.message} for p in problems]
        print_json({"valid": not problems, "head": head.to_json(), "problems": found})
    else:
        for p in problems:
            click.echo(f"record {p.seq}: {p.message}")
        click.echo(f"{len(problems)} problem(s)" if problems else f"{head.seq} record(s), all is well")
        click.echo(f"head {head}")
    ctx.exit(1 if problems else 0)


@audit.command()
def head() -> None:
    """Print the newest record's number and hash: tell it to others, and nobody can cut the audit unseen."""
    click.echo(str(_log().head()))


@audit.command("list")
@click.option(
    "--period", help="2026, 2026-Q3, 2026-03 or 2026-03-01..2026-03-15 (UTC); this month by default."
)
@click.option("--kind", "kinds", multiple=True, help="request, open, close, alert, incident, start, stop …")
@click.option("--limit", default=100, show_default=True, help="Only the last ones; 0: all.")
def list_(period: str | None, kinds: tuple[str, ...], limit: int) -> None:
    """Print records, one JSON line each."""
    from collections import deque

    span = period_of(period)
    entries = _log().entries(since=span.begin, until=span.end, kinds=kinds)
    for entry in deque(entries, maxlen=limit) if limit else entries:
        click.echo(f'{{"seq":{entry.seq},{entry.record[1:]}')
