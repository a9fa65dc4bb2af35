"""Live limits of Slurm, from sinfo, scontrol and sacctmgr; read from 22.05 up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from matcompute.centres.durations import parse_duration
from matcompute.centres.schedulers.live import LIVE_MARK, LiveLimits, LivePartition

__all__ = ["QUESTION", "parse_limits"]

_GB_OF_MB = 1024**2 / 1e9
#: States of nodes in which they start jobs, sooner or later; see the manual of sinfo.
_STARTS = ("idle", "mixed", "allocated", "completing", "planned", "reserved")
_ASSOCIATION = "Account,Partition,MaxJobs,MaxSubmit,GrpJobs,GrpSubmit,MaxWall,QOS"
_QOS = "Name,MaxWall,MaxJobsPU,MaxSubmitPU,GrpJobs,GrpSubmit"

# -e: nodes are only put together when they are equal, so that no number ends in '+'.
QUESTION = f"""\
command -v scontrol sinfo >/dev/null || {{ echo 'scontrol and sinfo are not on PATH' >&2; exit 127; }}
export SLURM_TIME_FORMAT=standard LC_ALL=C
echo '{LIVE_MARK}version'; sinfo --version
echo '{LIVE_MARK}config'; scontrol show config || exit 1
echo '{LIVE_MARK}partitions'; scontrol show partition -o || exit 1
echo '{LIVE_MARK}nodes'; sinfo -h -e -o '%R|%D|%c|%m|%G|%T|%a' || exit 1
echo '{LIVE_MARK}associations'
if sacctmgr -n -P show assoc user="$(id -un)" cluster="$(scontrol show config | awk '/^ClusterName/ {{print $3}}')" \\
  format={_ASSOCIATION} 2>/dev/null; then echo '{LIVE_MARK}qos'; sacctmgr -n -P show qos format={_QOS}; fi
true"""


def parse_limits(parts: Mapping[str, list[str]]) -> LiveLimits:
    """Read the sections of the answer to :data:`QUESTION`."""
    config = {}
    for line in parts["config"]:
        name, equals, value = line.partition("=")
        if equals:
            config[name.strip()] = value.strip()
    version = " ".join(parts.get("version", [])).removeprefix("slurm-wlm").removeprefix("slurm").strip()
    associations = [line.split("|") for line in parts.get("associations", []) if "|" in line]
    qos = {line.split("|")[0]: line.split("|") for line in parts.get("qos", []) if "|" in line}
    keeps_accounts = "slurmdbd" in config.get("AccountingStorageType", "") and "qos" in parts
    array = _count(config.get("MaxArraySize", ""))
    return LiveLimits(
        scheduler="slurm",
        version=version or config.get("SLURM_VERSION", ""),
        partitions={
            part.name: part for part in _partitions(parts["partitions"], parts["nodes"], associations, qos)
        },
        max_submit=_max_submit(config, associations, qos),
        max_array=None if array is None else array - 1,  # MaxArraySize is one more than the largest index
        accounts=tuple(sorted({row[0] for row in associations})) if keeps_accounts else None,
    )


def _partitions(
    lines: Iterable[str], nodes: Iterable[str], associations: list[list[str]], qos: Mapping[str, list[str]]
) -> Iterable[LivePartition]:
    groups: dict[str, list[list[str]]] = {}
    for line in nodes:
        name, *rest = line.split("|")
        groups.setdefault(name, []).append(rest)
    for line in lines:
        values = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if "PartitionName" not in values:
            continue
        name = values["PartitionName"]
        found = groups.get(name, [])
        states = [(int(count), state) for count, _, _, _, state, _ in found]
        gres = [_gres(text) for _, _, _, text, _, _ in found]
        accounts = values.get("AllowAccounts", "ALL")
        walls = [_time(values.get("MaxTime", ""))]
        walls += [_time(row[6]) for row in associations if row[1] in ("", name)]
        walls += [_time(qos[q][1]) for q in (values.get("QoS", ""),) if q in qos]
        limits = [wall for wall in walls if wall is not None]
        cpus = _count(values.get("MaxCPUsPerNode", ""))
        cores = max((int(count) for _, count, _, _, _, _ in found), default=None)
        yield LivePartition(
            name=name,
            nodes=int(values.get("TotalNodes", sum(count for count, _ in states))),
            nodes_up=sum(count for count, state in states if starts(state)),
            cores=cores if cpus is None or cores is None else min(cpus, cores),
            mem_gb=max((int(mb) * _GB_OF_MB for _, _, mb, _, _, _ in found), default=None),
            gpus=max((sum(names.values()) for names in gres), default=0),
            max_wall_s=min(limits, default=None),
            max_nodes=_count(values.get("MaxNodes", "")),
            state=values.get("State", "UP").lower(),
            up=values.get("State", "UP") == "UP",
            resources=tuple(sorted({resource for names in gres for resource in names})),
            accounts=None if accounts == "ALL" else tuple(accounts.split(",")),
        )


def starts(state: str) -> bool:
    """Whether nodes in a state of sinfo start jobs; marks for powering (~ # %) do no harm, ``*`` (no answer) does."""
    return re.sub(r"[~#!%$@^+-]+\Z", "", state.lower()) in _STARTS


def _gres(text: str) -> dict[str, int]:
    """GPUs of ``gpu:a100:4(S:0-1),gpu:2,shard:8``: name as in ``--gres`` → count."""
    found: dict[str, int] = {}
    for item in re.sub(r"\([^)]*\)", "", text).split(","):
        words = item.strip().split(":")
        if words[0] != "gpu":
            continue
        count = int(words[-1]) if len(words) > 1 and words[-1].isdigit() else 1
        kind = words[1] if len(words) > 1 and not words[1].isdigit() else ""
        found[f"gpu:{kind}" if kind else "gpu"] = found.get(f"gpu:{kind}" if kind else "gpu", 0) + count
    return found


def _max_submit(
    config: Mapping[str, str], associations: list[list[str]], qos: Mapping[str, list[str]]
) -> tuple[int, str] | None:
    """Return the least of the limits on jobs in the queue, with its name."""
    found: list[tuple[int, str]] = []
    everywhere = _count(config.get("MaxJobCount", ""))
    if everywhere is not None:
        found.append((everywhere, "MaxJobCount of the cluster"))
    for row in associations:
        if row[1]:
            continue  # of one partition alone
        for value, name in ((row[3], "MaxSubmitJobs"), (row[5], "GrpSubmitJobs")):
            count = _count(value)
            if count is not None:
                found.append((count, f"{name} of account {row[0]}"))
        for name in row[7].split(","):
            if name in qos:
                for value, label in ((qos[name][3], "MaxSubmitJobsPerUser"), (qos[name][5], "GrpSubmitJobs")):
                    count = _count(value)
                    if count is not None:
                        found.append((count, f"{label} of QOS {name}"))
    return min(found, default=None)


def _count(text: str) -> int | None:
    return int(text) if text.strip().isdigit() else None


def _time(text: str) -> float | None:
    """Return a limit in s; Slurm writes plain numbers in minutes, and words where there is none."""
    text = text.strip()
    if text.isdigit():
        return int(text) * 60.0 or None
    try:
        return parse_duration(text) if text[:1].isdigit() else None
    except ValueError:
        return None
