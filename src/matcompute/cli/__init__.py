"""The command line: one module per noun, no logic. Nouns are imported only when they are called."""

from __future__ import annotations

import os
import sys

from matcompute.cli._lazy import LazyGroup, run

__all__ = ["cli", "main"]


def _build() -> LazyGroup:
    import click

    import matcompute

    group = LazyGroup(
        name="matcompute",
        help="Screening campaigns over compute centres, with provenance, ending in HDF5 datasets.",
        context_settings={"help_option_names": ["-h", "--help"]},
        lazy={
            "init": ("matcompute.cli.workspace:init", "Make a workspace in a folder."),
            "workspace": (
                "matcompute.cli.workspace:workspace",
                "Look after the workspace and its AiiDA daemon.",
            ),
            "verdi": ("matcompute.cli.workspace:verdi", "Run AiiDA's verdi on this workspace's profile."),
            "campaign": ("matcompute.cli.campaign:campaign", "Check, plan, run and watch campaigns."),
            "describe": ("matcompute.cli.describe:describe", "Describe the structures of any file."),
            "centre": ("matcompute.cli.centre:centre", "Describe, register and examine compute centres."),
            "pseudo": (
                "matcompute.cli.pseudo:pseudo",
                "Install and check pseudopotentials of first-principles stages.",
            ),
            "dataset": (
                "matcompute.cli.dataset:dataset",
                "Look at, check, export, compare and trace datasets.",
            ),
            "publish": ("matcompute.cli.publish:publish", "Release signed, immutable versions of datasets."),
            "serve": ("matcompute.cli.serve:serve", "Serve what was released to platforms and the public."),
            "node": ("matcompute.cli.node:node", "Reports, audit, evidence and tokens of the node."),
            "pull": ("matcompute.cli.pull:pull", "Keep a verified copy of what nodes publish."),
        },
    )

    def choose_workspace(workspace: str | None) -> None:
        # Workspace.find reads it, and so does every process that a command starts.
        if workspace is not None:
            os.environ["MATCOMPUTE_WORKSPACE"] = workspace

    group.callback = choose_workspace
    group.params.append(
        click.Option(
            ["-w", "--workspace"],
            type=click.Path(file_okay=False),
            help="Folder of the workspace; else $MATCOMPUTE_WORKSPACE, else the one that holds this folder.",
        )
    )
    return click.version_option(matcompute.__version__, prog_name="matcompute")(group)


cli = _build()


def main() -> None:
    """Entry point of ``matcompute``."""
    sys.exit(run(cli))
