"""Access tokens: ``mct_<id>_<secret>``. Only the digest of the secret is kept."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, Row, insert, select, update

from matcompute.dataset import DOMAINS, GRADES, TIERS
from matcompute.errors import InputError, did_you_mean
from matcompute.publish.canonical import sha256
from matcompute.server.tables import tokens
from matcompute.times import utc_now, utc_text

__all__ = ["create", "find", "listing", "revoke"]

_PREFIX = "mct"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


def create(
    engine: Engine,
    name: str,
    *,
    tier: str = TIERS[0],
    grade: str = GRADES[0],
    scopes: Sequence[str] = ("read",),
    days: float | None = 365,
    public_key: str | None = None,
    datasets: Sequence[str] = (),
    domains: Sequence[str] = (),
) -> str:
    """Make a token and return it; it can never be shown again.

    Parameters
    ----------
    engine
        Of the index.
    name
        Who gets it.
    tier, grade
        The highest of each that it opens.
    scopes
        Of `matcompute.server.access.SCOPES`.
    days
        How long it holds; None: until it is revoked.
    public_key
        Base64 of the Ed25519 key that will sign receipts; else the first receipt's key is pinned.
    datasets, domains
        What the token is for, of all that tier and grade open: datasets by their ids (they need not be there yet), and
        those that were ever released in a domain. Nothing given: all.

    Raises
    ------
    InputError
        If a name is empty, or a word is in no vocabulary.
    """
    from matcompute.server.access import SCOPES

    if not name.strip() or len(name) > 128 or not name.isprintable():
        raise InputError("a token needs the name of who gets it (at most 128 letters)")
    for what, values, vocabulary in (
        ("tier", [tier], TIERS),
        ("grade", [grade], GRADES),
        ("scope", scopes, SCOPES),
        ("domain", domains, DOMAINS),
    ):
        for value in values:
            if value not in vocabulary:
                raise InputError(
                    f"{what} '{value}' is not in the vocabulary{did_you_mean(value, vocabulary)}"
                )
    if days is not None and not 0 < days < 36500:
        raise InputError("a token holds for more than 0 and less than 36500 days")
    for value in datasets:
        if not _UUID.fullmatch(value):
            raise InputError(f"'{value}' is not the id of a dataset (a UUID in small letters)")
    products = None
    if datasets or domains:
        products = {"datasets": sorted(set(datasets)), "domains": sorted(set(domains))}
    identity, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    until = None
    if days is not None:
        until = utc_text(datetime.now(UTC) + timedelta(days=days))
    with engine.begin() as connection:
        connection.execute(
            insert(tokens).values(
                id=identity,
                name=name,
                sha256=sha256(secret.encode()),
                tier=tier,
                grade=grade,
                scopes=sorted(set(scopes)),
                created=utc_now(),
                expires=until,
                public_key=public_key,
                products=products,
            )
        )
    return f"{_PREFIX}_{identity}_{secret}"


def find(engine: Engine, token: str) -> Row[Any] | None:
    """Return the row of a token that holds now; None for any other text."""
    prefix, _, rest = token.partition("_")
    identity, _, secret = rest.partition("_")
    if prefix != _PREFIX or len(identity) != 16 or len(secret) > 100 or not token.isascii():
        return None
    with engine.connect() as connection:
        row = connection.execute(select(tokens).where(tokens.c.id == identity)).first()
    if row is None or not hmac.compare_digest(row.sha256, sha256(secret.encode())):
        return None
    expired = row.expires is not None and row.expires <= utc_now()
    return None if expired or row.revoked is not None else row


def listing(engine: Engine) -> list[Row[Any]]:
    """Return all tokens, oldest first."""
    with engine.connect() as connection:
        return list(connection.execute(select(tokens).order_by(tokens.c.created, tokens.c.id)))


def revoke(engine: Engine, identity: str) -> None:
    """End a token; what it downloads now breaks off.

    Raises
    ------
    InputError
        If there is no such token, or it was revoked before.
    """
    with engine.begin() as connection:
        done = connection.execute(
            update(tokens)
            .where(tokens.c.id == identity, tokens.c.revoked.is_(None))
            .values(revoked=utc_now())
        )
        if done.rowcount == 0:
            raise InputError(
                f"there is no token '{identity}' in force", hint="see `matcompute node token list`"
            )
