"""One call for every gate: who is considered, who passes, and which columns the gate adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute.dataset import Quality, Status
from matcompute.dataset.descriptors import descriptor_status
from matcompute.gates.columns import ColumnTable
from matcompute.gates.expression import Expression
from matcompute.gates.parameters import FilterParameters, HullParameters, TopParameters, read_gate
from matcompute.gates.result import GateResult
from matcompute.gates.selection import Selection

if TYPE_CHECKING:
    from matcompute.dataset import Dataset

__all__ = ["GateResult", "evaluate_gate"]


def evaluate_gate(
    kind: str,
    parameters: Mapping[str, Any],
    structures: Dataset,
    results: Sequence[tuple[str, Dataset]],
    references: Path | None = None,
) -> GateResult:
    """Evaluate one gate.

    Considered are the entries that passed every earlier gate and were finished by the stage just before (elemental
    references excepted: they serve the hull, and pass no gate unless the user's own structures hold them).

    Parameters
    ----------
    kind
        ``hull``, ``filter``, ``top`` or ``select``.
    parameters
        As in the campaign file.
    structures
        All structures of the campaign.
    results
        ``(stage name, shard)`` in stage order, outputs of earlier gates included (these hold a selection named
        after their stage).
    references
        File with further entries for the hull, or with what is known, for novelty.

    Raises
    ------
    InputError
        On an unknown gate, column or unit.
    """
    model = read_gate(kind, dict(parameters))
    table = ColumnTable(structures, results)
    considered = _considered(table)
    if isinstance(model, HullParameters):
        result = _hull(table, considered, model, references)
    elif isinstance(model, FilterParameters):
        result = _filter(table, considered, model)
    elif isinstance(model, Selection):
        from matcompute.gates.select import select

        result = select(table, considered, model, references)
    else:
        result = _top(table, considered, model)
    result.messages = result.messages or [""] * len(result.rows)
    return result


def _considered(table: ColumnTable) -> np.ndarray:
    quality = np.asarray(table.structures.entry_column("quality"))
    alive = (quality & int(Quality.ELEMENTAL_REFERENCE)) == 0
    last_compute: str | None = None
    for (stage, shard), rows in zip(table.results, table._rows, strict=True):
        if stage in shard.selections:
            passed = np.zeros(len(table), dtype=bool)
            passed[rows] = np.asarray(shard.selections[stage].mask, dtype=bool)
            alive &= passed
        else:
            last_compute = stage
    if last_compute is not None:
        alive &= _finished(table, last_compute)
    return alive


def _finished(table: ColumnTable, stage: str) -> np.ndarray:
    """An entry is finished by a stage when every column and descriptor that it attempted has the status ok."""
    good = np.zeros(len(table), dtype=bool)
    for (name, shard), rows in zip(table.results, table._rows, strict=True):
        if name != stage:
            continue
        statuses = [np.asarray(shard.status(prop)) for prop in shard.properties]
        statuses += [descriptor_status(shard, found) for found in shard.descriptors]
        ok, any_ok = np.ones(len(shard), dtype=bool), np.zeros(len(shard), dtype=bool)
        for status in statuses:
            ok &= (status == int(Status.OK)) | (status == int(Status.NOT_ATTEMPTED))
            any_ok |= status == int(Status.OK)
        good[rows] = ok & any_ok
    return good


def _filter(table: ColumnTable, considered: np.ndarray, model: FilterParameters) -> GateResult:
    expression = Expression(model.expression)
    values, valid = {}, considered.copy()
    for name in sorted(expression.columns):
        values[name], status = table.column(name)
        valid &= status == int(Status.OK)
    expression.check(table.units)
    needs_elements = "has" in model.expression
    mask = expression.evaluate(values, table.units, table.elements() if needs_elements else None)
    mask = np.broadcast_to(mask, considered.shape)
    rows = np.flatnonzero(considered)
    # An entry that lacks one of the columns never passes, not even through "not" or "or".
    return GateResult(
        rows, table.ids[rows], (mask & valid)[rows], model.expression, sorted(expression.columns)
    )


def _top(table: ColumnTable, considered: np.ndarray, model: TopParameters) -> GateResult:
    values, status = table.column(model.by)
    rows = np.flatnonzero(considered)
    usable = rows[(status[rows] == int(Status.OK)) & np.isfinite(values[rows])]
    key = values[usable] if model.order == "ascending" else -values[usable]
    # Ties are broken by id, so that the choice does not depend on the order in which batches finished.
    best = usable[np.lexsort((table.ids[usable], key))[: model.n]]
    return GateResult(
        rows,
        table.ids[rows],
        np.isin(rows, best),
        f"top {model.n} by {model.by}, {model.order}",
        [model.by],
    )


def _hull(
    table: ColumnTable, considered: np.ndarray, model: HullParameters, references: Path | None
) -> GateResult:
    from matcompute.gates.hull import hull_columns, read_references

    name = next(iter(model.columns()))
    energy, status = table.column(name)
    usable = status == int(Status.OK)
    extra = read_references(references) if references is not None else None
    e_hull, e_form, hull_status, why = hull_columns(table.structures, energy, usable, extra)
    # References get their hull energy too (it is zero or tells that another phase lies lower), but pass nothing.
    shown = considered | (usable & ((_quality(table) & int(Quality.ELEMENTAL_REFERENCE)) != 0))
    rows = np.flatnonzero(shown)
    passed = considered & (hull_status == int(Status.OK))
    if model.max is not None:
        # 1e-9 eV/atom: a stable phase must pass max = 0 whatever the rounding of the hull.
        passed &= np.nan_to_num(e_hull, nan=np.inf) <= model.max + 1e-9
    limit = "" if model.max is None else f" <= {model.max:g} eV/atom"
    return GateResult(
        rows,
        table.ids[rows],
        passed[rows],
        f"e_above_hull{limit}",
        [name],
        columns={
            "e_above_hull": (e_hull[rows], hull_status[rows]),
            "formation_energy": (e_form[rows], hull_status[rows]),
        },
        messages=[why.get(int(row), "") for row in rows],
    )


def _quality(table: ColumnTable) -> np.ndarray:
    return np.asarray(table.structures.entry_column("quality"))
