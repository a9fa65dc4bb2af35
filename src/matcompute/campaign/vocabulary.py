"""Checks of controlled values in a campaign file that are more than a list: ORCID iDs, licences, grades."""

from __future__ import annotations

import re

from matcompute.dataset.metadata import DOMAINS, GRADES, TIERS, spdx
from matcompute.errors import MatcomputeError

__all__ = ["DOMAINS", "GRADES", "TIERS", "check_licence", "check_orcid", "grade_rank"]

_ORCID = re.compile(r"(?:https?://orcid\.org/)?(\d{4}-\d{4}-\d{4}-\d{3}[\dX])/?\Z")


def grade_rank(grade: str) -> int:
    """Return the place of a grade, 0 for the lowest; a clearance covers every grade up to its own."""
    return GRADES.index(grade)


def check_orcid(text: str) -> str:
    """Return an ORCID iD in its short form, checked by ISO/IEC 7064 mod 11-2.

    Raises
    ------
    ValueError
        If the form or the check digit is wrong.
    """
    match = _ORCID.match(text.strip())
    if match is None:
        raise ValueError(f"'{text}' is not an ORCID iD; expected 0000-0000-0000-0000 (the last one may be X)")
    digits = match.group(1).replace("-", "")
    total = 0
    for digit in digits[:-1]:
        total = (total + int(digit)) * 2
    check = (12 - total % 11) % 11
    if digits[-1] != ("X" if check == 10 else str(check)):
        raise ValueError(f"'{text}' has a wrong check digit: one of its digits is mistyped")
    return match.group(1)


def check_licence(text: str) -> str:
    """Return an SPDX licence expression in its canonical spelling (``CC-BY-4.0``, ``MIT OR Apache-2.0``).

    Raises
    ------
    ValueError
        If it is none; the nearest usual identifier is named.
    """
    try:
        return spdx(text)
    except MatcomputeError as error:
        raise ValueError(str(error)) from error
