"""What several nouns of the command line share: the publication, its store, and JSON as output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

__all__ = ["print_json", "publication_folder", "publication_option", "store_option"]

store_option = click.option(
    "--store",
    envvar="MATCOMPUTE_STORE",
    help="Another place of the store, else $MATCOMPUTE_STORE: a folder or a URL (s3://bucket/prefix).",
)


def publication_option(*names: str) -> Any:
    """Return the option that names a publication's folder; `publication_folder` completes it."""
    return click.option(
        "-d",
        *names,
        type=click.Path(path_type=Path),
        envvar="MATCOMPUTE_PUBLICATION",
        help="Folder of keys, store and events; else $MATCOMPUTE_PUBLICATION, else publication/ in the workspace.",
    )


def publication_folder(given: Path | None) -> Path:
    """Return the folder of the publication: what was given, else that of the workspace."""
    if given is not None:
        return given
    from matcompute.workspace import Workspace

    return Workspace.find().root / "publication"


def print_json(value: Any) -> None:
    """Print a value as JSON for programs that read it, and for people."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))
