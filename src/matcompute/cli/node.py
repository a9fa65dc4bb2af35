"""``matcompute node``: the duties of a node, its audit and its tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from matcompute.cli._lazy import LazyGroup
from matcompute.cli._progress import stages
from matcompute.cli._shared import print_json, publication_folder, publication_option, store_option

if TYPE_CHECKING:
    from matcompute.server.duties.period import Period
    from matcompute.server.node import Node

__all__ = ["node"]

_PATH = click.Path(path_type=Path)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_period = click.option(
    "--period", help="2026, 2026-Q3, 2026-03 or 2026-03-01..2026-03-15 (UTC); this month by default."
)


@click.group(
    cls=LazyGroup,
    lazy={
        "audit": ("matcompute.cli.node_audit:audit", "Check and read the audit."),
        "token": ("matcompute.cli.node_token:token", "Make, list and revoke access tokens."),
    },
)
@publication_option("--publication")
@store_option
@click.pass_context
def node(ctx: click.Context, publication: Path | None, store: str | None) -> None:
    """Reports, audit, evidence, tokens, and moving to another node."""
    ctx.meta["publication"], ctx.meta["store"] = publication, store


def open_node() -> Node:
    """Return the node that the command line names; there must be one."""
    from matcompute.errors import InputError
    from matcompute.publish.release import Publication
    from matcompute.server.node import Node

    meta = click.get_current_context().meta
    folder = publication_folder(meta["publication"])
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist", hint="name the publication: matcompute node -d FOLDER …")
    return Node(Publication(folder, meta["store"]))


def period_of(text: str | None) -> Period:
    """Return a period from its text; this month by default."""
    from matcompute.server.duties.period import Period

    return Period.parse(text) if text else Period.this_month()


@node.command()
@_period
@click.option("-o", "--out", type=_PATH, help="Write it to this file, signed (FILE and FILE.sig).")
@_json
def kpi(period: str | None, out: Path | None, as_json: bool) -> None:
    """Report volume, quality, uptime, use and receipts of a period."""
    from matcompute.server.duties.kpi import markdown, report
    from matcompute.server.duties.statement import key_of, write_statement

    made = open_node()
    numbers = report(made, period_of(period))
    if out is not None:
        write_statement("kpi", numbers, out, key_of(made.publication.keys))
        click.echo(f"report of {numbers['period']['begin']} to {numbers['period']['end']} → {out}")
    elif as_json:
        print_json(numbers)
    else:
        click.echo(markdown(numbers), nl=False)


@node.command()
@_period
@_json
@click.pass_context
def alerts(ctx: click.Context, period: str | None, as_json: bool) -> None:
    """List alerts of a period. Exit code 1 if there are any."""
    from matcompute.server.duties.kpi import audit_of

    span = period_of(period)
    found = [e.data for e in audit_of(open_node()).entries(since=span.begin, until=span.end, kinds=["alert"])]
    if as_json:
        print_json(found)
    else:
        for alert in found:
            click.echo(f"{alert['at']}  {alert['message']!a}")
        click.echo(f"{len(found)} alert(s)")
    ctx.exit(1 if found else 0)


@node.command()
@_period
@_json
def usage(period: str | None, as_json: bool) -> None:
    """Show what members used in a month, by tier of the data."""
    from matcompute.server.duties.kpi import audit_of

    month = period_of(period).begin[:7]
    rows = audit_of(open_node()).usage(period=month)
    if as_json:
        print_json(rows)
        return
    for row in rows:
        who = row["principal"] or "(public)"
        click.echo(
            f"{month}  {who!r:24}  {row['tier']:9}  {row['requests']:>10,} requests  {row['bytes']:>16,} bytes"
        )
    click.echo(f"{len(rows)} row(s)")


@node.command()
@click.argument("out", type=_PATH)
@_period
@click.option(
    "--documents",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of your own documents, in folders named by item: 6.1, 7.2 …",
)
def dcmm(out: Path, period: str | None, documents: Path | None) -> None:
    """Write evidence for an assessment after GB/T 36073-2018 into the folder OUT."""
    from matcompute.server.duties.dcmm import export_evidence

    index = export_evidence(open_node(), out, period_of(period), documents)
    states = [item["state"] for item in index["items"]]
    click.echo(f"{len(states)} items: {states.count('open')} open → {out / 'index.md'}")


@node.group()
def incident() -> None:
    """Write and check the file of an incident."""


@incident.command("export")
@click.argument("out", type=_PATH)
@_period
@click.option("--description", required=True, help="What happened.")
@click.option("--severity", default="medium", show_default=True, help="low, medium, high or critical.")
@click.option("--member", help="Show only the records of this member …")
@click.option("--address", help="… or of this address …")
@click.option("--dataset", help="… or of this dataset.")
def incident_export(
    out: Path,
    period: str | None,
    description: str,
    severity: str,
    member: str | None,
    address: str | None,
    dataset: str | None,
) -> None:
    """Write the signed ZIP file OUT: what happened, and the audit's part that shows it."""
    from matcompute.server.duties.incident import export_incident

    said = export_incident(
        open_node(),
        out,
        period_of(period),
        description,
        severity=severity,
        principal=member,
        address=address,
        dataset_id=dataset,
    )
    part = said["audit"]
    click.echo(f"records {part['first']} to {part['last']}, {part['shown']} shown → {out}")


@incident.command("check")
@click.argument("file", type=_PATH)
@click.option("--trust", multiple=True, help="Key id of the node that you trust.")
def incident_check(file: Path, trust: tuple[str, ...]) -> None:
    """Check signature and chain of an incident FILE."""
    from matcompute.server.duties.incident import check_incident

    said = check_incident(file, list(trust) or None)
    click.echo(f"{said['node']}: {said['description']!r}: all is well")


@node.command("export")
@click.argument("out", type=_PATH)
@click.option(
    "--successor",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="keyring.json of the node that takes over: this node's key signs that its key follows.",
)
def export(out: Path, successor: Path | None) -> None:
    """Write all that was published, and its records, into the folder OUT (a BagIt bag)."""
    from matcompute.publish.keys import Keyring
    from matcompute.server.duties.leaving import export_node

    follows = Keyring.read(successor) if successor else None
    with stages() as show:
        said = export_node(open_node(), out, successor=follows, progress=show)
    click.echo(
        f"{said['datasets']} dataset(s), {said['versions']} version(s), {len(said['files'])} files → {out}"
    )
    click.echo(f"content {said['content_sha256']}")


@node.command("import")
@click.argument("export", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--trust", multiple=True, help="Key id of the old node that you know by another way.")
def import_(export: Path, trust: tuple[str, ...]) -> None:
    """Make an empty node the holder of what is in the folder EXPORT."""
    from matcompute.server.duties.arriving import import_node

    meta = click.get_current_context().meta
    folder = publication_folder(meta["publication"])
    with stages() as show:
        said = import_node(export, folder, store=meta["store"], trusted=trust, progress=show)
    click.echo(f"{said['datasets']} dataset(s), {said['versions']} version(s) of {said['node']} → {folder}")
    click.echo(f"content {said['content_sha256']}")
