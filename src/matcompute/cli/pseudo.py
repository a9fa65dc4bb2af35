"""``matcompute pseudo install|list|check``: families of pseudopotentials of the workspace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from matcompute_workflows.dft.pseudos import Family

__all__ = ["pseudo"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def pseudo() -> None:
    """Install, list and check families of pseudopotentials."""


def _load_profile() -> None:
    from matcompute.workspace import Workspace

    Workspace.find().load_profile()


def _as_dict(family: Family) -> dict[str, Any]:
    return {
        "name": family.name,
        "default": family.default,
        "source": family.source,
        "functional": family.functional,
        "potentials": {symbol: vars(item) for symbol, item in family.potentials.items()},
    }


@pseudo.command()
@click.argument("source")
@click.option("--name", help="Name of the family; by default that of the folder or set.")
@click.option(
    "--cutoffs",
    "cutoffs_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML file: symbol → [wavefunctions, density] in Ry, in place of what the files recommend.",
)
@click.option("--functional", default="", help="For the record, such as PBE.")
@click.option("--default", "is_default", is_flag=True, help="Use it where a campaign names no family.")
@_JSON
def install(
    source: str, name: str | None, cutoffs_file: Path | None, functional: str, is_default: bool, as_json: bool
) -> None:
    """Install a family from SOURCE: a folder or archive of UPF files, or a known set (debian-qe).

    One file an element. Published families (SSSP, PseudoDojo) are downloaded by aiida-pseudo itself:
    matcompute verdi run $(which aiida-pseudo) install sssp.
    """
    from matcompute.yamlfile import load_yaml
    from matcompute_workflows.dft.pseudos import install as install_family

    _load_profile()
    cutoffs = {} if cutoffs_file is None else load_yaml(cutoffs_file).data
    family = install_family(source, name=name, cutoffs=cutoffs, default=is_default, functional=functional)
    if as_json:
        click.echo(json.dumps(_as_dict(family), indent=2))
        return
    click.echo(f"installed {family.name}: {', '.join(family.potentials)}")
    guessed = [symbol for symbol, item in family.potentials.items() if item.cutoff_source == "guessed"]
    if guessed:
        click.echo(
            f"guessed   the cutoffs of {', '.join(guessed)}, whose files recommend none; give them with --cutoffs"
        )


@pseudo.command("list")
@_JSON
def list_(as_json: bool) -> None:
    """List the families, with the elements that they cover."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from matcompute_workflows.dft.pseudos import families, known_sets

    _load_profile()
    found = families()
    if as_json:
        click.echo(json.dumps([_as_dict(family) for family in found], indent=2))
        return
    if not found:
        click.echo("no family is installed; known sets: " + ", ".join(known_sets()))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("family", "functional", "elements", "from"):
        table.add_column(title)
    for family in found:
        table.add_row(
            family.name + (" (default)" if family.default else ""),
            family.functional or "–",
            " ".join(family.potentials),
            family.source,
        )
    Console(highlight=False, soft_wrap=True).print(table)


@pseudo.command()
@click.argument("what", nargs=-1)
@click.option("--family", "name", help="The family; by default the workspace's.")
@_JSON
def check(what: tuple[str, ...], name: str | None, as_json: bool) -> None:
    """Check a family: its files are what was installed, and it covers WHAT (symbols, or campaign files).

    Exit status 1 if something is wrong.
    """
    from matcompute.campaign.potentials import elements_of
    from matcompute_workflows.dft.check import check_family

    _load_profile()
    result = check_family(name, elements_of(what))
    if as_json:
        click.echo(json.dumps(result.as_dict(), indent=2))
    else:
        for line in result.lines():
            click.echo(line)
    if not result.ok:
        raise click.exceptions.Exit(1)
