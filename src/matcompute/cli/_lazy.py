"""A click group that imports a sub-command when it is called, and prints our errors without a traceback."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

import click

from matcompute.errors import MatcomputeError, did_you_mean

__all__ = ["LazyGroup", "run"]


class LazyGroup(click.Group):
    """A group whose members are ``name → ("module:attribute", one line of help)``.

    The help line stands here so that ``--help`` of the parent imports nothing.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = dict(lazy or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        module, attribute = self.lazy[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            name = args[0] if args else ""
            if name.startswith("-"):
                raise
            raise click.UsageError(
                f"no command '{name}'{did_you_mean(name, self.list_commands(ctx))}", ctx
            ) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, text) for name, (_, text) in self.lazy.items()]
        for name in super().list_commands(ctx):
            command = super().get_command(ctx, name)
            if command is not None and not command.hidden:
                rows.append((name, command.get_short_help_str(limit=100)))
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


def run(command: click.Command) -> int:
    """Run a command and return its exit status; known errors go to stderr as ``error: …`` with a hint.

    Set ``MATCOMPUTE_TRACEBACK=1`` to see where an error came from.
    """
    try:
        # With standalone_mode off, click returns the code of ctx.exit() instead of raising.
        code = command.main(standalone_mode=False)
        return code if isinstance(code, int) else 0
    except MatcomputeError as error:
        if os.environ.get("MATCOMPUTE_TRACEBACK"):
            raise
        click.echo(click.style("error: ", fg="red", bold=True, reset=True) + str(error), err=True)
        return error.exit_code
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.Abort:
        click.echo("aborted", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
