"""Which columns the final dataset has: the latest stage owns the plain name, earlier ones carry their stage's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from matcompute.dataset import PropertyInfo

__all__ = ["FinalColumn", "final_columns"]


@dataclass(frozen=True)
class FinalColumn:
    """One column of the final dataset.

    Attributes
    ----------
    info
        Its name, unit and shape there.
    stage, name
        Where the values come from.
    """

    info: PropertyInfo
    stage: str
    name: str


def final_columns(
    stages: Sequence[str], found: Mapping[str, Mapping[str, PropertyInfo]]
) -> list[FinalColumn]:
    """Return the columns of the final dataset.

    Parameters
    ----------
    stages
        Names of the stages, in order.
    found
        Stage → the properties of its shards (shapes of open length taken from a shard that has values).
    """
    owner = {name: stage for stage in stages for name in found.get(stage, {})}
    sizes: dict[str, int] = {}
    columns = []
    # Owners first: where two stages want one dimension with different lengths, the plain name is the owner's.
    for owned in (True, False):
        for stage in stages:
            for name, info in found.get(stage, {}).items():
                if (owner[name] == stage) != owned:
                    continue
                dims = []
                for dim, size in zip(info.dimensions, info.shape, strict=True):
                    plain = sizes.setdefault(dim, size) == size
                    dims.append(dim if plain else f"{stage}__{dim}".replace("-", "_"))
                title = name if owned else f"{stage}__{name}"
                columns.append(FinalColumn(replace(info, name=title, dims=tuple(dims)), stage, name))
    return columns
