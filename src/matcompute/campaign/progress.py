"""Live progress of a campaign: a rich display on a terminal, plain lines elsewhere. Ctrl-C detaches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from matcompute.campaign.control import status
from matcompute.campaign.dispatcher.launch import (
    LOG_NAME,
    DispatcherError,
    dispatcher_processes,
    ensure_dispatcher,
    last_words,
)
from matcompute.campaign.state import State
from matcompute.campaign.state.counts import CampaignStatus, StageStatus

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from matcompute.workspace import Workspace

__all__ = ["ENDED", "follow", "format_core_hours", "format_duration", "outcome", "render", "watch"]

#: States in which nothing moves until the user does something.
ENDED = ("finished", "stopped", "cancelled", "paused", "over-budget")


#: Dispatchers that may die one after the other without any progress before the command that watches gives up.
MAX_STARTS = 5


def follow(
    workspace: Workspace, state: State, name: str, *, interval: float = 0.25, ensure: bool = True
) -> Iterator[CampaignStatus]:
    """Yield how far a campaign is, again and again, until nothing moves any more.

    A dispatcher that died is started again on the way (with ``ensure``).
    """
    alive = checked = time.monotonic()
    starts, before = 0, None
    while True:
        begun = time.monotonic()
        found = status(workspace, state, name)
        yield found
        if found.state in ENDED and (found.state != "paused" or not _busy(found)):
            return
        alive = begun if found.dispatcher_pid is not None else alive
        if ensure and begun - checked > 2.0:
            checked = begun
            moved = [(part.state, part.n_total, part.n_done, part.n_running) for part in found.stages]
            if (found.state, moved) != before:
                starts, before = 0, (found.state, moved)
            starts += ensure_dispatcher(workspace, state, wait=False)
            if starts > MAX_STARTS:
                raise DispatcherError(
                    f"the dispatcher has died {MAX_STARTS} times and nothing moved: {last_words(workspace)}",
                    hint=f"its log: {workspace.logs_dir / LOG_NAME}",
                )
        if not ensure and begun - alive > 5.0:
            if not dispatcher_processes(workspace):
                workspace.require_writable()
                raise DispatcherError(
                    f"nothing moves: no dispatcher works on campaign '{name}' ({found.state}) {last_words(workspace)}",
                    hint=f"matcompute campaign resume {name}",
                )
            alive = begun  # one is about to begin
        # Counting a million tasks takes a while: never spend more than a tenth of the time on it.
        time.sleep(max(interval, 10 * (time.monotonic() - begun)))


def _busy(found: CampaignStatus) -> bool:
    return found.dispatcher_pid is not None and any(part.batches_open for part in found.stages)


def watch(
    workspace: Workspace,
    state: State,
    name: str,
    *,
    console: Console,
    live: bool | None = None,
    ensure: bool = True,
) -> CampaignStatus | None:
    """Show a campaign until nothing moves any more; return how it stands, or None if the user detached.

    Parameters
    ----------
    workspace, state, name
        Which.
    console
        Where to.
    live
        A display that is redrawn; default: on a terminal. Otherwise a line for each change.
    ensure
        Keep a dispatcher alive meanwhile.
    """
    redraw = console.is_terminal if live is None else live
    try:
        if redraw:
            return _watch_live(workspace, state, name, console, ensure)
        return _watch_plain(workspace, state, name, console.print, ensure)
    except KeyboardInterrupt:
        console.print(
            f"\ndetached; campaign '{name}' goes on. Watch it again: matcompute campaign status {name} --watch"
        )
        return None


def _watch_live(
    workspace: Workspace, state: State, name: str, console: Console, ensure: bool
) -> CampaignStatus:
    from rich.live import Live

    with Live(console=console, refresh_per_second=8, transient=False) as live:
        for found in follow(workspace, state, name, ensure=ensure):
            live.update(render(found))
    return found


def _watch_plain(
    workspace: Workspace, state: State, name: str, echo: Callable[[str], None], ensure: bool
) -> CampaignStatus:
    said: dict[str, str] = {}
    last = 0.0
    for found in follow(workspace, state, name, ensure=ensure):
        now = time.monotonic()
        due = now - last > 10.0
        for part in found.stages:
            # Each stage's start and end at once, what is between every ten seconds.
            text = _plain_stage(part)
            settled = part.state == "finished" or part.name not in said
            if part.n_total and said.get(part.name) != text and (settled or due):
                echo(f"  {text}")
                said[part.name] = text
                last = now
        line = found.reason or found.message
        if line and said.get("") != line and found.state not in ENDED:
            echo(f"  {line}")
            said[""] = line
    return found


def _plain_stage(part: StageStatus) -> str:
    text = f"{part.name}: {part.n_done}/{part.n_total}"
    if part.is_gate:
        return text + f", {part.n_ok} passed"
    text += f", {part.n_failed} failed" if part.n_failed else ""
    return text + (f", {part.rate:.3g}/s" if part.rate and part.state != "finished" else "")


def render(found: CampaignStatus) -> RenderableType:
    """Return a picture of a campaign's state: a line a stage, and one for the whole."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    head = Text.assemble((found.name, "bold"), "  ", (found.title, "dim"))
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    for column, justify in (
        ("stage", "left"),
        ("", "left"),
        ("done", "right"),
        ("good", "right"),
        ("failed", "right"),
        ("rate", "right"),
        ("", "left"),
    ):
        table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for part in found.stages:
        bar = ProgressBar(total=max(part.n_total, 1), completed=part.n_done, width=24, finished_style="green")
        failed = Text(str(part.n_failed), style="red" if part.n_failed and not part.is_gate else "dim")
        table.add_row(
            Text(part.name, style="bold" if part.state == "running" else ""),
            bar,
            f"{part.n_done}/{part.n_total}" if part.n_total else "–",
            str(part.n_ok) if part.n_done else "",
            "" if part.is_gate or not part.n_done else failed,
            f"{part.rate:.3g}/s" if part.rate and part.state == "running" else "",
            Text(_note(part), style="dim"),
        )
    return Group(head, table, Text(_footer(found), style="dim"))


