"""One job over processes: a kernel, a source of batches and a sink of arrays; same bytes from every driver.

>>> from matcompute_kernels.drivers import ArraySource, Job, NpyDirectorySink, run
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_WHERE = {
    "Chunk": "job",
    "DriverError": "job",
    "Job": "job",
    "Sink": "job",
    "Source": "job",
    "Summary": "job",
    "run": "job",
    "ArraySource": "source",
    "chunk_rows": "source",
    "AppendSink": "sink",
    "DirectorySink": "sink",
    "NpyDirectorySink": "sink",
    "merge_chunks": "sink",
    "Ragged": "ragged",
    "iter_ragged": "ragged",
    "run_dask": "dask",
    "run_mpi": "mpi",
    "run_serial": "serial",
    "run_threads": "threads",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
