"""``matcompute centre``: profiles of compute centres, their registration, and the doctor."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from matcompute.cli._lazy import LazyGroup

if TYPE_CHECKING:
    from rich.console import Console

    from matcompute.centres.doctor import DoctorReport
    from matcompute.centres.doctor.report import Step
    from matcompute.workspace import Workspace

__all__ = ["centre"]

centre = LazyGroup(
    name="centre",
    help="Describe compute centres, register them, examine them.",
    lazy={
        "usage": ("matcompute.cli.centre_usage:usage", "Show the core-hours and GPU-hours that were used."),
        "explain": ("matcompute.cli.centre_usage:explain", "Tell where a campaign's batches go, and why."),
    },
)

_FILE = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_SET = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Value of a variable of the profile (may be repeated).",
)


def _find() -> Workspace:
    from matcompute.workspace import Workspace

    return Workspace.find()


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def _values(settings: tuple[str, ...]) -> dict[str, str]:
    values = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"'{setting}' is not NAME=VALUE", param_hint="--set")
        values[name] = value
    return values


def _ask(questions: dict[str, str], values: dict[str, str]) -> dict[str, str]:
    """Ask for the values that are missing, at a terminal."""
    if not sys.stdin.isatty():
        return values
    return values | {name: click.prompt(text, type=str) for name, text in questions.items()}


@centre.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@_SET
@_JSON
def check(files: tuple[Path, ...], settings: tuple[str, ...], as_json: bool) -> None:
    """Check profile FILES; touches nothing.

    Reports every problem with its line: keys, values, names that do not fit together, variables.
    """
    from matcompute.centres.registry import check_file

    found = [check_file(file, _values(settings)) for file in files]
    if as_json:
        click.echo(json.dumps([item.to_dict() for item in found], indent=2, ensure_ascii=False))
    else:
        for item in found:
            click.echo(str(item), err=not item.ok)
    if not all(item.ok for item in found):
        sys.exit(2)


@centre.command()
def schema() -> None:
    """Print the JSON Schema of profiles, for editors and other programs."""
    from matcompute.centres.schema import schema_text

    click.echo(schema_text(), nl=False)


@centre.command()
@_FILE
@_SET
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
def register(file: Path, settings: tuple[str, ...], dry_run: bool) -> None:
    """Register the centre described in FILE, or replace its profile.

    Values of its variables are asked for at a terminal. What changes is shown; jobs that run go on.
    """
    from matcompute.centres.registry import add, questions
    from matcompute.centres.tables import registration_lines

    workspace = _find()
    values = _values(settings)
    values = _ask(questions(workspace, file, values), values)
    done = add(workspace, file, values, dry_run=dry_run)
    for line in registration_lines(done, dry_run=dry_run):
        click.echo(line)
    if not dry_run:
        click.echo(f"examine it: matcompute centre doctor {done.centre.id}")


@centre.command()
@click.argument("name")
@_SET
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
def update(name: str, settings: tuple[str, ...], dry_run: bool) -> None:
    """Take over changes of the registered profile of centre NAME (centres/NAME.yaml), or other --set values."""
    from matcompute.centres.registry import add, require_profile
    from matcompute.centres.tables import registration_lines

    workspace = _find()
    done = add(workspace, require_profile(workspace, name), _values(settings), dry_run=dry_run)
    for line in registration_lines(done, dry_run=dry_run):
        click.echo(line)


@centre.command(name="list")
@_JSON
def list_(as_json: bool) -> None:
    """List the centres of this workspace."""
    from matcompute.centres.registry import load_centres
    from matcompute.centres.tables import centres_table

    centres = load_centres(_find())
    if as_json:
        click.echo(
            json.dumps([one.model_dump(mode="json", by_alias=True) for one in centres.values()], indent=2)
        )
        return
    _console().print(centres_table(centres))


@centre.command()
@click.argument("name")
@_JSON
def show(name: str, as_json: bool) -> None:
    """Show centre NAME: partitions, codes, projects, limits."""
    from matcompute.centres.registry import load_centre
    from matcompute.centres.tables import centre_lines, partition_table

    found = load_centre(_find(), name)
    if as_json:
        click.echo(json.dumps(found.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False))
        return
    for key, value in centre_lines(found):
        click.echo(f"{key:<10} {value}")
    _console().print(partition_table(found))


@centre.command()
@click.argument("name")
@click.option("--filled", is_flag=True, help="With the values of its variables put in.")
def export(name: str, filled: bool) -> None:
    """Print the profile of centre NAME as a file for another workspace."""
    from matcompute.centres.registry import export_text

    click.echo(export_text(_find(), name, filled=filled), nl=False)


@centre.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Also while it has jobs; they are left behind.")
@click.confirmation_option("--yes", prompt="Forget this centre?")
def remove(name: str, force: bool) -> None:
    """Forget centre NAME: no new jobs, no login. Results and provenance stay."""
    from matcompute.centres.registry import remove as forget

    left = forget(_find(), name, force=force)
    click.echo(f"centre '{name}' is removed" + (f"; {left} jobs are left behind" if left else ""))


@centre.command()
@click.argument("target", metavar="CENTRE")
@_SET
@click.option("--fix", is_flag=True, help="Mend what is safe to mend.")
@click.option("--only", multiple=True, metavar="STEP", help="Only this step (may be repeated).")
@click.option(
    "--smoke-timeout",
    type=click.FloatRange(1),
    default=300.0,
    show_default=True,
    help="Seconds to wait for the smoke jobs.",
)
@_JSON
def doctor(
    target: str,
    settings: tuple[str, ...],
    fix: bool,
    only: tuple[str, ...],
    smoke_timeout: float,
    as_json: bool,
) -> None:
    """Examine CENTRE: a registered one, or a profile file.

    \b
    Steps: schema, login, limits, storage, codes, smoke (a real job in each partition), account.
    Each fault is named and its fix shown. Exit status: 0 ready, 1 not.
    --fix makes the jobs' folder, gives you the right to write in it, removes sockets of dead
    connections, and lowers the profile's limits to the live ones.
    """
    report = _examine(
        target, settings, fix, only, smoke_timeout, None if as_json else _print_step(_console())
    )
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
    else:
        from matcompute.centres.tables import verdict

        click.echo(verdict(report))
    if not report.ok:
        sys.exit(1)


def _examine(
    target: str,
    settings: tuple[str, ...],
    fix: bool,
    only: tuple[str, ...],
    smoke_timeout_s: float,
    on_step: _OnStep | None,
) -> DoctorReport:
    from matcompute.centres.doctor import examine, examine_file
    from matcompute.centres.registry import load_centre
    from matcompute.workspace import Workspace, WorkspaceError

    file = Path(target)
    steps = only or None
    if file.suffix in {".yaml", ".yml"} and file.is_file():
        try:
            workspace: Workspace | None = Workspace.find()
        except WorkspaceError:  # a profile can be examined before there is a workspace
            workspace = None
        return examine_file(
            workspace,
            file,
            _values(settings),
            fix=fix,
            only=steps,
            smoke_timeout_s=smoke_timeout_s,
            on_step=on_step,
        )
    workspace = Workspace.find()
    return examine(
        workspace,
        load_centre(workspace, target),
        fix=fix,
        only=steps,
        smoke_timeout_s=smoke_timeout_s,
        on_step=on_step,
    )


def _print_step(console: Console) -> _OnStep:
    from matcompute.centres.tables import step_lines

    def show_step(step: Step) -> None:
        for line in step_lines(step):
            console.print(line)

    return show_step


if TYPE_CHECKING:
    from collections.abc import Callable

    _OnStep = Callable[[Step], None]
