"""What one version of a dataset holds, for the pages: rows of its table, columns, one structure, a trace."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute.dataset import Dataset, Status, trace_value
from matcompute.dataset.errors import UnknownNameError
from matcompute.publish.manifest import Manifest
from matcompute.publish.store import Store
from matcompute.server.portal.plots import (
    HullDiagram,
    TernaryDiagram,
    hull_diagram,
    spread,
    ternary_diagram,
)
from matcompute.server.portal.rows import Filter, Page, array, matches

if TYPE_CHECKING:
    import pyarrow.parquet as pq

__all__ = ["Contents"]

#: Most points of a picture.
POINTS = 4000
_FIXED = ("id", "formula", "elements", "n_sites", "structure_hash", "last_modified")
#: Columns that a table of entries shows first, by the part of the name behind the stage.
_FIRST = (
    "e_above_hull",
    "formation_energy",
    "energy_per_atom",
    "bulk_modulus",
    "volume_per_atom",
    "equilibrium_volume",
    "density",
    "energy",
)


class Contents:
    """What a version holds; since that never changes, where files lie and the table's columns are looked up once.

    Parameters
    ----------
    store
        Where it lies.
    manifest
        Which version.
    """

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.store, self.manifest = store, manifest
        self.sha256 = manifest.sha256
        self._places: dict[str, str] = {}
        self._columns: list[dict[str, Any]] = []

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Contents) and other.sha256 == self.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)

    def _place(self, path: str) -> str:
        if path not in self._places:
            found = self.store.path(self.manifest.dataset_id, self.manifest.version, path)
            self._places[path] = found
        return self._places[path]

    @contextlib.contextmanager
    def _table(self) -> Iterator[pq.ParquetFile]:
        import pyarrow.parquet as pq

        with self.store.files.open(self._place("summary.parquet")) as file:
            yield pq.ParquetFile(file)

    # -- columns ----------------------------------------------------------------------------------------------

    def columns(self) -> list[dict[str, Any]]:
        """Return the table's columns: ``name``, ``kind`` (number, text, time, truth), ``units``, ``description``."""
        import pyarrow as pa

        if self._columns:
            return self._columns
        with self._table() as table:
            schema = table.schema_arrow
        found = []
        for field in schema:
            meta = {k.decode(): v.decode() for k, v in (field.metadata or {}).items()}
            kind = "text"
            if pa.types.is_floating(field.type) or pa.types.is_integer(field.type):
                kind = "number"
            elif pa.types.is_boolean(field.type):
                kind = "truth"
            elif pa.types.is_timestamp(field.type):
                kind = "time"
            found.append(
                {
                    "name": field.name,
                    "kind": kind,
                    "units": meta.get("units", ""),
                    "description": meta.get("description", ""),
                }
            )
        self._columns = found
        return found

    def numbers(self) -> list[dict[str, Any]]:
        """Return the columns of numbers, those first that say most."""
        found = [c for c in self.columns() if c["kind"] == "number"]
        return sorted(found, key=lambda c: _rank(c["name"]))

    def values(self, name: str) -> np.ndarray:
        """Return a whole column of numbers, NaN where there is none.

        Raises
        ------
        UnknownNameError
            If there is no such column.
        """
        self._require([name])
        with self._table() as table:
            return array(table.read(columns=[name])[name])

    def _require(self, names: Sequence[str]) -> None:
        known = {c["name"] for c in self.columns() if c["kind"] == "number"}
        for name in names:
            if name not in known:
                raise UnknownNameError(f"no column of numbers '{name}'")

    def overview(self) -> dict[str, Any]:
        """Return ``elements`` and ``properties`` as a summary has them, from the table alone, group by group."""
        import pyarrow.compute as pc

        counts: Counter[str] = Counter()
        found: dict[str, dict[str, Any]] = {}
        numbers = [c for c in self.numbers() if c["name"] not in _FIXED]
        with self._table() as table:
            for group in range(table.num_row_groups):
                block = table.read_row_group(group, columns=["elements", *(c["name"] for c in numbers)])
                for item in pc.value_counts(block["elements"]).to_pylist():
                    counts.update(dict.fromkeys(item["values"].split("-"), item["counts"]))
                for column in numbers:
                    values = array(block[column["name"]])
                    values = values[np.isfinite(values)]
                    if values.size:
                        text, _, definition = column["description"].partition(": ")
                        new = {
                            "long_name": text,
                            "definition": definition,
                            "units": column["units"],
                            "count": 0,
                        }
                        one = found.setdefault(column["name"], new | {"name": column["name"]})
                        one["count"] += int(values.size)
                        one["min"] = min(float(values.min()), one.get("min", np.inf))
                        one["max"] = max(float(values.max()), one.get("max", -np.inf))
        return {
            "elements": [{"symbol": s, "entries": counts[s]} for s in sorted(counts)],
            "properties": [found[name] for name in sorted(found)],
        }

    # -- pictures ---------------------------------------------------------------------------------------------

    def pair(self, x: str, y: str, most: int = POINTS) -> dict[str, Any]:
        """Return points of two columns with id and formula; of very many, an even sample."""
        self._require([x, y])
        with self._table() as table:
            read = table.read(columns=list(dict.fromkeys(["id", "formula", x, y])))
        xs, ys = array(read[x]), array(read[y])
        rows = np.flatnonzero(np.isfinite(xs) & np.isfinite(ys))
        chosen = rows[spread(rows.size, most)]
        return {
            "count": int(rows.size),
            "x": xs[chosen].tolist(),
            "y": ys[chosen].tolist(),
            "id": read["id"].take(chosen).to_pylist(),
            "formula": read["formula"].take(chosen).to_pylist(),
        }

    def hull_column(self) -> str | None:
        """Return the column of formation energies, None if there is none."""
        names = [c["name"] for c in self.columns() if c["kind"] == "number"]
        return next((n for n in names if n.rpartition("__")[2] == "formation_energy"), None)

    def systems(self, most: int = 300) -> list[tuple[str, int]]:
        """Return the binary and ternary systems with the number of their compounds, most of them first."""
        import pyarrow.compute as pc

        with self._table() as table:
            elements = table.read(columns=["elements"])["elements"]
        dashes = pc.count_substring(elements, "-")
        several = elements.filter(pc.and_(pc.greater_equal(dashes, 1), pc.less_equal(dashes, 2)))
        found = [(str(item["values"]), int(item["counts"])) for item in pc.value_counts(several).to_pylist()]
        return sorted(found, key=lambda item: (item[0].count("-"), -item[1], item[0]))[:most]

    def hull(self, system: Sequence[str], most: int = POINTS) -> dict[str, Any]:
        """Return the hull diagram of a system of two elements or three.

        Of two: points (``x``: fraction of the second one, ``y``: formation energy), those that make the line first.
        Of three: points in the triangle of compositions (`ternary_diagram`), those on the hull first, and ``lines``.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        column = self.hull_column()
        if column is None:
            raise UnknownNameError("no formation energies in this dataset")
        with self._table() as table:
            read = table.read(columns=["id", "formula", "elements", column])
        subsets = ["-".join(c) for n in range(1, len(system) + 1) for c in combinations(sorted(system), n)]
        read = read.filter(pc.is_in(read["elements"], value_set=pa.array(subsets)))
        formulas, ids = read["formula"].to_pylist(), read["id"].to_pylist()
        energies = array(read[column])
        diagram: HullDiagram | TernaryDiagram
        more: dict[str, Any] = {}
        if len(system) == 2:
            diagram = hull_diagram((system[0], system[1]), formulas, energies)
            first = diagram.hull
        else:
            diagram = ternary_diagram((system[0], system[1], system[2]), formulas, energies)
            first = np.flatnonzero(diagram.above < 1e-6)
            more = {"corners": list(system), "lines": diagram.lines.round(6).tolist()}
        # What makes the hull must be whole; of the other points an even sample will do.
        others = np.setdiff1d(np.arange(diagram.x.size), first)
        keep = np.concatenate([first, others[spread(others.size, most)]]).astype(np.int64)
        if isinstance(diagram, TernaryDiagram):
            more |= {"energy": diagram.energy[keep].tolist(), "above": diagram.above[keep].tolist()}
        return {
            "count": int(diagram.x.size),
            "on_hull": int(first.size),
            "x": diagram.x[keep].tolist(),
            "y": diagram.y[keep].tolist(),
            "id": [ids[k] for k in diagram.rows[keep]],
            "formula": [formulas[k] for k in diagram.rows[keep]],
            **more,
        }

    # -- rows -------------------------------------------------------------------------------------------------

    def shown(self) -> list[dict[str, Any]]:
        """Return the columns that a table of entries shows."""
        return [c for c in self.numbers() if c["name"] not in _FIXED and not _component(c["name"])][:5]

    def page(self, after: int = -1, limit: int = 50, where: Filter | None = None) -> Page:
        """Return the rows after a row, in the order of the release.

        Reads one row group at a time and only the columns it needs.
        """
        where = where or Filter()
        shown = [c["name"] for c in self.shown()]
        names = list(dict.fromkeys(["id", "formula", "elements", "n_sites", *shown]))
        if where.column:
            self._require([where.column])
            names = list(dict.fromkeys([*names, where.column]))
        rows: list[dict[str, Any]] = []
        with self._table() as table:
            start = 0
            for group in range(table.num_row_groups):
                size = table.metadata.row_group(group).num_rows
                if start + size > after + 1:
                    block = table.read_row_group(group, columns=names)
                    mask = matches(block, where)
                    mask[: max(0, after + 1 - start)] = False
                    for at in np.flatnonzero(mask)[: limit + 1 - len(rows)].tolist():
                        values = {name: block[name][at].as_py() for name in names}
                        rows.append({"row": start + at, **values})
                    if len(rows) > limit:
                        return Page(rows[:limit], rows[limit - 1]["row"])
                start += size
        return Page(rows, None)

    # -- one entry --------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _dataset(self, entry: str) -> Iterator[Dataset]:
        """Open the shard that has an entry."""
        for file in self.manifest.files:
            if file.role != "data":
                continue
            path = self._place(file.path)
            stream = None if self.store.local else self.store.files.open(path)
            with stream or contextlib.nullcontext(), Dataset(Path(path), stream) as dataset:
                try:
                    dataset.find(entry)
                except UnknownNameError:
                    continue
                yield dataset
                return
        raise UnknownNameError(f"no entry '{entry}'")

    def entry(self, entry: str) -> dict[str, Any]:
        """Return one entry: structure, values with units and status, what can be traced.

        Raises
        ------
        UnknownNameError
            If there is no such entry.
        """
        with self._dataset(entry) as dataset:
            found = dataset[entry]
            values = []
            for name, info in dataset.properties.items():
                if info.per != "entry":
                    continue
                status = found.statuses[name]
                number = found.values[name]
                values.append(
                    {
                        "name": name,
                        "long_name": info.long_name,
                        "definition": info.definition,
                        "units": "" if info.units == "1" else info.units,
                        "status": status.label,
                        "value": _plain(number) if status in (Status.OK, Status.NOT_CONVERGED) else None,
                        "size": int(np.size(number)),
                    }
                )
            return {
                "id": found.id,
                "formula": found.formula,
                "label": found.label,
                "structure_hash": found.structure_hash,
                "selections": list(found.selections),
                "values": sorted(values, key=lambda v: _rank(v["name"])),
                "structure": {
                    "symbols": found.atoms.get_chemical_symbols(),
                    "positions": found.atoms.positions.round(6).tolist(),
                    "cell": found.atoms.cell.array.round(6).tolist(),
                    "pbc": [bool(p) for p in found.atoms.pbc],
                },
                "lengths": [round(float(v), 4) for v in found.atoms.cell.lengths()],
                "angles": [round(float(v), 3) for v in found.atoms.cell.angles()],
            }

    def trace(self, entry: str, name: str) -> list[dict[str, Any]]:
        """Return the chain of one value back to its source.

        Raises
        ------
        UnknownNameError
            If there is no such entry or value.
        """
        with self._dataset(entry) as dataset:
            return [step.to_json() for step in trace_value(dataset, entry, name)]


def _rank(name: str) -> tuple[int, int, str]:
    base = name.rpartition("__")[2]
    known = _FIRST.index(base) if base in _FIRST else len(_FIRST)
    return (known + (100 if name in _FIXED else 0), int(_component(name)), name)


def _component(name: str) -> bool:
    """Whether a column is a component of a vector (``stress_xx``, ``eos_energy_3``)."""
    tail = name.rpartition("_")[2]
    return tail.isdigit() or tail in ("xx", "yy", "zz", "yz", "xz", "xy")


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist() if value.size <= 16 else None
    return None if isinstance(value, float) and not np.isfinite(value) else value
