"""``matcompute campaign``: run, watch and steer campaigns."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from matcompute.cli._lazy import LazyGroup
from matcompute.cli._shared import print_json

if TYPE_CHECKING:
    from rich.console import Console

    from matcompute.campaign.state import State
    from matcompute.campaign.state.counts import CampaignStatus
    from matcompute.workspace import Workspace

__all__ = ["campaign"]

campaign = LazyGroup(
    name="campaign",
    help="Check, plan, run and watch campaigns.",
    lazy={
        "new": ("matcompute.cli.campaign_file:new", "Write a commented campaign file to start from."),
        "check": ("matcompute.cli.campaign_file:check", "Check a campaign file; touches nothing."),
        "plan": ("matcompute.cli.campaign_file:plan", "Tell what a campaign would compute, and its cost."),
        "schema": ("matcompute.cli.campaign_file:schema", "Print the JSON Schema of campaign files."),
        "report": ("matcompute.cli.campaign_report:report", "Show a finished campaign's results."),
    },
)


@contextmanager
def _open() -> Iterator[tuple[Workspace, State]]:
    from matcompute.campaign.state import State
    from matcompute.workspace import Workspace

    workspace = Workspace.find()
    with State(workspace.state_path) as state:
        yield workspace, state


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def _end(found: CampaignStatus | None, console: Console) -> None:
    """Print how a campaign stands; leave with 1 unless it is finished (or the user detached)."""
    from matcompute.campaign.progress import outcome

    if found is None:
        return
    for line in outcome(found):
        console.print(line, markup=False)
    if found.state != "finished":
        sys.exit(1)


@campaign.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", help="Run it under another name than the file says.")
@click.option("--detach", is_flag=True, help="Start it and return at once.")
@click.option("--no-progress", is_flag=True, help="Print plain lines instead of a live display.")
def run(file: Path, name: str | None, detach: bool, no_progress: bool) -> None:
    """Run the campaign in FILE, or go on with it; Ctrl-C leaves it running.

    Run again, a finished campaign shows its result and computes nothing.
    """
    from matcompute.campaign import control
    from matcompute.campaign.progress import watch

    with _open() as (workspace, state):
        console = _console()
        found = control.start(workspace, state, file, name=name)
        label = found.row.name
        if found.finished:
            console.print(f"campaign '{label}' is finished already", markup=False)
            _end(control.status(workspace, state, label), console)
            return
        if detach:
            console.print(f"campaign '{label}' runs. Watch it: matcompute campaign status {label} --watch")
            return
        _end(watch(workspace, state, label, console=console, live=False if no_progress else None), console)


@campaign.command()
@click.argument("name")
@click.option("--watch", "-f", "follow", is_flag=True, help="Go on showing it until it ends.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(name: str, follow: bool, as_json: bool) -> None:
    """Show how far campaign NAME is."""
    from matcompute.campaign import control
    from matcompute.campaign.progress import outcome, render, watch

    with _open() as (workspace, state):
        found: CampaignStatus | None = control.status(workspace, state, name)
        assert found is not None
        if as_json:
            print_json(found.to_json())
            return
        console = _console()
        if follow:
            _end(watch(workspace, state, found.name, console=console, ensure=False), console)
            return
        console.print(render(found))
        if found.state not in ("running", "registered", "ingesting", "merging"):
            for line in outcome(found):
                console.print(line, markup=False)


@campaign.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json: bool) -> None:
    """List the campaigns of this workspace."""
    from matcompute.campaign import control
    from matcompute.campaign.state.campaigns import all_campaigns

    with _open() as (workspace, state):
        with state.read() as connection:
            names = [row.name for row in all_campaigns(connection)]
        found = [control.status(workspace, state, name) for name in names]
    if as_json:
        print_json([item.to_json() for item in found])
        return
    console = _console()
    if not found:
        console.print("no campaign yet: matcompute campaign run FILE")
        return
    console.print(_list_table(found))


def _list_table(found: list[CampaignStatus]) -> Any:
    from rich.table import Table

    from matcompute.campaign.progress import format_core_hours

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("campaign", "state", "structures", "failed", "core-hours", "dataset"):
        table.add_column(
            column, justify="right" if column in ("structures", "failed", "core-hours") else "left"
        )
    for item in found:
        failed = sum(part.n_failed for part in item.stages if not part.is_gate)
        hours = format_core_hours(item.core_s)
        table.add_row(
            item.name, item.state, str(item.n_materials), str(failed), hours, item.dataset or item.reason
        )
    return table


@campaign.command()
@click.argument("name")
def pause(name: str) -> None:
    """Submit nothing more of campaign NAME; what is in flight is finished."""
    from matcompute.campaign import control

    with _open() as (_, state):
        row = control.pause(state, name)
    click.echo(f"campaign '{row.name}' is paused. Go on: matcompute campaign resume {row.name}")


@campaign.command()
@click.argument("name")
@click.option("--core-hours", type=float, help="New budget.")
@click.option("--detach", is_flag=True, help="Return at once.")
@click.option("--no-progress", is_flag=True, help="Print plain lines instead of a live display.")
def resume(name: str, core_hours: float | None, detach: bool, no_progress: bool) -> None:
    """Go on with campaign NAME after a pause, an error, a cancellation or a crash."""
    from matcompute.campaign import control
    from matcompute.campaign.progress import watch

    with _open() as (workspace, state):
        row = control.resume(workspace, state, name, core_hours=core_hours)
        console = _console()
        if detach and row.state != "finished":
            console.print(
                f"campaign '{row.name}' goes on. Watch it: matcompute campaign status {row.name} --watch"
            )
            return
        _end(watch(workspace, state, row.name, console=console, live=False if no_progress else None), console)


@campaign.command()
@click.argument("name")
@click.confirmation_option("--yes", prompt="Kill its running jobs?")
def cancel(name: str) -> None:
    """End campaign NAME: kill its jobs. Finished structures are kept; resume takes it up again."""
    from matcompute.campaign import control

    with _open() as (workspace, state):
        row = control.cancel(workspace, state, name)
    click.echo(f"campaign '{row.name}' is {row.state}")
    if row.state != "cancelled":
        sys.exit(1)


@campaign.command()
@click.argument("name")
@click.option("--failed", is_flag=True, required=True, help="The structures that failed.")
@click.option("--stage", "stages", multiple=True, help="Only of this stage (may be repeated).")
@click.option("--detach", is_flag=True, help="Return at once.")
@click.option("--no-progress", is_flag=True, help="Print plain lines instead of a live display.")
def retry(name: str, failed: bool, stages: tuple[str, ...], detach: bool, no_progress: bool) -> None:
    """Compute what failed in campaign NAME again, and what follows from it."""
    from matcompute.campaign import control
    from matcompute.campaign.progress import watch

    with _open() as (workspace, state):
        row, count = control.retry(workspace, state, name, stages=stages or None)
        console = _console()
        if not count:
            console.print(
                f"nothing failed in campaign '{row.name}'" + (f" ({', '.join(stages)})" if stages else "")
            )
            return
        console.print(f"{count} structure{'s' if count > 1 else ''} of '{row.name}' computed again")
        if not detach:
            live = False if no_progress else None
            _end(watch(workspace, state, row.name, console=console, live=live), console)


@campaign.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def failures(name: str, as_json: bool) -> None:
    """Show what failed in campaign NAME: by cause, an example of each, and what to do."""
    from matcompute.campaign.failures import failures as grouped
    from matcompute.campaign.state.campaigns import find

    with _open() as (_, state), state.read() as connection:
        row = find(connection, name)
        found = grouped(connection, row)
    if as_json:
        print_json([item.to_json() for item in found])
        return
    if not found:
        click.echo(f"nothing failed in campaign '{row.name}'")
        return
    for item in found:
        code = f" ({item.code})" if item.code else ""
        click.echo(click.style(f"{item.count} {item.what} in {item.stage}: {item.cause}{code}", bold=True))
        click.echo(f"  example: {item.example}" + (f": {item.message}" if item.message else ""))
        click.echo(f"  what to do: {item.remedy}")
