"""``centre usage``: core-hours and GPU-hours as a table, JSON, or a picture."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matcompute.campaign.state.usage import GROUPINGS, UsageRow, project_core_s, usage_by, usage_over_time
from matcompute.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table
    from sqlalchemy import Connection

    from matcompute.centres import Centre

__all__ = ["Quota", "UsageReport", "parse_since", "usage_picture", "usage_report", "usage_table"]

_SINCE = re.compile(r"(\d+(?:\.\d+)?)\s*(h|d|w)\Z")
_SECONDS = {"h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


@dataclass(frozen=True)
class Quota:
    """How much of a project's quota at a centre is used.

    Attributes
    ----------
    centre, account
        Which.
    used_core_h, quota_core_h
        Core-hours since the first job of this workspace, and granted.
    """

    centre: str
    account: str
    used_core_h: float
    quota_core_h: float

    @property
    def share(self) -> float:
        """Used over granted."""
        return self.used_core_h / self.quota_core_h if self.quota_core_h else 1.0


@dataclass(frozen=True)
class UsageReport:
    """Usage of a workspace.

    Attributes
    ----------
    by
        The grouping.
    since
        From when, in s since the epoch; None: all.
    rows
        The largest first.
    quotas
        Of projects that have one.
    """

    by: str
    since: float | None
    rows: list[UsageRow]
    quotas: list[Quota]

    @property
    def core_h(self) -> float:
        """Core-hours of all rows."""
        return sum(row.core_h for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dictionary."""
        return {
            "schema": "matcompute.usage/v1",
            "by": self.by,
            "since": self.since,
            "core_h": self.core_h,
            "gpu_h": sum(row.gpu_h for row in self.rows),
            "jobs": sum(row.jobs for row in self.rows),
            "rows": [row.to_json() for row in self.rows],
            "quotas": [{**vars(quota), "share": quota.share} for quota in self.quotas],
        }


def parse_since(text: str, now: float | None = None) -> float:
    """Return the time of ``7d``, ``12h``, ``2w`` or ``2026-05-01`` in s since the epoch.

    Raises
    ------
    InputError
        If it is none of these.
    """
    match = _SINCE.match(text.strip())
    if match:
        return (time.time() if now is None else now) - float(match[1]) * _SECONDS[match[2]]
    try:
        return time.mktime(time.strptime(text.strip(), "%Y-%m-%d"))
    except ValueError as error:
        raise InputError(f"'{text}' is no time", hint="write 12h, 7d, 2w, or a day as 2026-05-01") from error


def usage_report(
    connection: Connection,
    centres: Mapping[str, Centre],
    *,
    by: str = "centre",
    since: float | None = None,
    centre: str | None = None,
    campaign: str | None = None,
) -> UsageReport:
    """Return what was used.

    Parameters
    ----------
    connection
        To the state tables.
    centres
        Profiles, for the quotas.
    by
        One of :data:`~matcompute.campaign.state.usage.GROUPINGS`.
    since, centre, campaign
        Only jobs that ended after, at, of.

    Raises
    ------
    InputError
        If the grouping is unknown.
    """
    if by not in GROUPINGS:
        raise InputError(f"usage cannot be shown by '{by}'{did_you_mean(by, GROUPINGS)}")
    rows = usage_by(connection, by, since=since, centre=centre, campaign_name=campaign)
    used = project_core_s(connection)
    quotas = [
        Quota(name, item.account, used.get((name, item.account), 0.0) / 3600, item.quota_core_h)
        for name, profile in centres.items()
        for item in profile.projects
        if item.quota_core_h is not None and centre in (None, name)
    ]
    return UsageReport(by, since, rows, quotas)


def usage_table(report: UsageReport) -> Table:
    """Return the table that people see."""
    from rich.table import Table

    from matcompute.campaign.progress import format_duration

    keys = list(report.rows[0].key) if report.rows else [report.by]
    table = Table(box=None, pad_edge=False, header_style="dim", show_footer=len(report.rows) > 1)
    total = {
        "jobs": str(sum(row.jobs for row in report.rows)),
        "core-hours": _hours(report.core_h),
        "GPU-hours": _hours(sum(row.gpu_h for row in report.rows)),
    }
    for number, key in enumerate(keys):
        table.add_column(key, footer="all" if number == 0 else "")
    for name in ("jobs", "core-hours", "GPU-hours", "job-hours", "mean wait", "by scheduler"):
        table.add_column(name, justify="right", footer=total.get(name, ""))
    for row in report.rows:
        table.add_row(
            *(value or "–" for value in row.key.values()),
            str(row.jobs),
            _hours(row.core_h),
            _hours(row.gpu_h),
            _hours(row.wall_h),
            "–" if row.wait_s is None else format_duration(row.wait_s),
            f"{row.accounted:.0%}",
        )
    return table


def _hours(value: float) -> str:
    return "0" if value == 0 else f"{value:.3g}"


def usage_picture(
    connection: Connection, path: Path, *, by: str = "centre", since: float | None = None
) -> Path:
    """Draw core-hours over time, summed up, one band a group.

    Parameters
    ----------
    connection
        To the state tables.
    path
        Picture file; its ending says the format (png, svg, pdf).
    by, since
        As in :func:`usage_report`.

    Raises
    ------
    InputError
        If there is nothing to draw, or the format is unknown.
    """
    import numpy as np

    jobs = usage_over_time(connection, by, since=since)
    if not jobs:
        raise InputError("no job has ended yet: there is nothing to draw")
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import dates
    from matplotlib import pyplot as plt

    names = sorted({name for name, _, _ in jobs})
    when = np.array([end for _, end, _ in jobs])
    steps = np.zeros((len(names), len(jobs)))
    for place, (name, _, hours) in enumerate(jobs):
        steps[names.index(name), place] = hours
    total = np.cumsum(steps, axis=1)
    order = np.argsort(-total[:, -1])
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    x = dates.date2num(np.array(when, dtype="datetime64[s]").astype("O"))
    axes.stackplot(
        x, total[order], labels=[f"{names[k]}: {_hours(total[k, -1])}" for k in order], step="post"
    )
    locator = dates.AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    axes.set_xlabel("end of the job (UTC)")
    axes.set_ylabel("core-hours, summed up")
    axes.legend(loc="upper left", title=by)
    try:
        figure.savefig(path, dpi=150)
    except (ValueError, OSError) as error:
        raise InputError(
            f"cannot draw {path}: {error}", hint="name it usage.png, usage.svg or usage.pdf"
        ) from error
    finally:
        plt.close(figure)
    return path
