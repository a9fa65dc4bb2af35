"""What a benchmark says of the machine: the processor, never a name."""

from __future__ import annotations

import os
import platform
from pathlib import Path

__all__ = ["machine"]

_SIMD = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "sse2": "SSE2"}


def machine(**more: object) -> dict[str, object]:
    """Describe the machine: processor, vectors, cores that this process may use, system, Python, what else is given.

    The vectors tell processors of one name apart.
    """
    about = _cpuinfo()
    flags = about.get("flags", "").split()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": about.get("model name") or platform.processor() or platform.machine(),
        "simd": next((name for flag, name in _SIMD.items() if flag in flags), ""),
        "cores": cores,
        "system": platform.system(),
        "python": platform.python_version(),
        **more,
    }


def _cpuinfo() -> dict[str, str]:
    """Return what Linux says of the first processor; nothing elsewhere."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
