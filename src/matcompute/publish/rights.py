"""Identifiers and rights of a dataset: what registries gave, whose it is, and when it may be public."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from matcompute.errors import InputError

__all__ = ["CSTR_PATTERN", "Identifiers", "Rights", "identifiers_of", "rights_of"]

#: A CSTR, as the platform's registry writes it: five characters, a two-digit type, the name.
CSTR_PATTERN = r"^\w{5}\.\d{2}\..*$"
DOI_PATTERN = r"^10\.\d{4,9}/\S+$"
FUNDER_PATTERN = r"^https://(ror\.org/0[a-z0-9]{6}[0-9]{2}|doi\.org/10\.13039/[0-9]+)$"
_BEFORE = re.compile(r"^\s*(?:cstr:|doi:|https?://(?:www\.|dx\.)?(?:doi\.org|cstr\.cn)/)\s*", re.IGNORECASE)


def _day(value: str) -> str:
    if date.fromisoformat(value).isoformat() != value:
        raise ValueError(f"'{value}' is not a day such as 2027-01-31")
    return value


Text = Annotated[str, Field(min_length=1, max_length=500)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Identifiers(_Model):
    """Identifiers that registries gave, where there are any."""

    cstr: str | None = Field(default=None, pattern=CSTR_PATTERN)
    doi: str | None = Field(default=None, pattern=DOI_PATTERN)


class Rights(_Model):
    """Whose the data is, and when it may be public.

    Parameters
    ----------
    holder
        Who holds the rights.
    project
        Number of the project that paid for it.
    funder, funder_id
        Who paid: name, and address at ROR or in the Crossref Funder Registry.
    embargo
        Day (UTC) from which on it may be public, ``YYYY-MM-DD``; before it only member tiers may have it.
    patents
        Numbers of patents that the data is part of.
    """

    holder: Text | None = None
    project: Text | None = None
    funder: Text | None = None
    funder_id: str | None = Field(default=None, pattern=FUNDER_PATTERN)
    embargo: Annotated[str, AfterValidator(_day)] | None = None
    patents: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.funder_id and not self.funder:
            raise ValueError("the funder's name is missing")
        return self

    @property
    def conditions(self) -> str:
        """What a reader must know of them, in a sentence or two; empty if nothing."""
        embargo = f"Not public before {self.embargo}." if self.embargo else ""
        patents = f"Part of patents {', '.join(self.patents)}." if self.patents else ""
        return " ".join(filter(None, (embargo, patents)))

    def embargoed(self, today: str) -> bool:
        """Whether the data may not be public yet on a day (``YYYY-MM-DD``, or a time that begins with it)."""
        return self.embargo is not None and today[:10] < self.embargo


def identifiers_of(**given: str | None) -> Identifiers:
    """Return identifiers that a person gave, also with what people copy before them (``doi:``, an address).

    Raises
    ------
    InputError
        If one is not of its pattern.
    """
    try:
        return Identifiers(**{name: _BEFORE.sub("", text) if text else None for name, text in given.items()})
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        hint = {
            "cstr": "five characters, a dot, two digits, a dot, the name: 31253.11.sciencedb.01",
            "doi": "10.<registrant>/<name>, e.g. 10.57760/sciencedb.01",
        }[name]
        raise InputError(f"{name.upper()} '{given[name]}' is none", hint=hint) from error


def rights_of(**given: Any) -> Rights:
    """Return rights that a person gave.

    Raises
    ------
    InputError
        If the embargo is no day, or a text is empty or too long.
    """
    try:
        return Rights(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "funder"
        if name == "embargo":
            raise InputError(
                f"embargo '{given[name]}' is no day", hint="give it as 2027-01-31 (UTC)"
            ) from error
        if name == "funder_id":
            hint = "https://ror.org/0… or https://doi.org/10.13039/…"
            raise InputError(f"funder id '{given[name]}' is none", hint=hint) from error
        raise InputError(f"{name}: {first['msg']}") from error
