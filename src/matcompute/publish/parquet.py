"""``summary.parquet``: one row per entry, written block by block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from matcompute.dataset import Dataset
from matcompute.publish.columns import TableColumn, block_values, table_columns

__all__ = ["write_summary_table"]

_BLOCK = 65536


def write_summary_table(
    shards: Sequence[Path],
    out: Path,
    *,
    dataset_id: str = "",
    block: int = _BLOCK,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the table of all entries of a release; return how many there are.

    Memory is bounded by one block of rows. A value whose status is neither ok nor not_converged is null. Units and
    descriptions stand in the metadata of each field. The same shards give the same bytes.

    Parameters
    ----------
    shards
        Dataset files, in their order.
    out
        The file to write; it appears when complete.
    dataset_id
        Goes into the metadata of the table.
    block
        Rows of one row group.
    on_progress
        Called with (entries done, entries in all).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = Path(out)
    part = out.with_name(f".{out.name}.writing")
    with ExitStack() as stack:
        stack.callback(part.unlink, missing_ok=True)
        datasets = [stack.enter_context(Dataset(path)) for path in shards]
        columns = table_columns(datasets)
        schema = pa.schema([_field(c) for c in columns], metadata={"dataset_id": dataset_id})
        total, done = sum(len(d) for d in datasets), 0
        with pq.ParquetWriter(part, schema, compression="zstd") as writer:
            for dataset in datasets:
                for start in range(0, len(dataset), block):
                    rows = slice(start, min(start + block, len(dataset)))
                    arrays = [_array(dataset, c, rows) for c in columns]
                    writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=block)
                    done += rows.stop - rows.start
                    if on_progress is not None:
                        on_progress(done, total)
        part.replace(out)
    return total


def _type(column: TableColumn) -> Any:
    import pyarrow as pa

    types = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
    return pa.timestamp("us", tz="UTC") if column.dtype == "timestamp" else types[column.dtype]


def _field(column: TableColumn) -> Any:
    import pyarrow as pa

    metadata = {"description": column.description} | ({"units": column.units} if column.units else {})
    return pa.field(column.name, _type(column), metadata=metadata)


def _array(dataset: Dataset, column: TableColumn, rows: slice) -> Any:
    import pyarrow as pa

    values, missing = block_values(dataset, column, rows)
    if column.dtype == "timestamp":
        return pa.array(values.astype("int64")).cast(_type(column))
    if column.dtype in ("int64", "float64"):
        values = values.astype(column.dtype)
    return pa.array(values, type=_type(column), mask=missing)
