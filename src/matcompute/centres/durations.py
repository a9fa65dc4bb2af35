"""Walltimes as schedulers and people write them."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

__all__ = ["Duration", "format_duration", "parse_duration"]

_CLOCK = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d{1,2}))?(?::(\d{1,2}))?\Z")
_WORDS = re.compile(
    r"(\d+(?:\.\d+)?)\s*(seconds?|secs?|s|minutes?|mins?|m|hours?|h|days?|d|weeks?|w)(?![a-z])\s*"
)
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_duration(value: str | float | int) -> float:
    """Return a time in seconds.

    Parameters
    ----------
    value
        A number of seconds, words (``"24 h"``, ``"1d 12h"``, ``"30 min"``), or a clock as Slurm and Grid Engine have it
        (``D-HH``, ``D-HH:MM:SS``, ``HH:MM:SS``, ``MM:SS``). YAML itself reads ``24:00:00`` without quotes as seconds.

    Raises
    ------
    ValueError
        If it is none of these, or not positive.
    """
    if isinstance(value, bool):
        raise ValueError(f"expected a time such as '24 h', found {value}")
    if isinstance(value, int | float):
        seconds = float(value)
    else:
        seconds = _from_text(value.strip())
    if not seconds > 0:
        raise ValueError(f"a time must be more than nothing, found {value!r}")
    return seconds


def _from_text(text: str) -> float:
    lowered = text.lower()
    if lowered and _WORDS.sub("", lowered) == "":
        return sum(float(number) * _UNIT_S[unit[0]] for number, unit in _WORDS.findall(lowered))
    match = _CLOCK.match(text)
    if match is None or (match.group(1) is None and match.group(3) is None):
        raise ValueError(f"'{text}' is not a time; expected '24 h', '30 min' or '1-12:00:00'")
    days, *parts = match.groups()
    numbers = [int(part) for part in parts if part is not None]
    if days is not None:  # D-HH, D-HH:MM, D-HH:MM:SS
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
        return int(days) * 86400 + hours * 3600 + minutes * 60 + seconds
    if len(numbers) == 2:  # MM:SS, as Slurm has it
        return numbers[0] * 60 + numbers[1]
    return numbers[0] * 3600 + numbers[1] * 60 + numbers[2]


def format_duration(seconds: float) -> str:
    """Return a time as ``D-HH:MM:SS``, or ``HH:MM:SS`` below a day; Slurm and our profiles read it."""
    total = round(seconds)
    days, rest = divmod(total, 86400)
    text = f"{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{days}-{text}" if days else text


def _read(value: Any) -> Any:
    return parse_duration(value) if isinstance(value, str | int | float) else value


#: A field in seconds that may be written as :func:`parse_duration` reads it.
Duration = Annotated[
    float,
    BeforeValidator(_read, json_schema_input_type=float | str),
    Field(json_schema_extra={"examples": ["24 h", "30 min", "1-12:00:00", 3600]}),
]
