"""A dataset v1 file as a source: all of its structures, or those that passed one of its gates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from matcompute.dataset import Dataset, DatasetError
from matcompute.errors import InputError, did_you_mean
from matcompute.structures.base import Reject, SourceBlock, SourceContext, SourceFile, SourceParameters
from matcompute.structures.paths import find_files
from matcompute_kernels.batch import Batch

__all__ = ["DatasetParameters", "DatasetSource"]


class DatasetParameters(SourceParameters):
    """Keys of a ``dataset:`` item."""

    dataset: str = Field(min_length=1, description="A dataset v1 file.")
    selection: str | None = Field(default=None, description="Only what passed this gate of the dataset.")


class DatasetSource:
    """``dataset:`` of a campaign file. The line of a structure is its 1-based row in the dataset."""

    name: ClassVar[str] = "dataset"
    Parameters: ClassVar[type[DatasetParameters]] = DatasetParameters

    def files(self, parameters: DatasetParameters, base_dir: Path) -> list[Path]:
        """Return the dataset's file."""
        return find_files([parameters.dataset], base_dir)

    def count(self, parameters: DatasetParameters, base_dir: Path) -> int | None:
        """Return the number of entries that will be read."""
        total = 0
        for path in self.files(parameters, base_dir):
            try:
                with Dataset(path) as ds:
                    total += len(_rows(ds, parameters, path.name))
            except (DatasetError, OSError):
                return None
        return total

    def blocks(self, parameters: DatasetParameters, context: SourceContext) -> Iterator[SourceBlock]:
        """Yield the structures in the order of the file."""
        from matcompute.structures.spec import source_name

        files = context.files or [
            SourceFile(source_name(path, context.base_dir), path)
            for path in self.files(parameters, context.base_dir)
        ]
        for file in files:
            row = context.table.add(file)
            try:
                with Dataset(file.path) as ds:
                    rows = _rows(ds, parameters, file.name)
                    for first in range(0, len(rows), context.block_size):
                        some = rows[first : first + context.block_size]
                        yield SourceBlock(
                            ds.batch(some),
                            np.full(len(some), row, dtype=np.int32),
                            some.astype(np.int64) + 1,
                            [str(name) for name in np.asarray(ds.ids)[some]],
                        )
            except (DatasetError, OSError) as error:
                reject = Reject("unreadable", file.name, 0, str(error))
                empty = np.zeros(0, dtype=np.int64)
                yield SourceBlock(Batch.empty(), empty.astype(np.int32), empty, [], [reject])


def _rows(ds: Dataset, parameters: DatasetParameters, name: str) -> np.ndarray:
    if parameters.selection is None:
        return np.arange(len(ds))
    if parameters.selection not in ds.selections:
        raise InputError(
            f"{name} has no selection '{parameters.selection}'{did_you_mean(parameters.selection, ds.selections)}"
        )
    return np.flatnonzero(ds.selections[parameters.selection].mask)
