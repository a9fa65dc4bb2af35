"""What a benchmark says of the machine: the processor, never a name."""

from __future__ import annotations

import os
import platform
from pathlib import Path

__all__ = ["machine"]


def machine(**more: object) -> dict[str, object]:
    """Describe the machine: processor, cores that this process may use, system, Python, and what else is given."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": _cpu(),
        "cores": cores,
        "system": platform.system(),
        "python": platform.python_version(),
        **more,
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
