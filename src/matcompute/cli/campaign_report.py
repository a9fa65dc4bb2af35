"""``matcompute campaign report``."""

from __future__ import annotations

import json
from pathlib import Path

import click

__all__ = ["report"]


@click.command()
@click.argument("name")
@click.option("--limit", default=20, show_default=True, help="Most rows in the table.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for the pictures.")
@click.option("--no-pictures", is_flag=True, help="Draw nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def report(name: str, limit: int, out: Path | None, no_pictures: bool, as_json: bool) -> None:
    """Show what a finished campaign found: a table, pictures and the dataset.

    NAME is a campaign of this workspace, or the path of a dataset.
    """
    from rich.console import Console

    from matcompute.campaign.report import build_report, report_place

    dataset, folder = report_place(name)
    result = build_report(dataset, None if no_pictures else out or folder, limit=limit)
    if as_json:
        click.echo(json.dumps(result.as_json(), indent=2))
        return
    console = Console()
    console.print(result.table())
    if result.methods:
        from matcompute.campaign.crossmethod import comparison_table

        console.print(comparison_table(result.methods))
    for gate, expression, passed in result.funnel:
        console.print(f"{gate}: {passed} passed {expression}", highlight=False)
    for cause, count in result.failures.items():
        console.print(f"[yellow]{cause}[/yellow]: {count} entries", highlight=False)
    for picture in result.pictures:
        click.echo(f"picture: {picture}")
    click.echo(f"dataset: {result.dataset}")
