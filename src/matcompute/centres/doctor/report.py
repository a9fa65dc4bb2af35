"""What the doctor finds: faults by name, each with its fix, in steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["DoctorReport", "Finding", "State", "Step", "worst"]

State = Literal["ok", "warn", "fail", "skip"]
_ORDER: tuple[State, ...] = ("skip", "ok", "warn", "fail")


@dataclass(frozen=True)
class Finding:
    """One fault.

    Attributes
    ----------
    fault
        Its name, for programs: ``wrong-partition``, ``disk-full``, …
    message
        What was found and where.
    fix
        What to do.
    state
        ``fail`` if jobs cannot run as the profile says, else ``warn``.
    repair
        Mends it, if that is safe; returns what it did.
    """

    fault: str
    message: str
    fix: str = ""
    state: Literal["warn", "fail"] = "fail"
    repair: Callable[[], str] | None = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-able."""
        return {
            "fault": self.fault,
            "state": self.state,
            "message": self.message,
            "fix": self.fix,
            "fixable": self.repair is not None,
        }


@dataclass(frozen=True)
class Step:
    """One step of the examination.

    Attributes
    ----------
    name
        ``schema``, ``login``, ``limits``, ``storage``, ``codes``, ``smoke`` or ``account``.
    state
        The worst of what was found; ``skip`` when the step could not be taken or does not apply.
    message
        In a line.
    findings
        The faults.
    fixed
        What was mended.
    seconds
        How long it took.
    details
        What was measured.
    """

    name: str
    state: State
    message: str
    findings: tuple[Finding, ...] = ()
    fixed: tuple[str, ...] = ()
    seconds: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def fix(self) -> str:
        """The fixes of all its faults, a line each."""
        return "\n".join(dict.fromkeys(item.fix for item in self.findings if item.fix))

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-able."""
        return {
            "step": self.name,
            "state": self.state,
            "message": self.message,
            "seconds": round(self.seconds, 3),
            "faults": [item.to_dict() for item in self.findings],
            "fixed": list(self.fixed),
            "details": self.details,
        }


@dataclass(frozen=True)
class DoctorReport:
    """The whole examination of a centre."""

    centre: str
    steps: tuple[Step, ...]

    @property
    def ok(self) -> bool:
        """Whether no step failed."""
        return all(step.state != "fail" for step in self.steps)

    @property
    def faults(self) -> tuple[str, ...]:
        """The names of all faults, warnings too, in order and once each."""
        return tuple(dict.fromkeys(item.fault for step in self.steps for item in step.findings))

    def step(self, name: str) -> Step:
        """Return a step by name."""
        return next(step for step in self.steps if step.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-able."""
        return {
            "centre": self.centre,
            "ok": self.ok,
            "faults": list(self.faults),
            "steps": [step.to_dict() for step in self.steps],
        }


def worst(findings: list[Finding]) -> State:
    """Return the state of a step with these faults."""
    states: list[State] = ["ok", *(item.state for item in findings)]
    return max(states, key=_ORDER.index)
