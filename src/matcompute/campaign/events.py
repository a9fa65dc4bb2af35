"""Events that people are told of, written in the transaction that makes them happen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matcompute.campaign.state.notices import add_notice

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from matcompute.campaign.state.campaigns import CampaignRow
    from matcompute.centres import Centre

__all__ = ["WARN_AT", "budget_events", "finished_event", "quota_events", "stopped_event"]

#: Share of a budget or quota at which people are warned.
WARN_AT = 0.8


def finished_event(connection: Connection, row: CampaignRow, dataset: str) -> None:
    """A campaign is finished."""
    add_notice(
        connection,
        f"campaign/{row.uuid}/done/{row.revision}",
        "done",
        f"campaign '{row.name}' is finished: {dataset}",
        campaign=row.name,
    )


def stopped_event(connection: Connection, row: CampaignRow, reason: str, hint: str = "") -> None:
    """A campaign waits for a person; each reason is told once in an hour."""
    import time

    text = f"campaign '{row.name}' waits for you: {reason}" + (f"\nwhat to do: {hint}" if hint else "")
    key = f"campaign/{row.uuid}/stalled/{int(time.time() // 3600)}/{reason}"
    add_notice(connection, key, "stalled", text, campaign=row.name)


def budget_events(connection: Connection, row: CampaignRow) -> None:
    """A campaign has used 80 % or all of its budget; each is told once for each budget."""
    if not row.budget_core_s:
        return
    share = row.core_s / row.budget_core_s
    used, limit = row.core_s / 3600, row.budget_core_s / 3600
    for at in (1.0, WARN_AT):
        if share >= at:
            end = "; nothing more is submitted" if at >= 1.0 else ""
            add_notice(
                connection,
                f"campaign/{row.uuid}/budget/{row.budget_core_s:.0f}/{at:g}",
                "budget",
                f"campaign '{row.name}' has used {used:.3g} of {limit:.3g} core-hours ({share:.0%}){end}",
                campaign=row.name,
            )
            return


def quota_events(connection: Connection, centre: Centre, used: dict[tuple[str, str], float]) -> None:
    """A project has used 80 % or all of its quota at a centre; each is told once for each quota."""
    for project in centre.projects:
        if not project.quota_core_h:
            continue
        hours = used.get((centre.id, project.account), 0.0) / 3600
        share = hours / project.quota_core_h
        for at in (1.0, WARN_AT):
            if share >= at:
                end = "; nothing more is submitted there" if at >= 1.0 else ""
                add_notice(
                    connection,
                    f"centre/{centre.id}/quota/{project.account}/{project.quota_core_h:g}/{at:g}",
                    "budget",
                    f"project '{project.account}' at centre '{centre.id}' has used {hours:.3g} of "
                    f"{project.quota_core_h:.3g} core-hours ({share:.0%}){end}",
                    centre=centre.id,
                )
                break