def _note(part: StageStatus) -> str:
    if part.is_gate:
        return "gate" if part.state != "finished" else f"gate, {part.n_failed} did not pass"
    if part.batches_open:
        return f"{part.batches_open} batch{'es' if part.batches_open > 1 else ''} in flight"
    return ""


def _footer(found: CampaignStatus) -> str:
    end = found.finished or time.time()
    parts = [found.state, format_duration(end - found.created)]
    eta = found.eta_s
    if found.state == "running" and eta:
        parts.append(f"about {format_duration(eta)} left in these stages")
    hours = format_core_hours(found.core_s)
    if found.budget_core_s is not None:
        hours += f" of {found.budget_core_s / 3600:.3g}"
    parts.append(f"{hours} core-hours")
    failed = sum(part.n_failed for part in found.stages if not part.is_gate)
    if failed:
        parts.append(f"{failed} failed")
    if found.state not in ENDED:
        if found.dispatcher_pid is None:
            parts.append("no dispatcher is alive")
        elif found.message:
            parts.append(found.message)
    return " · ".join(parts)


def outcome(found: CampaignStatus) -> list[str]:
    """Return the lines that tell how a campaign stands and what to do next."""
    name = found.name
    lines = []
    failed = sum(part.n_failed for part in found.stages if not part.is_gate)
    if found.state == "finished" and found.dataset:
        took = format_duration((found.finished or found.created) - found.created)
        lines.append(
            f"finished: {found.n_materials} structures, {format_core_hours(found.core_s)} core-hours, {took}"
        )
        lines.append(f"dataset: {found.dataset}")
        if failed:
            lines.append(f"{failed} failed, and why: matcompute campaign failures {name}")
        lines.append(f"results: matcompute campaign report {name}")
        return lines
    lines.append(f"{found.state}: {found.reason}" if found.reason else found.state)
    if found.hint:
        lines.append(f"  hint: {found.hint}")
    elif found.state in ("paused", "cancelled", "stopped"):
        lines.append(f"  hint: matcompute campaign resume {name}")
    return lines


def format_duration(seconds: float) -> str:
    """Return a duration as people say it: ``42 s``, ``3 min 20 s``, ``2 h 05 min``."""
    seconds = max(seconds, 0.0)
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def format_core_hours(core_s: float) -> str:
    """Return core-hours with three significant figures."""
    return f"{core_s / 3600:.3g}"
