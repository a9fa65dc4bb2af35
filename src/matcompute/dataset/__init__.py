"""``matcompute dataset v1``: the HDF5 file in which every shard travels and every campaign ends.

>>> from matcompute.dataset import Dataset, DatasetWriter, Metadata
"""

from __future__ import annotations

from matcompute.dataset.diff import Change, Difference, diff_datasets
from matcompute.dataset.entry import Entry
from matcompute.dataset.errors import (
    DatasetError,
    DatasetFileError,
    DatasetLockedError,
    DatasetWriteError,
    UnknownNameError,
)
from matcompute.dataset.export import export_dataset
from matcompute.dataset.h5io import FORMAT_VERSION, MAX_ENTRIES
from matcompute.dataset.merge import merge_datasets
from matcompute.dataset.metadata import (
    DOMAINS,
    GRADES,
    NODE_CLASSES,
    TIERS,
    Metadata,
    Method,
    Selection,
    Source,
    spdx,
)
from matcompute.dataset.properties import PROPERTIES, VOIGT, PropertyInfo
from matcompute.dataset.provenance import ProcessRecord, Provenance, uuid_array, uuid_text
from matcompute.dataset.reader import Dataset
from matcompute.dataset.status import Quality, Status
from matcompute.dataset.summary import summarize
from matcompute.dataset.trace import TraceStep, trace_value
from matcompute.dataset.validate import validate_dataset
from matcompute.dataset.violations import Violation
from matcompute.dataset.writer import DatasetWriter

__all__ = [
    "DOMAINS",
    "FORMAT_VERSION",
    "GRADES",
    "MAX_ENTRIES",
    "NODE_CLASSES",
    "PROPERTIES",
    "TIERS",
    "VOIGT",
    "Change",
    "Dataset",
    "DatasetError",
    "DatasetFileError",
    "DatasetLockedError",
    "DatasetWriteError",
    "DatasetWriter",
    "Difference",
    "Entry",
    "Metadata",
    "Method",
    "ProcessRecord",
    "PropertyInfo",
    "Provenance",
    "Quality",
    "Selection",
    "Source",
    "Status",
    "TraceStep",
    "UnknownNameError",
    "Violation",
    "diff_datasets",
    "export_dataset",
    "merge_datasets",
    "spdx",
    "summarize",
    "trace_value",
    "uuid_array",
    "uuid_text",
    "validate_dataset",
]
