"""How far a long command is: a bar on a terminal, a line now and then in a job's log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress_bar"]

#: Seconds between the lines of a log.
_EVERY_S = 30.0


@contextmanager
def progress_bar(
    text: str, *, unit: str = "structures", quiet: bool = False, every_s: float = _EVERY_S
) -> Iterator[Callable[[int, int], None]]:
    """Yield what is called with the number done and the number in all.

    Parameters
    ----------
    text
        What is going on.
    unit
        What is counted.
    quiet
        Show nothing (ranks other than 0).
    every_s
        Where stderr is no terminal: seconds between its lines.
    """
    if quiet:
        yield lambda done, total: None
        return
    if not sys.stderr.isatty():
        yield _Log(text, unit, every_s)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text, total=None, rate="")
        begun: list[tuple[float, int]] = []

        def show(done: int, total: int) -> None:
            begun.append((time.monotonic(), done)) if not begun else None
            bar.update(task, completed=done, total=total, rate=_rate(done, *begun[0]))

        yield show


class _Log:
    def __init__(self, text: str, unit: str, every_s: float) -> None:
        self.text, self.unit, self.every_s = text, unit, every_s
        self.told = time.monotonic()
        self.begun: tuple[float, int] | None = None

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        self.begun = self.begun or (now, done)
        if now - self.told < self.every_s:
            return
        self.told = now
        rate = _rate(done, *self.begun)
        print(
            f"{self.text}: {done:,} of {total:,} {self.unit}{', ' + rate if rate else ''}",
            file=sys.stderr,
            flush=True,
        )


def _rate(done: int, begun: float, first: int) -> str:
    """What is done a second since the first report (what was found done before does not count)."""
    seconds = time.monotonic() - begun
    return f"{(done - first) / seconds:,.0f}/s" if seconds > 0.5 and done > first else ""
