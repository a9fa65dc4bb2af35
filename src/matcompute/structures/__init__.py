"""Where a campaign's structures come from: sources, screening, elemental references.

Names are imported when first used, so that ``matcompute --help`` stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matcompute.structures.base import Reject, SourceBlock, SourceFile, SourceTable
    from matcompute.structures.ingestion import ingest
    from matcompute.structures.report import IngestReport
    from matcompute.structures.spec import StructuresSpec, iter_structures, source_files, source_name

__all__ = [
    "IngestReport",
    "Reject",
    "SourceBlock",
    "SourceFile",
    "SourceTable",
    "StructuresSpec",
    "ingest",
    "iter_structures",
    "source_files",
    "source_name",
]

_HOME = {
    "IngestReport": "report",
    "Reject": "base",
    "SourceBlock": "base",
    "SourceFile": "base",
    "SourceTable": "base",
    "StructuresSpec": "spec",
    "ingest": "ingestion",
    "iter_structures": "spec",
    "source_files": "spec",
    "source_name": "spec",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"matcompute.structures.{_HOME[name]}"), name)
    raise AttributeError(f"module 'matcompute.structures' has no attribute '{name}'")
