"""``matcompute publish``: check, build, release, withdraw and regrade datasets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from matcompute.cli._progress import stages
from matcompute.cli._shared import print_json, publication_folder, publication_option, store_option

if TYPE_CHECKING:
    from matcompute.publish.release import Publication
    from matcompute.publish.terms import Terms

__all__ = ["publish"]

_PATH = click.Path(path_type=Path)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_reason = click.option("--reason", required=True, help="Why; the platform and its users see it.")
_limit = click.option(
    "--min-converged",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Fraction of entries that must have converged.",
)


def _terms(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that set the terms of a release; what is not given is taken from the files."""
    for option in reversed(
        [
            click.option(
                "--node", envvar="MATCOMPUTE_NODE", required=True, help="Name of the publishing node."
            ),
            click.option("--title", help="Title; else that of the files, and so on for the rest."),
            click.option("--description", help="A few sentences."),
            click.option("--domain", help="Domain of the platform."),
            click.option("--licence", help="SPDX licence expression."),
            click.option("--grade", help="general, important or core; never below that of a file."),
            click.option("--tier", help="public, or the member level that may have it."),
            click.option("--dataset-id", help="UUID of the dataset."),
            click.option("--keyword", "keywords", multiple=True, help="A word to find it by; repeatable."),
            click.option("--cstr", help="CSTR that the registry gave."),
            click.option("--doi", help="DOI that the registry gave."),
            click.option("--holder", help="Who holds the rights."),
            click.option("--project", help="Number of the project that paid for it."),
            click.option("--funder", help="Name of who paid for it."),
            click.option(
                "--funder-id", help="Address of the funder at ROR or in the Crossref Funder Registry."
            ),
            click.option("--embargo", help="Day (UTC, YYYY-MM-DD) before which it cannot be public."),
            click.option("--patent", "patents", multiple=True, help="Number of a patent; repeatable."),
        ]
    ):
        command = option(command)
    return command


@click.group()
@publication_option("--folder")
@store_option
@click.pass_context
def publish(ctx: click.Context, folder: Path | None, store: str | None) -> None:
    """Release signed, immutable versions of datasets that a platform can pull."""
    ctx.obj = (folder, store)


def _publication() -> Publication:
    from matcompute.publish.release import Publication

    folder, store = click.get_current_context().obj
    return Publication(publication_folder(folder), store)


def _read_terms(files: tuple[Path, ...], given: dict[str, Any]) -> Terms:
    from matcompute.publish.terms import terms_of

    return terms_of(list(files), given.pop("node"), **given)


@publish.command()
@click.option(
    "--rotate", is_flag=True, help="Replace the current key; both keys sign that the new one follows."
)
def keygen(rotate: bool) -> None:
    """Make the node's signing key (Ed25519)."""
    from matcompute.publish import keys

    folder = _publication().keys
    key = keys.rotate(folder) if rotate else keys.generate(folder)
    click.echo(f"key {key.key_id} in {folder}")
    click.echo(
        "Give keyring.json and this key id to the platform; keep a copy of the .pem file in a safe place."
    )


@publish.command()
@click.argument("files", type=_PATH, nargs=-1, required=True)
@_terms
@_limit
@_json
@click.pass_context
def check(
    ctx: click.Context, files: tuple[Path, ...], min_converged: float, as_json: bool, **given: Any
) -> None:
    """Put dataset FILES through the quality gates. Exit code 1 if one blocks."""
    from matcompute.publish.gates import Limits
    from matcompute.publish.gates import check as check_gates

    publication = _publication()
    terms = _read_terms(files, given)
    latest = publication.latest(terms.dataset_id)
    terms = terms.following(latest)
    with stages() as show:
        report = check_gates(
            list(files),
            terms,
            publication.events,
            version=latest.version + 1 if latest else 1,
            previous=latest,
            limits=Limits(min_converged, max(min_converged, Limits.warn)),
            progress=lambda done, total: show("checking", done, total),
        )
    if as_json:
        print_json(report.to_json())
    else:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        colours = {"passed": "green", "warning": "yellow", "blocked": "red"}
        table = Table("gate", "result", "finding", box=None, pad_edge=False)
        for f in report.findings:
            told = ": ".join(filter(None, (f.file, f.message)))
            text = Text(told + (f"\n→ {f.remedy}" if f.remedy and f.result != "passed" else ""))
            table.add_row(f.gate, Text(f.result, colours[f.result]), text)
        Console(highlight=False).print(table)
        click.echo("a release is blocked" if report.blocked else "a release is possible")
    ctx.exit(1 if report.blocked else 0)


