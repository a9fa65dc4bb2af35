"""What became of a value (`Status`) and what is known about an entry (`Quality`)."""

from __future__ import annotations

from enum import IntEnum, IntFlag

__all__ = ["Quality", "Status"]


class Status(IntEnum):
    """State of one result of one entry; stored as CF ``flag_values`` beside each result."""

    NOT_ATTEMPTED = 0
    OK = 1
    NOT_CONVERGED = 2
    EXPLODED = 3
    CRASHED = 4
    INVALID_INPUT = 5
    UNSUPPORTED_SPECIES = 6
    FIT_FAILED = 7
    MISSING_REFERENCE = 8
    NOT_SELECTED = 9
    LOST = 10
    TIMED_OUT = 11
    CANCELLED = 12

    # Names as written in files and by people.
    @property
    def label(self) -> str:
        """The name as stored in ``flag_meanings``."""
        return self.name.lower()

    @property
    def failed(self) -> bool:
        """Whether this is a failure that ``campaign retry --failed`` may take up again."""
        return self not in (Status.NOT_ATTEMPTED, Status.OK, Status.NOT_SELECTED)

    @property
    def keeps_value(self) -> bool:
        """Whether a value stands beside this status (else it is NaN, or -1 for integers)."""
        return self in (Status.OK, Status.NOT_CONVERGED)

    @property
    def describe(self) -> str:
        """The cause in one sentence."""
        return _TEXTS[self][0]

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return _TEXTS[self][1]


_TEXTS: dict[Status, tuple[str, str]] = {
    Status.NOT_ATTEMPTED: ("not computed yet", "run or resume the campaign"),
    Status.OK: ("computed", "nothing to do"),
    Status.NOT_CONVERGED: (
        "the steps ran out before a threshold was reached: of the forces, or of self-consistency",
        "raise `steps` (or `scf_steps`), loosen `fmax`, then `campaign retry --failed`",
    ),
    Status.EXPLODED: (
        "the structure flew apart: volume, forces or energy left every physical range",
        "check the starting volume and distances; the species may lie outside what the calculator was made for",
    ),
    Status.CRASHED: (
        "the calculator raised an error or its process died",
        "read the entry's message; retry once, then report it with the entry id",
    ),
    Status.INVALID_INPUT: (
        "the structure or the parameters were refused before any calculation",
        "mend the source structure (its file and line are in `dataset trace`)",
    ),
    Status.UNSUPPORTED_SPECIES: (
        "the calculator does not know one of the species",
        "choose another calculator for these elements, or leave them out of `structures`",
    ),
    Status.FIT_FAILED: (
        "no equation of state fits the energies",
        "look at eos_volume and eos_energy; widen `strain`, add `points`, or relax more tightly first",
    ),
    Status.MISSING_REFERENCE: (
        "an element of this entry has no reference energy",
        "add the element to `structures` or to the gate's `references`",
    ),
    Status.NOT_SELECTED: ("an earlier gate left this entry out", "loosen the gate to include it"),
    Status.LOST: (
        "the job vanished without a result",
        "`campaign retry --failed`; if it repeats, look at the centre's scheduler and disk",
    ),
    Status.TIMED_OUT: (
        "the time allowed for one structure, or the walltime, ran out",
        "raise `walltime`, or give fewer structures to a job, then `campaign retry --failed`",
    ),
    Status.CANCELLED: ("the campaign was cancelled before this was computed", "`campaign resume`"),
}


class Quality(IntFlag):
    """What is known about an entry as a whole; stored as CF ``flag_masks`` in ``/entries/quality``."""

    CONVERGED = 1
    FAILED = 2
    ELEMENTAL_REFERENCE = 4
    DECORATED_PROTOTYPE = 8
    SELECTED = 16
    RELAXED = 32
