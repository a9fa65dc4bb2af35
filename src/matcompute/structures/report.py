"""What became of the structures of a campaign: kept, kept out and why, for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from matcompute.structures.base import Reject
from matcompute.structures.references import Reference

__all__ = ["IngestReport"]


@dataclass
class IngestReport:
    """Counts and rejects of one ingest.

    Attributes
    ----------
    n_read
        Structures found, readable or not.
    n_kept
        Structures that go into the campaign, without references.
    n_duplicates
        Structures that were in the campaign already.
    rejects
        All that was kept out, duplicates among them, in the order of reading.
    references, unknown_references
        Elemental ground states that were added, and elements for which none is known.
    elements
        Symbol → number of kept structures that hold it.
    unary
        Symbols of which a pure structure was kept.
    n_sites
        Sites a structure → number of structures, references among them (for estimates of cost).
    n_sites_references
        The same, references only.
    sources
        Files: name, SHA-256, structures kept.
    systems
        Atomic numbers of a structure (sorted) → number of kept structures and an example ``(label, source, line)``.
    """

    n_read: int = 0
    n_kept: int = 0
    n_duplicates: int = 0
    rejects: list[Reject] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)
    unknown_references: list[Reference] = field(default_factory=list)
    elements: Counter[str] = field(default_factory=Counter)
    unary: set[str] = field(default_factory=set)
    n_sites: Counter[int] = field(default_factory=Counter)
    n_sites_references: Counter[int] = field(default_factory=Counter)
    sources: list[dict[str, Any]] = field(default_factory=list)
    systems: dict[tuple[int, ...], tuple[int, tuple[str, str, int]]] = field(default_factory=dict)

    @property
    def n_rejected(self) -> int:
        """Structures that were kept out for another reason than being duplicates."""
        return len(self.rejects) - self.n_duplicates

    @property
    def n_total(self) -> int:
        """Entries of the structures file: kept structures and references."""
        return self.n_kept + len(self.references)

    def by_cause(self) -> dict[str, list[Reject]]:
        """Return the rejects grouped by cause, the most frequent cause first."""
        groups: dict[str, list[Reject]] = {}
        for reject in self.rejects:
            groups.setdefault(reject.cause, []).append(reject)
        return dict(sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])))

    def unsupported(self, species: Iterable[int]) -> tuple[int, set[int], tuple[str, str, int] | None]:
        """Return what a calculator that knows only some species cannot do.

        Parameters
        ----------
        species
            Atomic numbers that it knows.

        Returns
        -------
        count
            Kept structures that hold another species.
        missing
            The species that it does not know.
        example
            Label, source and line of the first such structure.
        """
        known = frozenset(species)
        count, missing, example = 0, set(), None
        for system, (n, first) in self.systems.items():
            unknown = [z for z in system if z not in known]
            if unknown:
                count += n
                missing.update(unknown)
                example = example or first
        return count, missing, example

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON values, every reject included."""
        return {
            "n_read": self.n_read,
            "n_kept": self.n_kept,
            "n_duplicates": self.n_duplicates,
            "n_rejected": self.n_rejected,
            "n_references": len(self.references),
            "n_total": self.n_total,
            "causes": {cause: len(items) for cause, items in self.by_cause().items()},
            "rejects": [reject.as_dict() for reject in self.rejects],
            "references": [{"element": r.symbol, "origin": r.origin} for r in self.references],
            "unknown_references": [
                {"element": r.symbol, "problem": r.problem} for r in self.unknown_references
            ],
            "elements": {symbol: self.elements[symbol] for symbol in sorted(self.elements)},
            "n_sites": {str(n): self.n_sites[n] for n in sorted(self.n_sites)},
            "sources": self.sources,
        }
