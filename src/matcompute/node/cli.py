"""The command line ``matcompute-node``; no logic, and nothing heavy is imported before a command runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

import matcompute
from matcompute.errors import MatcomputeError

__all__ = ["cli", "main"]


@click.group(
    help="Computes structures on a node of a compute centre.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(matcompute.__version__, prog_name="matcompute-node")
def cli() -> None:
    """Hold the commands."""


@cli.command()
@click.argument("task", type=click.Path(path_type=Path))
@click.option("--processes", type=click.IntRange(1), help="Worker processes (not under mpiexec).")
@click.option("--threads", type=click.IntRange(1), help="Threads of each worker.")
@click.option(
    "--walltime", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="Time the job has."
)
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="Time for one structure."
)
@click.option("--mpi/--no-mpi", default=None, help="Be a rank of an MPI job (found out from the launcher).")
@click.option("--slots", metavar="DIR", help="Folder of core slots that jobs on this machine share.")
@click.option(
    "--dry-run", is_flag=True, help="Check everything, print the estimate as JSON, compute nothing."
)
@click.option(
    "--collect", is_flag=True, help="Compute nothing: write the result shard from what the checkpoint holds."
)
def run(
    task: Path,
    processes: int | None,
    threads: int | None,
    walltime: float | None,
    timeout: float | None,
    mpi: bool | None,
    slots: str | None,
    dry_run: bool,
    collect: bool,
) -> None:
    """Compute the structures of TASK (a task.json), or continue from its checkpoint.

    \b
    Exit status: 0 every structure was attempted · 75 stopped early, run again to continue ·
    65 bad task file or shard · 66 model · 69 package missing · 73 cannot write · 70 internal error
    """
    from matcompute.node import runner

    overrides = {
        "processes": processes,
        "threads": threads,
        "walltime_s": walltime,
        "structure_timeout_s": timeout,
        "slots": None if slots is None else str(Path(slots).absolute()),
    }
    if dry_run:
        _print_json(runner.dry_run(task, overrides))
        return
    outcome = runner.run(task, overrides, mpi=mpi, collect=collect)
    if outcome.text and not outcome.quiet:
        label = "stopped: " if outcome.exit_code == 75 else "error: "
        click.echo(click.style(label, fg="red", bold=True) + outcome.text, err=True)
    sys.exit(outcome.exit_code)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Everything, for programs.")
def info(as_json: bool) -> None:
    """List the calculators and tasks that this installation has."""
    from matcompute.node.info import describe

    content = describe()
    if as_json:
        _print_json(content)
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("calculator", "version", "species", "functional", "model", "SHA-256", title="Calculators")
    for item in content["calculators"]:
        if not item["available"]:
            table.add_row(item["name"], "[red]not available[/]", "", "", item["error"], "")
            continue
        species = item["species"]
        shown = " ".join(species) if len(species) <= 12 else f"{len(species)} elements"
        digest = (item["model_sha256"] or "")[:12]
        table.add_row(
            item["name"], item["version"], shown, item.get("functional", ""), item["model"] or "", digest
        )
    console.print(table)
    table = Table("task", "what it does", "results", title="Tasks")
    for item in content["tasks"]:
        outputs = ", ".join(o["name"] for o in item.get("outputs", []))
        table.add_row(item["name"], item.get("title", item.get("error", "")), outputs)
    console.print(table)


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--kernel", required=True, metavar="NAME", help="Descriptor, such as soap.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE,…",
    help="Parameters, such as r_cut=5,n_max=8 or species=Al,Cu (may be repeated).",
)
@click.option("--name", help="Name of the descriptor in the file (by default the kernel's).")
@click.option(
    "--driver",
    type=click.Choice(["serial", "threads", "mpi", "dask"]),
    help="How to spread it (by default mpi under an MPI launcher, else threads).",
)
@click.option("--workers", type=click.IntRange(1), help="Threads, or processes of a local Dask cluster.")
@click.option("--scheduler", metavar="ADDRESS", help="Dask scheduler: address or scheduler file.")
@click.option(
    "--chunk", type=click.IntRange(1), default=256, show_default=True, help="Structures of a chunk."
)
@click.option("--overwrite", is_flag=True, help="Replace a descriptor of this name.")
@click.option(
    "--walltime", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="Time the job has."
)
def describe(file: Path, walltime: float | None, **options: Any) -> None:
    """Compute a descriptor of all structures of FILE (a dataset) and store it there; continues after a kill.

    \b
    Exit status: 0 done · 75 stopped early by walltime or a signal, run again to continue ·
    65 wrong parameter · 69 package missing · 73 cannot write
    """
    from matcompute.node.describe import run_describe

    result = run_describe(file, walltime_s=walltime, **options)
    if result is not None:
        _print_json(result)


@cli.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="All kernels (so it is without names, too).")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def warmup(names: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Compile the kernels, once for a centre, so that no job has to: all of them, or those named."""
    from matcompute.node.warmup import cache_folder, warm_up

    show = (lambda *_: None) if as_json else _print_warmed
    found = warm_up(() if everything else names, show)
    total, compiled = sum(item.seconds for item in found), sum(item.compiled for item in found)
    if as_json:
        from dataclasses import asdict

        kernels = [asdict(item) for item in found]
        _print_json(
            {"cache": str(cache_folder()), "compiled": compiled, "seconds": total, "kernels": kernels}
        )
        return
    click.echo(
        f"{len(found)} kernels in {total:.1f} s, {compiled} functions compiled; cache: {cache_folder()}"
    )


def _print_warmed(item: Any, done: int, total: int) -> None:
    what = f"{item.compiled} functions compiled" if item.compiled else "from the cache"
    click.echo(f"[{done:2}/{total}] {item.name:<22} {item.seconds:6.2f} s  {what}")


def _print_json(content: dict[str, Any]) -> None:
    import json

    click.echo(json.dumps(content, indent=1))


def _print_error(error: MatcomputeError) -> None:
    from matcompute.node.mpi import launcher_rank

    if launcher_rank() == 0:  # the other ranks have the same to say
        label = "stopped: " if error.exit_code == 75 else "error: "
        click.echo(click.style(label, fg="red", bold=True) + str(error), err=True)


def main() -> None:
    """Entry point of ``matcompute-node``."""
    try:
        cli.main(standalone_mode=False)
    except MatcomputeError as error:
        if os.environ.get("MATCOMPUTE_TRACEBACK"):
            raise
        _print_error(error)
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
