"""What the user asks of campaigns (run, pause, resume, cancel, retry): flags that the dispatcher obeys."""

from __future__ import annotations

import difflib
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from matcompute.campaign.dispatcher.launch import dispatcher_alive, ensure_dispatcher
from matcompute.campaign.state import State
from matcompute.campaign.state.campaigns import (
    CampaignRow,
    by_id,
    by_name,
    find,
    register,
    set_campaign,
    stages_of,
)
from matcompute.campaign.state.centres import clear_blocks
from matcompute.campaign.state.counts import CampaignStatus, campaign_status
from matcompute.campaign.state.flow import retry_failed
from matcompute.campaign.state.models import CAMPAIGN_ACTIVE
from matcompute.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from matcompute.campaign.model import Campaign
    from matcompute.workspace import Workspace

__all__ = ["Registration", "cancel", "digest", "pause", "resume", "retry", "start", "status"]


@dataclass(frozen=True)
class Registration:
    """What ``campaign run FILE`` found or made."""

    row: CampaignRow
    created: bool

    @property
    def finished(self) -> bool:
        """Whether there is nothing to do."""
        return self.row.state == "finished"


def digest(campaign: Campaign) -> str:
    """Return the SHA-256 of what a campaign computes: comments, layout, budget and centres of its file do not count."""
    document = campaign.model_dump(mode="json", by_alias=True, exclude={"budget", "name", "centres"})
    for part in (*document["stages"], *document["structures"]):
        part.pop("line", None)  # where it stands in the file says nothing about what it is
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def start(workspace: Workspace, state: State, file: Path, *, name: str | None = None) -> Registration:
    """Register a campaign file, or find the campaign that was registered from it, and have it worked on.

    Parameters
    ----------
    workspace, state
        Where.
    file
        The campaign file.
    name
        Register under another name.

    Raises
    ------
    InputError
        If the file has problems, or a campaign of that name exists and the file now says something else.
    """
    from matcompute.campaign.check import check_campaign
    from matcompute.campaign.model import Campaign
    from matcompute.centres.registry import load_centres

    campaign = Campaign.load(file)
    text = Path(file).read_text(encoding="utf-8")
    chosen = name or campaign.name
    _check_name(chosen)
    # Missing files, absent packages, a centre without clearance: said now, not in a log.
    check_campaign(campaign, centres=load_centres(workspace), structures=False)
    wanted = digest(campaign)
    hours = campaign.budget.core_hours
    budget = None if hours is None else 3600.0 * hours
    with state.write() as connection:
        row = by_name(connection, chosen)
        created = row is None
        if row is None:
            row = register(
                connection,
                name=chosen,
                title=campaign.title,
                file=str(Path(file).absolute()),
                text=text,
                digest=wanted,
                budget_core_s=budget,
                stages=[(s.name, s.kind, s.is_gate) for s in campaign.stages],
            )
        else:
            if row.digest != wanted:
                raise _changed(row, text, file)
            if row.text != text or row.budget_core_s != budget:
                # What may change while it runs: where it runs, what it may use.
                set_campaign(connection, row.id, budget_core_s=budget, text=text)
            row = by_id(connection, row.id)
            if row.state in ("stopped", "over-budget", "paused") or row.wanted == "pause":
                _revive(connection, row)
            elif row.state == "cancelled":
                raise InputError(
                    f"campaign '{chosen}' was cancelled",
                    hint=f"take it up again with: matcompute campaign resume {chosen}; "
                    "or run the file anew under another name with --name",
                )
            row = by_id(connection, row.id)
    if row.state != "finished":
        ensure_dispatcher(workspace, state)
    return Registration(row, created)


def pause(state: State, name: str) -> CampaignRow:
    """Submit nothing more of a campaign; batches in flight are finished and recorded."""
    with state.write() as connection:
        row = find(connection, name)
        if row.state in ("finished", "cancelled"):
            raise InputError(f"campaign '{name}' is {row.state}; there is nothing to pause")
        if row.state in CAMPAIGN_ACTIVE:
            set_campaign(
                connection, row.id, wanted="pause", state="paused", reason="paused by the user", hint=""
            )
        return by_id(connection, row.id)


