"""The ``select`` gate: farthest points, CUR, novelty, Pareto fronts, one of each group of duplicates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute.dataset import Status
from matcompute.errors import InputError
from matcompute.gates.features import (
    Features,
    final_structures,
    gather_features,
    normalized,
    reference_features,
)
from matcompute.gates.result import GateResult
from matcompute.gates.selection import (
    CurSelection,
    DuplicateSelection,
    FarthestPointSelection,
    NoveltySelection,
    ParetoSelection,
)

if TYPE_CHECKING:
    from matcompute.gates.columns import ColumnTable

__all__ = ["select"]

_OK, _LEFT = int(Status.OK), int(Status.NOT_SELECTED)


def select(table: ColumnTable, considered: np.ndarray, model: Any, references: Path | None) -> GateResult:
    """Evaluate a ``select`` gate.

    Parameters
    ----------
    table
        Structures and shards.
    considered
        ``bool[N]``: entries that came to the gate.
    model
        Its checked parameters.
    references
        The file of what is known, for novelty.

    Raises
    ------
    InputError
        If a descriptor or a column is not there, or a parameter does not fit the entries.
    """
    from matcompute_kernels import KernelInputError

    functions: dict[type, Any] = {
        FarthestPointSelection: _fps,
        CurSelection: _cur,
        ParetoSelection: _pareto,
        DuplicateSelection: _duplicates,
    }
    try:
        if isinstance(model, NoveltySelection):
            return _novelty(table, considered, model, references)
        result: GateResult = functions[type(model)](table, considered, model)
    except KernelInputError as error:
        raise InputError(f"select {model.method}: {error}") from error
    return result


def _result(
    table: ColumnTable, considered: np.ndarray, chosen: np.ndarray, expression: str, inputs: list[str]
) -> GateResult:
    rows = np.flatnonzero(considered)
    return GateResult(rows, table.ids[rows], np.isin(rows, chosen), expression, inputs)


def _ranks(result: GateResult, chosen: np.ndarray) -> None:
    """Add the column of the order in which entries were chosen, from 1."""
    rank = np.full(len(result.rows), -1, dtype=np.int32)
    rank[np.searchsorted(result.rows, chosen)] = np.arange(1, len(chosen) + 1)
    result.columns["selection_rank"] = (rank, np.where(rank > 0, _OK, _LEFT).astype("u1"))


def _values(result: GateResult, name: str, rows: np.ndarray, values: np.ndarray) -> None:
    """Add a column of the entries that have the descriptor."""
    column = np.full(len(result.rows), np.nan)
    status = np.full(len(result.rows), int(Status.NOT_ATTEMPTED), dtype="u1")
    at = np.searchsorted(result.rows, rows)
    column[at], status[at] = values, _OK
    result.columns[name] = (column, status)


def _without(result: GateResult, features: Features) -> None:
    """Say why entries without the descriptor cannot pass."""
    bare = ~np.isin(result.rows, features.rows)
    result.messages = [f"no descriptor '{features.info.name}'" if no else "" for no in bare]


def _with(model: Any, *names: str) -> str:
    """Return the parameters that differ from their defaults, for the expression."""
    fields = type(model).model_fields
    said = [f"{n} {getattr(model, n)}" for n in names if getattr(model, n) != fields[n].default]
    return f" ({', '.join(said)})" if said else ""


def _fps(table: ColumnTable, considered: np.ndarray, model: FarthestPointSelection) -> GateResult:
    from matcompute_kernels.screening.fps import fps_distances

    features = gather_features(table, model.descriptor, considered)
    name = features.info.name
    more = _with(model, "metric", "normalize", "start", "min_distance")
    text = f"{model.n} farthest points of {name}{more}"
    if not len(features.rows):
        return _result(table, considered, features.rows, text, [name])
    # The cosine distance is half the squared distance of rows of length 1.
    values = normalized(features.values, model.normalize)
    if model.metric == "cosine":
        values = normalized(values, "unit")
    first = _start(table, features, values, model.start)
    picks, at, nearest = fps_distances(values, min(model.n, len(values)), start=first)
    if model.min_distance is not None:
        limit = np.sqrt(2 * model.min_distance) if model.metric == "cosine" else model.min_distance
        kept = int(np.count_nonzero(at >= limit))  # distances fall, the first is infinite
        if kept < len(picks):
            picks, _, nearest = fps_distances(values, kept, start=first)
    chosen = features.rows[picks]
    result = _result(table, considered, chosen, text, [name])
    _ranks(result, chosen)
    distance = 0.5 * nearest**2 if model.metric == "cosine" else nearest
    _values(result, "selection_distance", features.rows, distance)
    _without(result, features)
    return result


def _start(table: ColumnTable, features: Features, values: np.ndarray, start: str) -> int:
    if start in {"centre", "edge"}:
        mean = values.mean(axis=0, dtype=np.float64)
        squared = np.concatenate(
            [((values[a : a + 2048] - mean) ** 2).sum(axis=1) for a in range(0, len(values), 2048)]
        )
        return int(np.argmin(squared) if start == "centre" else np.argmax(squared))
    found = np.flatnonzero(table.ids[features.rows] == start)
    if not found.size:
        raise InputError(
            f"select fps: the entry '{start}' did not come to this gate",
            hint="start: centre, edge, or the id of an entry that passes all stages before",
        )
    return int(found[0])


def _cur(table: ColumnTable, considered: np.ndarray, model: CurSelection) -> GateResult:
    from matcompute_kernels import cur

    features = gather_features(table, model.descriptor, considered)
    name = features.info.name
    text = f"{model.n} of {name} by CUR{_with(model, 'k', 'normalize')}"
    if not len(features.rows):
        return _result(table, considered, features.rows, text, [name])
    values = normalized(features.values, model.normalize)
    k = min(model.k, max(min(values.shape) - 1, 1))
    chosen = features.rows[cur(values, min(model.n, len(values)), k=k)]
    result = _result(table, considered, chosen, text, [name])
    _ranks(result, chosen)
    _without(result, features)
    return result


def _novelty(
    table: ColumnTable, considered: np.ndarray, model: NoveltySelection, references: Path | None
) -> GateResult:
    from matcompute_kernels import novelty

    if references is None:
        raise InputError("select novelty: the file of references did not come along")
    features = gather_features(table, model.descriptor, considered)
    name = features.info.name
    limits = [
        *([] if model.threshold is None else [f">= {model.threshold:g}"]),
        *([] if model.n is None else [f"largest {model.n}"]),
    ]
    within = "" if model.selection is None else f", {model.selection}"
    more = _with(model, "k", "metric", "normalize", "relative")
    text = f"distance of {name} from {model.references}{within} {', '.join(limits)}{more}"
    if not len(features.rows):
        return _result(table, considered, features.rows, text, [name])
    known = reference_features(references, features.info, model.selection)
    if model.normalize == "standard":
        known = normalized(known, "standard", by=features.values)
        values = normalized(features.values, "standard")
    else:
        known, values = normalized(known, model.normalize), normalized(features.values, model.normalize)
    distance = novelty(
        values, known, k=min(model.k, len(known)), metric=model.metric, relative=model.relative
    )
    far = distance >= (0.0 if model.threshold is None else model.threshold)
    rows = features.rows[far]
    if model.n is not None:
        # Ties are broken by id, so that the choice does not depend on the order in which batches finished.
        rows = rows[np.lexsort((table.ids[rows], -distance[far]))[: model.n]]
    result = _result(table, considered, rows, text, [name])
    _values(result, "novelty", features.rows, distance)
    _without(result, features)
    return result


def _pareto(table: ColumnTable, considered: np.ndarray, model: ParetoSelection) -> GateResult:
    from matcompute_kernels import pareto_front

    valid = considered.copy()
    columns = []
    for name in model.objectives:
        values, status = table.column(name)
        valid &= (status == _OK) & np.isfinite(values)
        columns.append(values)
    rows = np.flatnonzero(valid)
    goals = ", ".join(f"{goal} {name}" for name, goal in model.objectives.items())
    some = "Pareto front" if model.fronts == 1 else f"first {model.fronts} Pareto fronts"
    ranks = np.zeros(0, dtype=np.int64)
    if rows.size:
        front = pareto_front(
            np.stack(columns, axis=1)[rows],
            [goal == "max" for goal in model.objectives.values()],
            fronts=model.fronts,
        )
        ranks = np.where(front, 0, -1) if front.dtype == bool else front
    chosen = rows[ranks >= 0]
    result = _result(table, considered, chosen, f"{some} of {goals}", list(model.objectives))
    rank = np.full(len(result.rows), -1, dtype=np.int32)
    rank[np.searchsorted(result.rows, chosen)] = ranks[ranks >= 0] + 1
    result.columns["pareto_rank"] = (rank, np.where(rank > 0, _OK, _LEFT).astype("u1"))
    return result


def _duplicates(table: ColumnTable, considered: np.ndarray, model: DuplicateSelection) -> GateResult:
    from matcompute_kernels import duplicate_groups

    by = model.by
    if by is None and "energy_per_atom" in table.units:
        by = "energy_per_atom"
    rows = np.flatnonzero(considered)
    batch = final_structures(table, rows)
    crystal = np.flatnonzero(batch.volumes > 0)
    key = np.zeros(len(rows))
    if by is not None:
        values, status = table.column(by)
        good = (status[rows] == _OK) & np.isfinite(values[rows])
        key = np.where(good, values[rows] if model.order == "ascending" else -values[rows], np.inf)
    group = np.full(len(rows), -1, dtype=np.int32)
    # What has no lattice cannot be compared, and stays.
    passed = ~(batch.volumes > 0)
    found = duplicate_groups(
        batch[crystal],
        ltol=model.ltol,
        stol=model.stol,
        angle_tol=model.angle_tol,
        primitive_cell=model.primitive_cell,
        scale=model.scale,
    )
    for number, members in enumerate(found, start=1):
        mine = crystal[members]
        group[mine] = number
        passed[mine[np.lexsort((table.ids[rows[mine]], key[mine]))[0]]] = True
    best = "" if by is None else f", {'lowest' if model.order == 'ascending' else 'highest'} {by}"
    more = _with(model, "ltol", "stol", "angle_tol", "primitive_cell", "scale")
    text = f"one of each group of duplicates{best}{more}"
    result = _result(table, considered, rows[passed], text, ["structures", *([] if by is None else [by])])
    result.columns["duplicate_group"] = (
        group,
        np.where(group > 0, _OK, int(Status.NOT_ATTEMPTED)).astype("u1"),
    )
    return result
