"""Delivery of notices: a webhook (JSON by POST) and e-mail, as ``[notify]`` of ``matcompute.toml`` says."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from matcompute.campaign.state.notices import EVENTS, NoticeRow, due_notices, set_notice
from matcompute.centres.limits import backoff_s
from matcompute.delivery import DeliveryError, secret, send_email, send_webhook
from matcompute.times import utc_text

if TYPE_CHECKING:
    from matcompute.campaign.state import State
    from matcompute.workspace.options import NotifyOptions

__all__ = ["MOST_TRIES", "Notifier", "deliver", "payload"]

LOGGER = logging.getLogger(__name__)
#: Times that a delivery is tried: over about half a day.
MOST_TRIES = 12


def payload(notice: NoticeRow, workspace: str = "") -> dict[str, Any]:
    """Return what a webhook gets; ``text`` is what chat services show."""
    return {
        "schema": "matcompute.notice/v1",
        "event": notice.event,
        "what": EVENTS.get(notice.event, notice.event),
        "text": f"[matcompute] {notice.text}",
        "campaign": notice.campaign or None,
        "centre": notice.centre or None,
        "workspace": workspace or None,
        "time": utc_text(notice.created),
        "id": notice.key,
    }


def deliver(state: State, options: NotifyOptions, workspace: str = "") -> int:
    """Deliver what is due; return how many notices were. What fails is tried again later, less and less often.

    Parameters
    ----------
    state
        The tables.
    options
        Where to. A notice of an event that nobody wants to hear of counts as delivered.
    workspace
        Its title or folder, for people with several.
    """
    with state.read() as connection:
        due = due_notices(connection, now=time.time(), most_tries=MOST_TRIES)
    count = 0
    for notice in due:
        errors = []
        if notice.event in options.events:
            for channel in (_webhook, _email):
                try:
                    channel(options, notice, workspace)
                except DeliveryError as error:
                    errors.append(error.message)
        now = time.time()
        with state.write() as connection:
            if errors:
                wait = backoff_s(notice.tries + 1, first=20.0, longest=3 * 3600.0)
                set_notice(
                    connection,
                    notice.id,
                    tries=notice.tries + 1,
                    next_try=now + wait,
                    error="; ".join(errors),
                )
            else:
                set_notice(connection, notice.id, delivered=now, tries=notice.tries + 1, error="")
                count += 1
    return count


class Notifier(threading.Thread):
    """Delivers notices beside the dispatcher's loop, which no slow mail server holds up.

    Parameters
    ----------
    state
        The tables.
    options
        Returns the settings as they are now.
    workspace
        Its name for people.
    """

    EVERY_S = 3.0

    def __init__(self, state: State, options: Callable[[], NotifyOptions], workspace: str) -> None:
        super().__init__(name="notifier", daemon=True)
        self.state, self.options, self.workspace = state, options, workspace
        self._stop_now = threading.Event()

    def run(self) -> None:
        """Deliver until :meth:`stop`, and what is due then."""
        while True:
            last = self._stop_now.wait(self.EVERY_S)
            options = self.options()
            if options.active:
                try:
                    deliver(self.state, options, self.workspace)
                except Exception:
                    LOGGER.exception("notices")
            if last:
                return

    def stop(self, timeout: float = 10.0) -> None:
        """Deliver what is due and end."""
        self._stop_now.set()
        if self.is_alive():
            self.join(timeout)


def _webhook(options: NotifyOptions, notice: NoticeRow, workspace: str) -> None:
    if options.webhook:
        token = secret(options.webhook_token_env)
        send_webhook(options.webhook, payload(notice, workspace), token=token)


def _email(options: NotifyOptions, notice: NoticeRow, workspace: str) -> None:
    if options.email:
        where = f"\nworkspace: {workspace}" if workspace else ""
        text = f"{notice.text}\n\nevent: {EVENTS.get(notice.event, notice.event)}{where}\n"
        send_email(options.email, f"[matcompute] {notice.text}", text, at=notice.created)