def resume(workspace: Workspace, state: State, name: str, *, core_hours: float | None = None) -> CampaignRow:
    """Go on with a campaign that is paused, stopped, cancelled or out of budget, or whose dispatcher died.

    Parameters
    ----------
    workspace, state, name
        Which.
    core_hours
        New budget.

    Raises
    ------
    InputError
        If the budget is still used up.
    """
    with state.write() as connection:
        row = find(connection, name)
        if core_hours is not None:
            if core_hours <= 0:
                raise InputError(f"a budget of {core_hours:g} core-hours allows nothing")
            set_campaign(connection, row.id, budget_core_s=3600.0 * core_hours)
            row = by_id(connection, row.id)
        if row.state == "finished":
            return row
        if row.budget_core_s is not None and row.core_s >= row.budget_core_s:
            used, limit = row.core_s / 3600, row.budget_core_s / 3600
            raise InputError(
                f"campaign '{name}' has used {used:.3g} of {limit:.3g} core-hours",
                hint=f"raise its budget: matcompute campaign resume {name} --core-hours {_round_up(2 * used):g}",
            )
        if row.state not in CAMPAIGN_ACTIVE or row.wanted != "run":
            _revive(connection, row)
        row = by_id(connection, row.id)
    ensure_dispatcher(workspace, state)
    return row


def cancel(workspace: Workspace, state: State, name: str, *, timeout: float = 60.0) -> CampaignRow:
    """End a campaign: kill its processes and jobs. What was finished is kept, and ``resume`` takes it up again."""
    with state.write() as connection:
        row = find(connection, name)
        if row.state in ("finished", "cancelled"):
            return row
        set_campaign(connection, row.id, wanted="cancel")
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        ensure_dispatcher(workspace, state)
        with state.read() as connection:
            row = by_id(connection, row.id)
        if row.state in ("cancelled", "finished") or row.wanted != "cancel":
            break
        time.sleep(0.1)
    return row


def retry(
    workspace: Workspace, state: State, name: str, *, stages: Sequence[str] | None = None
) -> tuple[CampaignRow, int]:
    """Compute failed materials again; return the campaign and how many there are.

    Parameters
    ----------
    workspace, state, name
        Which.
    stages
        Only these compute stages.
    """
    with state.write() as connection:
        row = find(connection, name)
        known = stages_of(connection, row.id)
        for chosen in stages or ():
            compute = [s.name for s in known if not s.is_gate]
            if chosen not in compute:
                raise InputError(
                    f"campaign '{name}' has no compute stage '{chosen}'{did_you_mean(chosen, compute)}"
                )
        count = retry_failed(connection, known, stages)
        if count:
            if row.state == "finished":
                set_campaign(connection, row.id, revision=row.revision + 1, finished=None)
            _revive(connection, row)
        row = by_id(connection, row.id)
    if count:
        ensure_dispatcher(workspace, state)
    return row, count


def status(workspace: Workspace, state: State, name: str) -> CampaignStatus:
    """Return how far a campaign is."""
    with state.read() as connection:
        found = campaign_status(connection, find(connection, name).id)
    if found.dispatcher_pid is not None and not dispatcher_alive(workspace):
        import dataclasses

        found = dataclasses.replace(found, dispatcher_pid=None, message="")
    return found


def _revive(connection: object, row: CampaignRow) -> None:
    to = "registered" if row.structures_uuid is None else "running"
    set_campaign(connection, row.id, state=to, wanted="run", reason="", hint="")  # type: ignore[arg-type]
    # Whoever goes on has mended what was said: centres that were left alone are tried again.
    clear_blocks(connection)  # type: ignore[arg-type]


def _check_name(name: str) -> None:
    import re

    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise InputError(
            f"'{name}' is not a campaign name",
            hint="use lower-case letters, digits and hyphens, for example al-cu-2",
        )


def _changed(row: CampaignRow, text: str, file: Path) -> InputError:
    lines = [
        line.rstrip()
        for line in difflib.unified_diff(row.text.splitlines(), text.splitlines(), lineterm="", n=0)
        if line[:1] in "+-" and line[:3] not in ("+++", "---")
    ]
    shown = lines[:12] + ([f"… {len(lines) - 12} more lines"] if len(lines) > 12 else [])
    return InputError(
        f"{file}: campaign '{row.name}' ({row.state}) was registered from a different file; changed since:\n    "
        + "\n    ".join(shown or ["(the same text, read by another version of matcompute)"]),
        hint=f"run it as a new campaign with --name {row.name}-2, or undo the change; "
        f"to compute only what failed again: matcompute campaign retry {row.name} --failed",
    )


def _round_up(hours: float) -> float:
    from math import floor, log10

    unit = 10 ** floor(log10(hours)) if hours > 0 else 1.0
    return float(f"{unit * -(-hours // unit):.6g}")
