"""What jobs of per-structure processes ask of a centre, and the folders that they leave there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from matcompute.centres import RegisteredCentre

__all__ = ["clean_folders", "job_options_for", "slot_lines"]


def job_options_for(
    centre: RegisteredCentre,
    *,
    partition: str | None,
    account: str | None,
    ranks: int,
    threads: int = 1,
    gpus: int = 0,
    memory_gb: float | None = None,
    walltime_s: float | None = None,
) -> dict[str, Any]:
    """Return ``metadata.options`` of the jobs of a per-structure process.

    Parameters
    ----------
    centre
        From :func:`matcompute.centres.register`.
    partition, account
        Where, and who is charged; None: the centre's default.
    ranks, threads, gpus
        MPI ranks (0: no MPI), threads of a rank, GPUs of the job.
    memory_gb, walltime_s
        Of the job; None leaves it to the centre.
    """
    from matcompute_workflows.builder import scheduler_options

    wanted = {
        "ranks": ranks,
        "processes": 1,
        "threads": threads,
        "gpus": gpus,
        "memory_gb": memory_gb,
        "walltime_s": walltime_s,
        "partition": partition,
        "account": account,
        "extra_directives": (),
    }
    options = scheduler_options(centre, wanted)
    lines = [f"export OMP_NUM_THREADS={threads}"]
    if centre.slots is not None:
        lines.append(slot_lines(centre.slots, max(1, ranks) * threads))
    options["prepend_text"] = "\n".join(lines)
    return options


def slot_lines(folder: Path, width: int) -> str:
    """Return shell lines that wait for core slots and hold them until the job's last process has ended.

    The locks are those of :class:`matcompute.node.slots.CoreSlots`: the kernel gives them back, however the job ends.
    All or none are taken, so wide jobs cannot block one another for ever. Where there is no ``flock`` the job starts
    at once.
    """
    return f"""\
if command -v flock >/dev/null 2>&1; then
  while :; do
    held=()
    for slot in '{folder}'/core-*; do
      exec {{fd}}<>"$slot"
      if flock -n "$fd"; then held+=("$fd"); else exec {{fd}}>&-; fi
      [ "${{#held[@]}}" -ge {width} ] && break 2
    done
    [ "${{#held[@]}}" -ge "$(ls '{folder}' | grep -c '^core-')" ] && break
    for fd in "${{held[@]}}"; do exec {{fd}}>&-; done
    sleep 0.0$((RANDOM % 9 + 1))
  done
fi"""


def clean_folders(processes: Sequence[str]) -> int:
    """Remove the working folders of all jobs of some processes at their centres; return how many.

    One connection for each computer, whatever the number of folders.
    """
    from aiida.orm import load_node

    from matcompute_workflows.dft.qe_outcome import jobs

    by_computer: dict[str, list[Any]] = {}
    for uuid in processes:
        for job in jobs(load_node(uuid)):
            if "remote_folder" in job.outputs and not job.base.caching.is_created_from_cache:
                folder = job.outputs.remote_folder
                if not folder.is_cleaned:
                    by_computer.setdefault(job.computer.uuid, []).append(folder)
    count = 0
    for folders in by_computer.values():
        with folders[0].get_authinfo().get_transport() as transport:
            for folder in folders:
                folder._clean(transport)
                count += 1
    return count