@publish.command()
@click.argument("files", type=_PATH, nargs=-1)
@click.option("-o", "--out", type=_PATH, required=True, help="Folder to make.")
@click.option(
    "--campaign", help="Campaign of the workspace: its dataset and its AiiDA archive, instead of FILES."
)
@click.option("--archive", type=_PATH, help="AiiDA archive of the processes, to go into provenance/.")
@click.option("--tables", type=_PATH, help="Folder of the node's own mapping tables.")
@_terms
def build(
    files: tuple[Path, ...],
    out: Path,
    campaign: str | None,
    archive: Path | None,
    tables: Path | None,
    **given: Any,
) -> None:
    """Make the folder of the next version out of dataset FILES, or out of a campaign."""
    from contextlib import ExitStack

    from matcompute.publish.build import build as build_folder

    if bool(files) == bool(campaign) or (campaign and archive):
        raise click.UsageError("give dataset FILES (and --archive), or --campaign")
    publication = _publication()
    with ExitStack() as stack:
        if campaign:
            from matcompute.campaign.archive import exported
            from matcompute.workspace import Workspace

            dataset, archive = stack.enter_context(exported(Workspace.find(), campaign, out))
            files = (dataset,)
        terms = _read_terms(files, given)
        previous = publication.latest(terms.dataset_id)
        show = stack.enter_context(stages())
        made = build_folder(
            list(files), terms, out, previous=previous, archive=archive, tables_dir=tables, progress=show
        )
    size = sum(file.size for file in made.files)
    click.echo(
        f"{made.dataset_id} version {made.version}: {made.counts.entries:,} entries, {size:,} bytes → {out}"
    )


@publish.command()
@click.argument("folder", type=_PATH)
@click.option("--reason", default="", help="What is new in this version.")
@_limit
@_json
def release(folder: Path, reason: str, min_converged: float, as_json: bool) -> None:
    """Sign the FOLDER that `build` made and put it into the store."""
    from matcompute.publish.gates import Limits

    limits = Limits(min_converged, max(min_converged, Limits.warn))
    with stages() as show:
        event = _publication().release(folder, limits=limits, reason=reason, progress=show)
    _print_event(event, as_json)


def _print_event(event: Any, as_json: bool) -> None:
    if as_json:
        print_json(event.to_json())
        return
    version = "" if event.version is None else f" version {event.version}"
    click.echo(f"event {event.seq}: {event.op} {event.dataset_id}{version}, {event.grade}, {event.tier}")


@publish.command()
@click.argument("dataset_id")
@click.option("--version", type=int, help="Only this version.")
@_reason
@_json
def withdraw(dataset_id: str, version: int | None, reason: str, as_json: bool) -> None:
    """Withdraw a dataset, or one version; a tombstone stays in the feed, the content in the store."""
    _print_event(_publication().withdraw(dataset_id, reason, version=version), as_json)


@publish.command()
@click.argument("dataset_id")
@click.option("--grade", help="New grade.")
@click.option("--tier", help="New tier.")
@_reason
@_json
def regrade(dataset_id: str, grade: str | None, tier: str | None, reason: str, as_json: bool) -> None:
    """Give a dataset another grade or tier, for all its versions and at once."""
    _print_event(_publication().regrade(dataset_id, reason, grade=grade, tier=tier), as_json)


@publish.command("list")
@_json
def list_(as_json: bool) -> None:
    """List what was released, and what holds now."""
    found = _publication().describe()
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("nothing was released yet")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("dataset", "title", "versions", "grade", "tier", box=None, pad_edge=False)
    for item in found:
        versions = ", ".join(
            f"{v} (withdrawn)" if v in item["withdrawn"] else str(v) for v in item["versions"]
        )
        table.add_row(item["dataset_id"], item["title"], versions, item["grade"], item["tier"])
    Console(highlight=False).print(table)


@publish.command()
@click.argument("dataset_id", required=False)
@_json
@click.pass_context
def verify(ctx: click.Context, dataset_id: str | None, as_json: bool) -> None:
    """Check digests, chain, signatures and events of all that was released. Exit code 1 if something is wrong."""
    with stages() as show:
        problems = _publication().verify(dataset_id, lambda done, total: show("reading", done, total))
    if as_json:
        print_json({"valid": not problems, "problems": [vars(p) for p in problems]})
    else:
        for p in problems:
            version = "" if p.version is None else f" version {p.version}"
            click.echo(f"{p.dataset_id}{version}: {p.message}")
        click.echo(f"{len(problems)} problem(s)" if problems else "all is well")
    ctx.exit(1 if problems else 0)
