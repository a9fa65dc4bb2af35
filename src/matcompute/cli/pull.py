"""``matcompute pull``: keep a verified copy of what nodes publish."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from matcompute.publish.pull import Report
    from matcompute.publish.pull.wire import Wire

__all__ = ["pull"]

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("url")
@click.argument("dest", type=_PATH)
@click.option(
    "--token-file", type=_PATH, help="File with the token that the node gave you; else $MATCOMPUTE_TOKEN."
)
@click.option(
    "--key", help="Id of the node's key, told to you by another way; else the first key seen is believed."
)
@click.option("--tier", "tiers", multiple=True, help="Only datasets of this tier (repeat for more).")
@click.option("--dataset", "datasets", multiple=True, help="Only this dataset (repeat for more).")
@click.option("--jobs", type=click.IntRange(1, 64), default=4, show_default=True, help="Downloads at once.")
@click.option("--limit-rate", help="Bandwidth of all downloads together: 500k, 5M … bytes per second.")
@click.option("--receiver", help="Your name in receipts; else that of this machine.")
@click.option("--receipts/--no-receipts", default=True, help="Tell the node what was accepted or rejected.")
@click.option(
    "--patience",
    type=click.FloatRange(1),
    default=60.0,
    show_default=True,
    help="Seconds without a good answer.",
)
@click.option(
    "--follow/--once", "following", default=False, help="Stay and take what comes; else end (default)."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the report as JSON (with --follow: a line per round)."
)
@click.pass_context
def pull(
    ctx: click.Context,
    url: str,
    dest: Path,
    token_file: Path | None,
    limit_rate: str | None,
    following: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Bring the copy in DEST up to what the node at URL publishes; several nodes may share one DEST.

    Everything is verified before it is stored. Exit code 1 if something was refused.
    """
    from matcompute.publish import pull as client
    from matcompute.publish.pull.rate import parse_rate

    rate = None if limit_rate is None else parse_rate(limit_rate)
    chosen = client.Options(token=_token(token_file), rate=rate, **options)

    def show(report: Report) -> None:
        if as_json:
            click.echo(json.dumps(report.to_json(), ensure_ascii=False, indent=None if following else 2))
        else:
            _print(report, chosen.key)

    with _bars() as progress:
        if following:
            client.follow(url, dest, chosen, progress=progress, on_wire=_stop_on_signals, on_round=show)
            return
        report = client.pull(url, dest, chosen, progress=progress, on_wire=_stop_on_signals)
    show(report)
    ctx.exit(1 if report.refusals else 0)


def _token(path: Path | None) -> str | None:
    import os

    from matcompute.errors import InputError

    if path is None:
        return os.environ.get("MATCOMPUTE_TOKEN") or None
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the token cannot be read ({error})") from error


def _stop_on_signals(wire: Wire) -> None:
    """Let SIGINT and SIGTERM end the pull at the next block; what was received stays."""
    import signal

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: wire.stop.set())


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """Show one bar for each of changes, versions and bytes on a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn

    console = Console(stderr=True)
    tasks: dict[str, TaskID] = {}
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:

        def show(text: str, done: int, total: int) -> None:
            amount = f"{done / 1e6:.1f}/{total / 1e6:.1f} MB" if text == "bytes" else f"{done}/{total}"
            if text not in tasks:
                tasks[text] = bar.add_task(text, total=total, amount=amount)
            bar.update(tasks[text], completed=done, total=total, amount=amount)

        yield show


def _print(report: Report, pinned: str | None) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    name = report.node or report.url
    if report.first and pinned:
        console.print(f"first contact with {name}: it shows the key that you gave, {pinned}")
    elif report.first:
        console.print(
            f"first contact with {name}: key {report.key_id} is believed; compare it with the node's people"
        )
    console.print(
        f"{name}: {report.changes} changes (up to {report.seq}), {len(report.stored)} versions stored, "
        f"{report.blobs} files fetched ({report.received / 1e6:.1f} MB), {report.receipts} receipts",
        highlight=False,
    )
    if report.receipts_trouble:
        console.print(f"receipts wait: {report.receipts_trouble}", highlight=False)
    if report.refusals:
        table = Table("dataset", "version", "refused", "reason", title="not taken")
        for refusal in report.refusals:
            table.add_row(refusal.dataset_id, str(refusal.version), refusal.code, refusal.reason)
        console.print(table)
