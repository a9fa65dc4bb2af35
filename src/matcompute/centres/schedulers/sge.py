"""Live limits of Grid Engine, from qconf and qhost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree

from matcompute.centres.durations import parse_duration
from matcompute.centres.schedulers.live import LIVE_MARK, LiveLimits, LivePartition

__all__ = ["QUESTION", "parse_limits"]

_UNLIMITED = 999999
_UNITS = {"K": 1024.0, "M": 1024.0**2, "G": 1024.0**3, "T": 1024.0**4, "": 1.0}
#: States of a queue instance in which it starts no job: disabled, suspended, unknown, error, configuration, orphaned.
_OFF = re.compile("[dDsSuEcoC]")

QUESTION = f"""\
command -v qconf qhost >/dev/null || {{ echo 'qconf and qhost are not on PATH' >&2; exit 127; }}
export LC_ALL=C SGE_SINGLE_LINE=1
echo '{LIVE_MARK}version'; qhost -help 2>/dev/null | head -n 1
echo '{LIVE_MARK}config'; qconf -sconf || exit 1
echo '{LIVE_MARK}scheduler'; qconf -ssconf
echo '{LIVE_MARK}queues'; for q in $(qconf -sql); do qconf -sq "$q"; done
echo '{LIVE_MARK}environments'; for p in $(qconf -spl 2>/dev/null); do qconf -sp "$p"; done
echo '{LIVE_MARK}projects'; qconf -sprjl 2>/dev/null
echo '{LIVE_MARK}hosts'; qhost -q -xml || exit 1
true"""


def parse_limits(parts: Mapping[str, list[str]]) -> LiveLimits:
    """Read the sections of the answer to :data:`QUESTION`."""
    config = _pairs(parts["config"])
    submits = [
        (int(value), name)
        for name, value in (
            ("max_u_jobs of the configuration", config.get("max_u_jobs", "0")),
            ("max_jobs of the configuration", config.get("max_jobs", "0")),
        )
        if value.isdigit() and int(value)
    ]
    tasks = config.get("max_aj_tasks", "")
    environments = {item["pe_name"]: item for item in _blocks(parts.get("environments", []), "pe_name")}
    hosts = _hosts("\n".join(parts["hosts"]))
    partitions = {}
    for queue in _blocks(parts["queues"], "qname"):
        part = _partition(queue, hosts, environments)
        partitions[part.name] = part
    projects = tuple(word for line in parts.get("projects", []) for word in line.split())
    return LiveLimits(
        scheduler="sge",
        version=" ".join(parts.get("version", [])).strip(),
        partitions=partitions,
        max_submit=min(submits, default=None),
        max_array=int(tasks) if tasks.isdigit() and int(tasks) else None,
        accounts=projects or None,
    )


def _pairs(lines: list[str]) -> dict[str, str]:
    found = {}
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, value = line.strip().partition(" ")
        if name and not name.startswith("#"):
            found[name] = value.strip()
    return found


def _blocks(lines: list[str], first: str) -> list[dict[str, str]]:
    """Split several answers of qconf, each of which begins with the same key."""
    starts = [index for index, line in enumerate(lines) if line.split(" ", 1)[0] == first]
    return [_pairs(lines[begin:end]) for begin, end in zip(starts, [*starts[1:], len(lines)])]


def _hosts(text: str) -> list[tuple[float | None, dict[str, tuple[int, str]]]]:
    """Return for each host its memory in GB and its queues: name → (slots, state letters)."""
    found = []
    for host in ElementTree.fromstring(text).iter("host"):
        if host.get("name") == "global":
            continue
        memory = None
        for item in host.iter("hostvalue"):
            if item.get("name") == "mem_total":
                memory = _gb(item.text or "")
        queues = {}
        for queue in host.iter("queue"):
            values = {item.get("name", ""): (item.text or "") for item in queue.iter("queuevalue")}
            slots = values.get("slots", "0")
            queues[queue.get("name", "")] = (
                int(slots) if slots.isdigit() else 0,
                values.get("state_string", ""),
            )
        found.append((memory, queues))
    return found


def _partition(
    queue: Mapping[str, str],
    hosts: list[tuple[float | None, dict[str, tuple[int, str]]]],
    environments: Mapping[str, Mapping[str, str]],
) -> LivePartition:
    name = queue["qname"]
    mine = [(memory, *queues[name]) for memory, queues in hosts if name in queues]
    up = [slots for _, slots, state in mine if not _OFF.search(state)]
    states = sorted({state for _, _, state in mine if state})
    listed = re.sub(r"\[[^]]*\]", " ", queue.get("pe_list", "NONE")).replace(",", " ").split()
    listed += re.findall(r"=([^\]]*)\]", queue.get("pe_list", ""))
    names = {word for part in listed for word in part.split() if word != "NONE"}
    offered = tuple(
        sorted(pe for pe in names if int(environments.get(pe, {}).get("slots", _UNLIMITED) or 0) > 0)
    )
    return LivePartition(
        name=name,
        nodes=len(mine),
        nodes_up=len(up),
        cores=max((slots for _, slots, _ in mine), default=None),
        mem_gb=max((memory for memory, _, _ in mine if memory is not None), default=None),
        max_wall_s=_time(queue.get("h_rt", "")),
        state="up" if not states else f"up, some in state {', '.join(states)}" if up else ", ".join(states),
        up=bool(up),
        environments=offered,
    )


def _gb(text: str) -> float | None:
    match = re.fullmatch(r"([0-9.]+)([KMGT]?)", text.strip())
    return float(match[1]) * _UNITS[match[2]] / 1e9 if match else None


def _time(text: str) -> float | None:
    """Return a limit such as ``24:00:00``, ``86400`` or ``INFINITY`` in s; the first value counts."""
    first = text.split(",")[0].strip()
    if first.isdigit():
        return float(first) or None
    try:
        return parse_duration(first) if first[:1].isdigit() else None
    except ValueError:
        return None
