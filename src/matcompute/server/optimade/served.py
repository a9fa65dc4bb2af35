"""What of the loaded structures a principal is shown: `served` in SQL, and the names that it may use, `Catalogue`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Connection, Select, and_, case, func, literal, select

from matcompute.server.access import Access, Principal
from matcompute.server.optimade.fields import STANDARD, UNKNOWN_STANDARD, Field, provider_field
from matcompute.server.optimade.problems import BadRequest
from matcompute.server.optimade.tables import properties, sets, structures
from matcompute.server.optimade.where import Compiler, microseconds
from matcompute.server.tables import changes, datasets, versions

if TYPE_CHECKING:
    from matcompute.server.node import Node

__all__ = ["PREFIX", "Catalogue", "Catalogues", "served"]

PREFIX = "matcompute"
_PROVIDER = re.compile(r"_([a-z0-9]+)_[a-z0-9_]*")


def served(principal: Principal) -> Select[Any]:
    """Return the query of the set numbers that a principal is shown.

    Of each dataset that it may see, that is the newest version that is loaded and not withdrawn. The condition stands
    in every query that reads entries, so that nothing shows what has been regraded since.
    """
    return _served(principal.clearance)


@lru_cache(maxsize=512)
def _served(clearance: Principal) -> Select[Any]:
    # Made once for each clearance: composing it takes longer than the database takes for a page.
    newer, its_version = sets.alias("newer"), versions.alias("newer_version")
    later = (
        select(1)
        .select_from(newer)
        .join(
            its_version,
            and_(its_version.c.dataset_id == newer.c.dataset_id, its_version.c.version == newer.c.version),
        )
        .where(
            newer.c.dataset_id == sets.c.dataset_id,
            newer.c.version > sets.c.version,
            newer.c.since.is_not(None),
            its_version.c.withdrawn.is_(False),
        )
        .correlate(sets)
        .exists()
    )
    return (
        select(sets.c.no)
        .join(datasets, datasets.c.id == sets.c.dataset_id)
        .join(
            versions, and_(versions.c.dataset_id == sets.c.dataset_id, versions.c.version == sets.c.version)
        )
        .where(
            Access.visible(clearance),
            sets.c.since.is_not(None),
            versions.c.withdrawn.is_(False),
            ~later,
        )
        .correlate(None)
    )


@dataclass(frozen=True)
class Catalogue:
    """What may be named by a principal now.

    Parameters
    ----------
    fields
        By name: those of the standard, and the provider properties of what is served to it.
    runs
        Ranges of set numbers (first, last) that hold nothing but sets that are served to it.
    total
        How many entries are served to it.
    times
        Set number → microseconds since which it is served, and at which it came into this principal's sight (0: it
        was there before), where the rows do not say it themselves.
    """

    fields: Mapping[str, Field]
    runs: tuple[tuple[int, int], ...]
    total: int
    times: Mapping[int, tuple[int, int]]

    @property
    def modified(self) -> Any:
        """Expression of ``last_modified``."""
        column = structures.c.last_modified
        if not self.times:
            return column
        whens = []
        for no, (since, widened) in self.times.items():
            of = structures.c.set_no == no
            whens.append((of & column.is_(None), literal(max(since, widened), BigInteger)))
            if widened:
                whens.append((of & (column < widened), literal(widened, BigInteger)))
        return case(*whens, else_=column)

    def compiler(self, dialect: str, warnings: list[str]) -> Compiler:
        """Return what makes conditions of filters; what it has to say is added to the warnings."""

        def find(name: str) -> Field:
            return self.find(name, warnings)

        return Compiler(self.fields, dialect, find, self.modified)

    def find(self, name: str, warnings: list[str]) -> Field:
        """Return a field without values for a name that is right but not known here.

        Raises
        ------
        BadRequest
            If the name is wrong.
        """
        first = name.partition(".")[0]
        if first in UNKNOWN_STANDARD:
            return Field(name, UNKNOWN_STANDARD[first])
        match = _PROVIDER.fullmatch(first)
        if match is None or match[1] == PREFIX:
            raise BadRequest(f"there is no property '{name[:80]}' here", hint="see /info/structures")
        warnings.append(f"the property '{name[:80]}' belongs to another provider: it is unknown here")
        return Field(name, "unknown")


class Catalogues:
    """Make catalogues, and keep the last ones while nothing changes."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._kept: dict[Any, Catalogue] = {}

    def get(self, connection: Connection, principal: Principal) -> Catalogue:
        """Return what a principal may name now."""
        mark = connection.execute(
            select(
                func.coalesce(func.max(changes.c.seq), 0),
                select(func.count()).select_from(sets).scalar_subquery(),
                select(func.coalesce(func.max(sets.c.no), 0)).scalar_subquery(),
                select(func.count()).select_from(sets).where(sets.c.settled).scalar_subquery(),
                select(func.coalesce(func.max(sets.c.since), 0)).scalar_subquery(),
            )
        ).one()
        key = (tuple(mark), principal.clearance)
        found = self._kept.get(key)
        if found is None:
            found = _make(connection, principal)
            kept = {k: v for k, v in self._kept.items() if k[0] == key[0]}
            self._kept = {**kept, key: found}
        return found


def _make(connection: Connection, principal: Principal) -> Catalogue:
    shown = served(principal)
    columns = (sets.c.no, sets.c.dataset_id, sets.c.rows, sets.c.since, sets.c.settled)
    rows = connection.execute(select(*columns).where(sets.c.no.in_(shown)).order_by(sets.c.no)).all()
    every = connection.execute(select(sets.c.no).order_by(sets.c.no)).scalars().all()
    # A regrade may bring entries into sight that are older than the last visit of a client.
    widened = {
        row.dataset_id: microseconds(row.at) + 999_999
        for row in connection.execute(
            select(changes.c.dataset_id, func.max(changes.c.at).label("at"))
            .where(
                changes.c.op == "regrade",
                ~Access.cleared(
                    principal, changes.c.tier_before, changes.c.grade_before, changes.c.dataset_id
                ),
                Access.cleared(principal, changes.c.tier, changes.c.grade, changes.c.dataset_id),
            )
            .group_by(changes.c.dataset_id)
        )
    }
    times = {}
    for row in rows:
        later = widened.get(row.dataset_id, 0)
        if not row.settled or later > row.since:
            times[row.no] = (row.since, later if later > row.since else 0)
    fields = dict(STANDARD)
    found = connection.execute(select(properties).where(properties.c.no.in_(shown)).order_by(properties.c.no))
    for item in found:
        fields.setdefault(item.name, provider_field(item.name, item.slot, json.loads(item.definition)))
    return Catalogue(
        fields=fields,
        runs=_runs([row.no for row in rows], every),
        total=sum(row.rows for row in rows),
        times=times,
    )


def _runs(shown: list[int], every: Any) -> tuple[tuple[int, int], ...]:
    runs: list[tuple[int, int]] = []
    visible = set(shown)
    going = False
    for no in every:
        if no not in visible:
            going = False
        elif going:
            runs[-1] = (runs[-1][0], no)
        else:
            runs.append((no, no))
            going = True
    return tuple(runs)
