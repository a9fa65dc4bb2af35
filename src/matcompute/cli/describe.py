"""``matcompute describe``: descriptors of any file of structures, with no campaign."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from matcompute.describing import Description

__all__ = ["describe"]


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="FILE... [KEY=VALUE,...]")
@click.option(
    "--soap", metavar="KEY=VALUE,...", help="SOAP with these parameters, such as r_cut=5,n_max=8,l_max=6."
)
@click.option(
    "--descriptor", metavar="NAME", help="Another descriptor; its parameters are arguments KEY=VALUE,..."
)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="The dataset to write.")
@click.option("--in-place", is_flag=True, help="Add to the dataset FILE.")
@click.option("--name", help="Name of the descriptor in the file (by default the descriptor's).")
@click.option(
    "--driver",
    type=click.Choice(["serial", "threads", "mpi", "dask"]),
    help="How to spread it; by default threads, under mpiexec mpi.",
)
@click.option("--processes", type=click.IntRange(1), help="Threads, ranks or workers; by default one a core.")
@click.option(
    "--chunk", type=click.IntRange(1), default=256, show_default=True, help="Structures of a checkpoint."
)
@click.option(
    "--overwrite", is_flag=True, help="Replace a descriptor of this name, or an output with other structures."
)
@click.option(
    "--pilots",
    metavar="PROFILE",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Spread it over pilots, jobs of this centre: on its login node.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def describe(
    arguments: tuple[str, ...],
    soap: str | None,
    descriptor: str | None,
    pilots: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Describe the structures of FILE (a dataset, or any file that ASE or pymatgen reads) and write a dataset.

    \b
    matcompute describe crystals.extxyz --soap r_cut=5,n_max=8,l_max=6
    matcompute describe al.h5 --in-place --descriptor rdf r_cut=8
    matcompute describe *.cif -o all.h5 --descriptor magpie
    matcompute describe big.h5 --in-place --soap r_cut=5,n_max=8,l_max=6 --pilots hpc.yaml

    `matcompute describe descriptors` lists them, `matcompute describe soap` the parameters of one. A call that was
    interrupted continues when it is given again.
    """
    from matcompute.describing import describe_files, split_arguments
    from matcompute.node.descriptors import descriptor_names

    files, settings = split_arguments(arguments)
    words = [str(file) for file in files]
    if soap is None and descriptor is None and len(words) == 1 and not files[0].exists():
        if words[0] == "descriptors":
            _print_descriptors(as_json)
            return
        if words[0] in descriptor_names():
            _print_parameters(words[0], as_json)
            return
    if (soap is None) == (descriptor is None):
        raise click.UsageError("give --soap KEY=VALUE,... or --descriptor NAME")
    if soap is not None:
        settings = [soap, *settings]
    with ExitStack() as stack:
        if pilots is not None:
            from matcompute.centres.pilots import pilots_of

            if options["driver"] not in (None, "dask"):
                raise click.UsageError("--pilots are Dask's: leave --driver out")
            options |= {"driver": "dask", "cluster": stack.enter_context(pilots_of(pilots, _echo))}
        found = describe_files(files, descriptor or "soap", settings, **options)
    if found is None:
        return
    if as_json:
        content = {**asdict(found), "path": str(found.path), "rejects": [r.as_dict() for r in found.rejects]}
        click.echo(json.dumps(content, indent=1))
    else:
        _print_found(found)


def _echo(text: str) -> None:
    click.echo(text, err=True)


def _print_found(found: Description) -> None:
    report = found.report
    computed = report["n_structures"]
    size = found.path.stat().st_size
    per = (
        "a row per site, blocks by species pair"
        if report["layout"] == "block-sparse"
        else f"a row per {report['per']}"
    )
    click.echo(f"{found.path}: /descriptors/{report['descriptor']}, {report['n_features']:,} features, {per}")
    seconds, new = report["wall_s"], report["n_computed"] > 0 and not report["n_reused"]
    rate = f", {computed / seconds:,.0f}/s" if seconds > 0 and new else ""
    reused = (
        f" ({report['n_reused']} of {report['n_chunks']} chunks were done before)"
        if report["n_reused"]
        else ""
    )
    click.echo(f"{computed:,} entries in {seconds:.1f} s{rate}{reused}; file {size / 1e6:.1f} MB")
    if report["problems"]:
        click.echo(
            f"{len(report['problems'])} could not be described (see /descriptors/{report['descriptor']}_status):"
        )
        for row, text in list(report["problems"].items())[:5]:
            click.echo(f"  entry {row}: {text}")
        if len(report["problems"]) > 5:
            click.echo("  …")
    if found.rejects:
        click.echo(f"{len(found.rejects)} could not be read:")
        for reject in found.rejects[:5]:
            click.echo(f"  {reject.source}:{reject.line}: {reject.reason}")
        if len(found.rejects) > 5:
            click.echo("  …")


def _print_descriptors(as_json: bool) -> None:
    from matcompute.node.descriptors import descriptor_adapter, descriptor_names

    rows = {name: descriptor_adapter(name).title for name in descriptor_names()}
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    _print_grid(list(rows.items()))


def _print_parameters(name: str, as_json: bool) -> None:
    from matcompute.node.descriptors import descriptor_adapter
    from matcompute.node.settings import parameter_rows

    adapter = descriptor_adapter(name)
    if as_json:
        click.echo(json.dumps(adapter.Parameters.model_json_schema(), indent=1))
        return
    click.echo(f"{adapter.title} ({adapter.definition})")
    _print_grid(parameter_rows(adapter))


def _print_grid(rows: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for row in rows:
        table.add_row(*map(escape, row))
    Console(highlight=False).print(table)
