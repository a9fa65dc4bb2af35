"""``matcompute serve``: the node's server."""

from __future__ import annotations

from pathlib import Path

import click

from matcompute.cli._shared import publication_option, store_option

__all__ = ["serve"]


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port", default=8642, show_default=True, type=click.IntRange(0, 65535), help="0: any free one."
)
@publication_option("--publication")
@store_option
@click.option("--rebuild", is_flag=True, help="Make the index again from events and store first.")
@click.option(
    "--campaigns",
    is_flag=True,
    help="Show how far the workspace's campaigns are, each to those who may read its data.",
)
def serve(
    host: str, port: int, publication: Path | None, store: str | None, rebuild: bool, campaigns: bool
) -> None:
    """Serve what was released: pull protocol, OPTIMADE, OAI-PMH and pages. Stop it with Ctrl-C."""
    from matcompute.publish.release import Publication
    from matcompute.server.serve import run

    showcase = None
    if publication is None or campaigns:
        from matcompute.workspace import Workspace

        workspace = Workspace.find()
        publication = publication or workspace.root / "publication"
        if campaigns:
            from matcompute.campaign.showcase import Showcase

            showcase = Showcase(workspace.state_path)
    run(
        Publication(publication, store),
        host=host,
        port=port,
        rebuild=rebuild,
        campaigns=showcase,
        say=click.echo,
    )
