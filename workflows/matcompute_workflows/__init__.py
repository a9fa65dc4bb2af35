"""The AiiDA plugin of matcompute: shard data, the batch job, its parser and work chain, and the functions around it.

Names are imported when first used: importing this package imports no AiiDA (which would make a folder in the user's
home if no workspace was chosen before).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matcompute_workflows.batch import BatchCalculation
    from matcompute_workflows.builder import build_batch
    from matcompute_workflows.functions import apply_gate, ingest_structures, merge_campaign, take_rows
    from matcompute_workflows.parser import BatchParser
    from matcompute_workflows.shard import ShardData
    from matcompute_workflows.trace import TraceStep, trace_value, walk_back
    from matcompute_workflows.workchain import BatchWorkChain

__all__ = [
    "BatchCalculation",
    "BatchParser",
    "BatchWorkChain",
    "ShardData",
    "TraceStep",
    "apply_gate",
    "build_batch",
    "ingest_structures",
    "merge_campaign",
    "take_rows",
    "trace_value",
    "walk_back",
]

_MODULES = {
    "BatchCalculation": "batch",
    "BatchParser": "parser",
    "BatchWorkChain": "workchain",
    "ShardData": "shard",
    "TraceStep": "trace",
    "apply_gate": "functions",
    "build_batch": "builder",
    "ingest_structures": "functions",
    "merge_campaign": "functions",
    "take_rows": "functions",
    "trace_value": "trace",
    "walk_back": "trace",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
