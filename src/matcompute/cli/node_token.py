"""``matcompute node token``: who may see more than the public."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from matcompute.cli._shared import print_json, publication_folder, publication_option

if TYPE_CHECKING:
    from matcompute.server.node import Node

__all__ = ["token"]


@click.group()
@publication_option("--publication")
@click.pass_context
def token(ctx: click.Context, publication: Path | None) -> None:
    """Make, list and revoke access tokens."""
    ctx.meta["publication"] = publication or ctx.meta.get("publication")


def _node() -> Node:
    from matcompute.server.node import Node

    node = Node(publication_folder(click.get_current_context().meta["publication"]))
    node.create_tables()
    return node


@token.command()
@click.argument("name")
@click.option("--tier", default="public", show_default=True, help="Highest tier that it opens.")
@click.option("--grade", default="general", show_default=True, help="Highest grade that it opens.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    help="read, receipts, metrics or admin; again for more. Default: read.",
)
@click.option("--dataset", "datasets", multiple=True, help="Only this dataset (its id); again for more.")
@click.option("--domain", "domains", multiple=True, help="Only datasets of this domain; again for more.")
@click.option("--days", type=float, default=365, show_default=True, help="How long it holds.")
@click.option(
    "--key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The receiver's keyring.json: only its current key may sign receipts. Else the first one used is kept.",
)
def create(
    name: str,
    tier: str,
    grade: str,
    scopes: tuple[str, ...],
    datasets: tuple[str, ...],
    domains: tuple[str, ...],
    days: float,
    key: Path | None,
) -> None:
    """Make a token for NAME and print it: it is shown only once."""
    from matcompute.publish.keys import Keyring
    from matcompute.server import tokens

    public_key = None if key is None else Keyring.read(key).current.public_key
    made = tokens.create(
        _node().engine,
        name,
        tier=tier,
        grade=grade,
        scopes=scopes or ("read",),
        days=days,
        public_key=public_key,
        datasets=datasets,
        domains=domains,
    )
    click.echo(made)


@token.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json: bool) -> None:
    """List all tokens; the secrets are stored nowhere."""
    from matcompute.server import tokens

    names = ("id", "name", "tier", "grade", "scopes", "products", "created", "expires", "revoked")
    rows = [{name: getattr(row, name) for name in names} for row in tokens.listing(_node().engine)]
    if as_json:
        print_json(rows)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*names, box=None, pad_edge=False)
    for row in rows:
        products = [one for kind in (row["products"] or {}).values() for one in kind]
        shown = {**row, "products": products or "all"}
        table.add_row(*(", ".join(v) if isinstance(v, list) else str(v or "") for v in shown.values()))
    Console(highlight=False).print(table)


@token.command()
@click.argument("token_id")
def revoke(token_id: str) -> None:
    """End a token at once; TOKEN_ID is its id, not the token."""
    from matcompute.server import tokens

    tokens.revoke(_node().engine, token_id)
    click.echo(f"{token_id} is revoked")
