"""``matcompute centre usage|explain``: what was used, and where campaigns go and why."""

from __future__ import annotations

import json
from pathlib import Path

import click

__all__ = ["explain", "usage"]


@click.command()
@click.option(
    "--by",
    default="centre",
    show_default=True,
    help="centre, campaign, stage, project, partition or workload.",
)
@click.option("--since", metavar="TIME", help="Only jobs that ended since then: 12h, 7d, 2w, 2026-05-01.")
@click.option("--centre", help="Only this centre.")
@click.option("--campaign", help="Only this campaign.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw it into this file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def usage(
    by: str, since: str | None, centre: str | None, campaign: str | None, plot: Path | None, as_json: bool
) -> None:
    """Show core-hours and GPU-hours, as the schedulers' accounting or else the node program says."""
    from rich.console import Console

    from matcompute.campaign.placement import known_centres
    from matcompute.campaign.state import State
    from matcompute.campaign.usage import parse_since, usage_picture, usage_report, usage_table
    from matcompute.workspace import Workspace

    workspace = Workspace.find()
    start = None if since is None else parse_since(since)
    with State(workspace.state_path) as state, state.read() as connection:
        centres, _ = known_centres(workspace)
        report = usage_report(connection, centres, by=by, since=start, centre=centre, campaign=campaign)
        if plot is not None:
            usage_picture(connection, plot, by=by, since=start)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))
        return
    console = Console(highlight=False, soft_wrap=True)
    if not report.rows:
        console.print("no job has ended yet")
    else:
        console.print(usage_table(report))
    for quota in report.quotas:
        click.echo(
            f"project {quota.account} at {quota.centre}: {quota.used_core_h:.3g} of {quota.quota_core_h:.3g} "
            f"core-hours ({quota.share:.0%})"
        )
    if plot is not None:
        click.echo(f"wrote {plot}")


@click.command()
@click.argument("campaign")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(campaign: str, as_json: bool) -> None:
    """Tell where the batches of CAMPAIGN go, and why not elsewhere.

    CAMPAIGN is the name of a campaign of this workspace, or a campaign file that was not run yet.
    """
    from rich.console import Console

    from matcompute.campaign.explain import explain_campaign, explain_lines
    from matcompute.campaign.state import State
    from matcompute.workspace import Workspace

    workspace = Workspace.find()
    with State(workspace.state_path) as state:
        found = explain_campaign(workspace, state, campaign)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
        return
    console = Console(highlight=False, soft_wrap=True)
    for line in explain_lines(found):
        console.print(line)
