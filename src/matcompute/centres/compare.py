"""What differs between two profiles of a centre."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matcompute.centres.model import Centre

__all__ = ["Difference", "compare"]


@dataclass(frozen=True)
class Difference:
    """One value that differs between two profiles.

    Attributes
    ----------
    key
        As people write it: ``partitions[cpu].max_wall``.
    old, new
        The values; ``None`` where there is none.
    """

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        if self.old is None:
            return f"{self.key}: {self.new!r} (new)"
        if self.new is None:
            return f"{self.key}: {self.old!r} (gone)"
        return f"{self.key}: {self.old!r} → {self.new!r}"


def compare(old: Centre, new: Centre) -> list[Difference]:
    """Return the values that differ between two profiles, in the order of the file."""
    before, after = dict(_flat(old)), dict(_flat(new))
    keys = list(dict.fromkeys([*before, *after]))
    return [
        Difference(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)
    ]


def _flat(centre: Centre) -> Iterator[tuple[str, Any]]:
    data = centre.model_dump(mode="json", by_alias=True, exclude={"variables"})
    return _leaves(data, "")


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else name)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for item in value:
            # Partitions, codes and projects go by their names: inserting one is no change of the others.
            yield from _leaves(item, f"{key}[{item.get('name') or item.get('account')}]")
    elif value not in (None, [], ""):
        yield key, value
