"""``matcompute campaign check|plan|schema|new``: commands on a campaign file; none needs a workspace."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from matcompute.campaign.model import Campaign

__all__ = ["check", "new", "plan", "schema"]

_FILE = click.argument("file", type=click.Path(path_type=Path))


@contextmanager
def _progress(campaign: Campaign, quiet: bool) -> Iterator[Callable[[int], None] | None]:
    """Show on stderr how many structures were read; nothing where it is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
        return
    from matcompute.errors import MatcomputeError

    try:
        counts = [spec.count(campaign.base_dir) for spec in campaign.structures]
    except MatcomputeError:  # a missing file: the check itself tells which, and where
        counts = [None]
    total = None if None in counts else sum(count for count in counts if count is not None)
    columns = (SpinnerColumn(), TextColumn("reading structures"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda read: progress.update(task, completed=read)


@click.command()
@_FILE
@click.option("--quick", is_flag=True, help="Do not read the structures.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(file: Path, quick: bool, as_json: bool) -> None:
    """Check a campaign FILE; touches nothing.

    Reports every problem with its line: keys, values, units, licences, columns that gates read, missing files,
    centres without clearance, and (unless --quick) bad structures and species that a calculator does not know.
    """
    from matcompute.campaign.check import check_campaign
    from matcompute.campaign.model import Campaign
    from matcompute.campaign.tables import structure_lines, warning_lines

    campaign = Campaign.load(file)
    with _progress(campaign, quick or as_json) as on_progress:
        result = check_campaign(campaign, structures=not quick, on_progress=on_progress)
    if as_json:
        click.echo(json.dumps(result.as_dict(), indent=2, ensure_ascii=False))
        return
    if result.structures is not None:
        for line in structure_lines(result.structures):
            click.echo(line)
    for line in warning_lines(result.warnings, file):
        click.echo(line)
    click.echo(f"{file}: campaign '{campaign.name}' is ready to run")


@click.command()
@_FILE
@click.option("--examples", default=3, show_default=True, help="Examples shown for each cause of rejection.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every structure that was kept out.")
def plan(file: Path, examples: int, as_json: bool) -> None:
    """Tell what a campaign FILE would compute, and its cost; touches nothing.

    Structures are read, screened and deduplicated as in a run. Structures and tasks are upper bounds, since only the
    run knows what passes a gate; core-hours and wall time are estimates.
    """
    from rich.console import Console

    from matcompute.campaign.model import Campaign
    from matcompute.campaign.plan import plan as make_plan
    from matcompute.campaign.tables import (
        file_lines,
        placement_lines,
        plan_table,
        structure_lines,
        warning_lines,
    )

    campaign = Campaign.load(file)
    with _progress(campaign, as_json) as on_progress:
        result = make_plan(campaign, on_progress=on_progress)
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=2, ensure_ascii=False))
        return
    for line in structure_lines(result.structures, examples):
        click.echo(line)
    Console(highlight=False).print(plan_table(result))
    click.echo(
        f"upper bounds (gates may let fewer through), on centre '{result.centre}' with {result.cores} cores "
        "if nothing else runs there"
    )
    for line in file_lines(result):
        click.echo(line)
    for line in placement_lines(result):
        click.echo(line)
    for line in warning_lines(result.warnings, file):
        click.echo(line)


@click.command()
def schema() -> None:
    """Print the JSON Schema of campaign files, for editors and other programs.

    It holds the tasks, calculators and sources that are installed here.
    """
    from matcompute.campaign.schema import schema_text

    click.echo(schema_text(), nl=False)


@click.command()
@click.argument("name")
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="The file; NAME.yaml by default."
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
def new(name: str, output: Path | None, force: bool) -> None:
    """Write a commented campaign file to start from."""
    from matcompute.campaign.starter import write_starter

    path = write_starter(name, output or Path(f"{name}.yaml"), overwrite=force)
    click.echo(f"wrote {path}; next: matcompute campaign check {path}")
