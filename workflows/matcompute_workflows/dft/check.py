"""Checks of pseudopotential families: their files, their cutoffs, and what they cover."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from matcompute_workflows.dft.pseudos import describe, find

__all__ = ["FamilyCheck", "check_family"]


@dataclass
class FamilyCheck:
    """What a check of a family has found.

    Attributes
    ----------
    family
        Its name.
    n
        Potentials.
    changed
        Elements whose file is not the one that was installed.
    guessed
        Elements whose cutoffs were guessed.
    missing
        Elements that were asked for and are not there.
    """

    family: str
    n: int
    changed: list[str] = field(default_factory=list)
    guessed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether it can be used for what was asked."""
        return not (self.changed or self.missing)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**vars(self), "ok": self.ok}

    def lines(self) -> Iterator[str]:
        """Yield lines for people."""
        for symbol in self.changed:
            yield f"problem   the file of {symbol} is not the one that was installed"
        for symbol in self.missing:
            yield f"problem   there is no potential of {symbol}"
        if self.guessed:
            yield f"note      the cutoffs of {', '.join(self.guessed)} were guessed; give them with --cutoffs"
        if self.ok:
            yield f"family '{self.family}' is whole: {self.n} potentials"


def check_family(name: str | None, wanted: Iterable[str] = ()) -> FamilyCheck:
    """Check a family of the loaded profile.

    Parameters
    ----------
    name
        The family; None: the workspace's default.
    wanted
        Symbols that it must cover.

    Raises
    ------
    InputError
        If there is no such family.
    """
    group = find(name)
    family = describe(group)
    changed = []
    for node in group.nodes:
        content = node.get_content().encode("utf-8")
        digest, md5 = hashlib.sha256(content).hexdigest(), hashlib.md5(content).hexdigest()
        if digest != family.potentials[node.element].sha256 or md5 != node.md5:
            changed.append(node.element)
    return FamilyCheck(
        family.name,
        len(family.potentials),
        sorted(changed),
        [symbol for symbol, item in family.potentials.items() if item.cutoff_source == "guessed"],
        sorted(set(wanted) - set(family.potentials)),
    )
