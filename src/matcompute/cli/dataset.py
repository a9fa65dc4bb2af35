"""``matcompute dataset``: look at, check, export, compare, merge and trace dataset files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from matcompute.cli._shared import print_json

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["dataset"]

_FILE = click.Path(path_type=Path)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def dataset() -> None:
    """Look at, check, export, compare and trace datasets (matcompute dataset v1, HDF5)."""


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


def _print_json(value: Any) -> None:
    print_json(_clean(value))  # NaN is not JSON


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return None if isinstance(value, float) and value != value else value


@contextmanager
def _progress(text: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@dataset.command()
@click.argument("file", type=_FILE)
@_json
def info(file: Path, as_json: bool) -> None:
    """Show what FILE holds: metadata, columns with units, ranges and statuses, selections."""
    from matcompute.dataset import Dataset, summarize

    with Dataset(file) as ds:
        summary = summarize(ds)
    if as_json:
        _print_json(summary)
        return
    from matcompute.cli._dataset_view import print_summary

    print_summary(_console(), summary)


@dataset.command()
@click.argument("file", type=_FILE)
@click.option("--release", is_flag=True, help="Apply also the rules for a release.")
@click.option("--limit", default=20, show_default=True, help="Rows printed for each dataset and rule.")
@_json
@click.pass_context
def validate(ctx: click.Context, file: Path, release: bool, limit: int, as_json: bool) -> None:
    """Check FILE against the format; name the dataset and row of each violation. Exit code 1 if there is one."""
    from matcompute.dataset import validate_dataset

    with _progress("checking") as advance:
        violations = validate_dataset(file, release=release, limit=limit, on_progress=advance)
    if as_json:
        _print_json({"valid": not violations, "violations": [v.to_json() for v in violations]})
    else:
        for violation in violations:
            click.echo(str(violation))
        click.echo(f"{file.name}: " + (f"{len(violations)} violation(s)" if violations else "valid"))
    ctx.exit(1 if violations else 0)


@dataset.command()
@click.argument("file", type=_FILE)
@click.argument("out", type=_FILE)
@click.option(
    "--format", "kind", help="extxyz, cif, csv, parquet, ase-db or npz; told from the suffix of OUT."
)
@click.option("--selection", help="Only the entries that passed this gate.")
@click.option("--descriptor", metavar="NAME", help="A descriptor to take along (npz: the only content).")
@click.option("--overwrite", is_flag=True, help="Replace OUT.")
def export(
    file: Path, out: Path, kind: str | None, selection: str | None, descriptor: str | None, overwrite: bool
) -> None:
    """Write the entries of FILE to OUT in another format."""
    from matcompute.dataset import Dataset, export_dataset

    with Dataset(file) as ds, _progress("exporting") as advance:
        n = export_dataset(
            ds,
            out,
            kind,
            selection=selection,
            descriptor=descriptor,
            overwrite=overwrite,
            on_progress=advance,
        )
    click.echo(f"{n} entries → {out}")


@dataset.command()
@click.argument("old", type=_FILE)
@click.argument("new", type=_FILE)
@click.option("--rtol", default=0.0, show_default=True, help="Relative tolerance.")
@click.option(
    "--atol", default=1e-8, show_default=True, help="Absolute tolerance, in the unit of each column."
)
@click.option("--ignore", multiple=True, metavar="PROPERTY", help="Leave a property out (may be repeated).")
@_json
@click.pass_context
def diff(
    ctx: click.Context, old: Path, new: Path, rtol: float, atol: float, ignore: tuple[str, ...], as_json: bool
) -> None:
    """Compare two datasets entry by entry. Exit code 1 if they differ."""
    from matcompute.dataset import Dataset, diff_datasets

    with Dataset(old) as a, Dataset(new) as b:
        difference = diff_datasets(a, b, rtol=rtol, atol=atol, ignore=ignore)
    if as_json:
        _print_json(difference.to_json())
    else:
        from matcompute.cli._dataset_view import print_difference

        print_difference(_console(), difference)
    ctx.exit(0 if difference.equal else 1)


@dataset.command()
@click.argument("file", type=_FILE)
@click.argument("entry")
@click.argument("property", metavar="PROPERTY")
@_json
def trace(file: Path, entry: str, property: str, as_json: bool) -> None:
    """Walk the number PROPERTY of ENTRY back to code, model, computer and source file."""
    from matcompute.dataset import Dataset, trace_value

    with Dataset(file) as ds:
        steps = trace_value(ds, entry, property)
    if as_json:
        _print_json([step.to_json() for step in steps])
        return
    from matcompute.cli._dataset_view import print_trace

    print_trace(_console(), steps)


@dataset.command()
@click.argument("out", type=_FILE)
@click.argument("inputs", type=_FILE, nargs=-1, required=True)
@click.option(
    "--duplicates",
    type=click.Choice(["error", "first", "last"]),
    default="error",
    show_default=True,
    help="What to do with an entry id that occurs again.",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT.")
def merge(out: Path, inputs: tuple[Path, ...], duplicates: Any, overwrite: bool) -> None:
    """Join the entries of INPUTS into the new file OUT."""
    from matcompute.dataset import merge_datasets

    with _progress("merging") as advance:
        n = merge_datasets(inputs, out, duplicates=duplicates, overwrite=overwrite, on_progress=advance)
    click.echo(f"{n} entries → {out}")


@dataset.command()
@click.argument("file", type=_FILE)
@click.argument("entry", required=False)
@click.option("--columns", help="Columns of the table, separated by commas.")
@click.option("--sort", metavar="COLUMN", help="Sort by a column (-COLUMN: largest first).")
@click.option("--selection", help="Only the entries that passed this gate.")
@click.option("-n", "--rows", "count", default=20, show_default=True, help="Rows of the table.")
@_json
def show(
    file: Path,
    entry: str | None,
    columns: str | None,
    sort: str | None,
    selection: str | None,
    count: int,
    as_json: bool,
) -> None:
    """Show a table of the entries of FILE, or one ENTRY in full."""
    from matcompute.cli import _dataset_view as view
    from matcompute.dataset import Dataset

    with Dataset(file) as ds:
        if entry is not None:
            found = ds[entry]
            if as_json:
                _print_json(view.entry_json(found))
            else:
                view.print_entry(_console(), found, ds)
            return
        from matcompute.dataset.listing import list_rows

        table = list_rows(
            ds, columns=columns.split(",") if columns else None, sort=sort, selection=selection, n=count
        )
    if as_json:
        _print_json(table.to_json())
    else:
        view.print_table(_console(), table)
