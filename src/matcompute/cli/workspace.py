"""``matcompute init``, ``matcompute workspace`` and ``matcompute verdi``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from matcompute.workspace import DaemonStatus, Workspace

__all__ = ["init", "verdi", "workspace"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _find() -> Workspace:
    from matcompute.workspace import Workspace

    return Workspace.find()


@click.command()
@click.argument("folder", default=".", type=click.Path(path_type=Path))
@click.option("--profile", metavar="NAME", help="Use your AiiDA profile NAME instead of an embedded one.")
@click.option("--title", default="", help="Free text, kept in matcompute.toml.")
def init(folder: Path, profile: str | None, title: str) -> None:
    """Make a workspace in FOLDER (default: the current one).

    The workspace gets its own AiiDA profile (SQLite and a broker of its own, nothing to install, nothing outside
    the folder) and the local compute centre.
    """
    from matcompute.centres import local_centre, register
    from matcompute.workspace import Workspace

    made = Workspace.create(folder, profile, title=title)
    centre = local_centre(made)
    register(made, centre)
    kind = "embedded" if made.settings.embedded else "yours"
    click.echo(f"workspace  {made.root}")
    click.echo(f"profile    {made.profile_name} ({kind})")
    click.echo(f"centre     {centre.id}: {centre.cores} cores, {centre.memory_gb:.0f} GB")
    click.echo("next       matcompute campaign run FILE")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def workspace() -> None:
    """Look after the workspace and its AiiDA daemon."""


def _print_status(found: DaemonStatus) -> None:
    processes = ", ".join(
        f"{name} {pid}"
        for name, pid in (
            ("supervisor", found.supervisor),
            ("broker", found.broker),
            ("worker", found.worker),
        )
        if pid is not None
    )
    click.echo(f"daemon     {found.state}" + (f" ({processes})" if processes else ""))
    click.echo(f"tasks      {found.queued} waiting, {found.taken} taken by the worker")
    for problem in found.problems:
        click.echo(f"problem    {problem}")
    if found.problems:
        click.echo("mend it    matcompute workspace repair")


@workspace.command()
@_JSON
def status(as_json: bool) -> None:
    """Show where things are and whether the daemon runs (exit status 1 if it is broken)."""
    found_workspace = _find()
    found = found_workspace.daemon_status()
    if as_json:
        click.echo(json.dumps({"root": str(found_workspace.root), "daemon": found.to_dict()}, indent=2))
    else:
        click.echo(f"workspace  {found_workspace.root}")
        click.echo(f"profile    {found_workspace.profile_name}")
        _print_status(found)
    if found.state == "broken":
        sys.exit(1)


@workspace.command()
def start() -> None:
    """Start the daemon if it does not run, mend it if it is broken."""
    found_workspace = _find()
    found = found_workspace.ensure_daemon()
    click.echo(f"daemon {found.action or 'was running'}")


@workspace.command()
def stop() -> None:
    """Stop the dispatcher and the daemon. Running jobs go on and are picked up at the next start."""
    from matcompute.campaign.dispatcher.launch import end_dispatcher

    found_workspace = _find()
    if end_dispatcher(found_workspace) is not None:
        click.echo("dispatcher stopped")
    found = found_workspace.stop_daemon()
    click.echo(f"daemon {found.action or 'was not running'}")


@workspace.command()
@_JSON
def repair(as_json: bool) -> None:
    """Mend the daemon after a crash and bring back processes that lost their task."""
    report = _find().repair()
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=2))
        return
    click.echo(f"daemon     {report.daemon.action or 'was running'}")
    click.echo(f"revived    {len(report.revived)} processes")
    click.echo(f"resumed    {len(report.resumed)} processes")
    for note in report.notes:
        click.echo(f"note       {note}")


@workspace.command()
def path() -> None:
    """Print the workspace folder."""
    click.echo(str(_find().root))


def _start_instead(found: Workspace, arguments: tuple[str, ...]) -> None:
    """Start our supervisor where verdi would start AiiDA's, which may delete the folder that it is started in."""
    if arguments[2:]:
        raise click.UsageError(
            f"the daemon of a workspace has one worker and no options: {arguments[2]} means nothing"
        )
    stopped = found.stop_daemon().action if arguments[1] == "restart" else ""
    action = found.ensure_daemon().action or "was running"
    click.echo("daemon restarted" if stopped else f"daemon {action}")


@click.command(
    context_settings={
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
        "help_option_names": [],
    }
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def verdi(arguments: tuple[str, ...]) -> None:
    """Run AiiDA's verdi on this workspace's profile: matcompute verdi -- process list."""
    found = _find()
    starts = arguments[:2] in (("daemon", "start"), ("daemon", "restart")) and "--help" not in arguments
    if starts and found.settings.embedded:
        _start_instead(found, arguments)
        return
    found.load_profile()  # adapts the configuration of a workspace that was moved
    command = [sys.executable, "-m", "aiida", "-p", found.profile_name, *arguments]
    os.execve(sys.executable, command, found.verdi_env())
