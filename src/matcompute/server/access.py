"""Who may see what: tokens carry a tier and a grade, and every door asks here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from fastapi import Depends, Request
from sqlalchemy import ColumnElement, and_, or_, select, true
from starlette.exceptions import HTTPException

from matcompute.dataset import GRADES, TIERS
from matcompute.server.tables import datasets, domains
from matcompute.server.tokens import find

if TYPE_CHECKING:
    from matcompute.server.node import Node

__all__ = [
    "ANONYMOUS",
    "SCOPES",
    "Access",
    "Caller",
    "Principal",
    "Products",
    "node_of",
    "principal",
    "require",
]

SCOPES = ("read", "receipts", "metrics", "admin")
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="matcompute"'}


@dataclass(frozen=True)
class Products:
    """What a token is for: some datasets, and those that were ever released in some domains."""

    datasets: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()

    @classmethod
    def of(cls, stored: dict[str, list[str]] | None) -> Products | None:
        """Return what a row of ``tokens`` says; None: all that tier and grade open."""
        if stored is None:
            return None
        return cls(frozenset(stored.get("datasets", ())), frozenset(stored.get("domains", ())))


@dataclass(frozen=True)
class Principal:
    """Somebody who asks.

    Parameters
    ----------
    name
        For audit and receipts.
    tier, grade
        The highest of each that it may see.
    scopes
        Of `SCOPES`. Without ``read`` it sees what the public sees.
    token_id
        Id of its token; None for the public.
    products
        What of its tier and grade it sees besides what the public sees; None: all of it.
    """

    name: str
    tier: str = TIERS[0]
    grade: str = GRADES[0]
    scopes: frozenset[str] = field(default=frozenset({"read"}))
    token_id: str | None = None
    products: Products | None = None

    @property
    def clearance(self) -> Principal:
        """What decides what it may see, and nothing of who it is: equal for all that see the same."""
        return replace(self, name="", token_id=None)

    @property
    def tiers(self) -> tuple[str, ...]:
        """The tiers that it may see."""
        return TIERS[: TIERS.index(self.tier) + 1] if "read" in self.scopes else TIERS[:1]

    @property
    def grades(self) -> tuple[str, ...]:
        """The grades that it may see."""
        return GRADES[: GRADES.index(self.grade) + 1] if "read" in self.scopes else GRADES[:1]


ANONYMOUS = Principal("anonymous")


class _Row(Protocol):
    grade: str
    tier: str
    withdrawn: bool


class Access:
    """The rules, over the tables and over single rows."""

    @staticmethod
    def entitled(principal: Principal, dataset: Any = datasets.c.id) -> ColumnElement[bool]:
        """Return the SQL condition that a dataset (column of ids) is one of the principal's products."""
        products = principal.products
        if products is None:
            return true()
        of_domains = select(domains.c.dataset_id).where(domains.c.domain.in_(sorted(products.domains)))
        condition: ColumnElement[bool] = or_(dataset.in_(sorted(products.datasets)), dataset.in_(of_domains))
        return condition

    @staticmethod
    def cleared(
        principal: Principal,
        tier: Any = datasets.c.tier,
        grade: Any = datasets.c.grade,
        dataset: Any = datasets.c.id,
    ) -> ColumnElement[bool]:
        """Return the SQL condition that a dataset of some tier and grade (columns) is within the principal's."""
        condition: ColumnElement[bool] = and_(tier.in_(principal.tiers), grade.in_(principal.grades))
        if principal.products is not None:
            # What everybody sees, a narrowed token sees too: it would without being shown.
            public = and_(tier == TIERS[0], grade == GRADES[0])
            condition = and_(condition, or_(public, Access.entitled(principal, dataset)))
        return condition

    @staticmethod
    def visible(principal: Principal) -> ColumnElement[bool]:
        """Return the SQL condition over ``datasets`` that a principal may see a row."""
        return and_(Access.cleared(principal), datasets.c.withdrawn.is_(False))

    @staticmethod
    def allowed(principal: Principal, row: _Row) -> bool:
        """Whether a principal may see a row; one without ``id`` or ``domain`` is none of a narrowed token's."""
        cleared = row.tier in principal.tiers and row.grade in principal.grades and not row.withdrawn
        products = principal.products
        if products is None or (row.tier, row.grade) == (TIERS[0], GRADES[0]):
            return cleared
        named = getattr(row, "id", None) in products.datasets
        return cleared and (named or getattr(row, "domain", None) in products.domains)


def node_of(request: Request) -> Node:
    """Return the node of an application; mounted applications have it in their ``state`` too."""
    node: Node = request.app.state.node
    return node


def authenticate(node: Node, header: str | None) -> Principal:
    """Return who an ``Authorization`` header speaks for.

    Raises
    ------
    HTTPException
        401 if there is a header, but no token that holds now: nobody gets the public's answer by mistake.
    """
    if header is None:
        return ANONYMOUS
    kind, _, secret = header.partition(" ")
    row = find(node.engine, secret.strip()) if kind.lower() == "bearer" else None
    if row is None:
        raise HTTPException(401, "the token is unknown, expired or revoked", headers=_CHALLENGE)
    products = Products.of(row.products)
    return Principal(row.name, row.tier, row.grade, frozenset(row.scopes), row.id, products)


def principal(request: Request) -> Principal:
    """Dependency of every route: bring the index up to date, and say who asks (also ``request.state.principal``)."""
    node = node_of(request)
    node.refresh()
    found = authenticate(node, request.headers.get("authorization"))
    request.state.principal = found
    return found


Caller = Annotated[Principal, Depends(principal)]


def require(scope: str) -> Any:
    """Return a dependency that lets only tokens of a scope in: 401 for the public, 403 for other tokens."""

    def check(who: Caller) -> Principal:
        if who.token_id is None:
            raise HTTPException(401, "a token is needed", headers=_CHALLENGE)
        if scope not in who.scopes:
            raise HTTPException(403, f"the token does not have the scope '{scope}'")
        return who

    return Depends(check)
