"""Tell people of alerts by webhook and e-mail, from a thread of its own: no receiver holds a record up."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from matcompute.delivery import DeliveryError, secret, send_email, send_webhook

if TYPE_CHECKING:
    from matcompute.server.guard.alerts import AlertRules

__all__ = ["Teller", "letter", "payload"]

_LOG = logging.getLogger(__name__)
#: Alerts that wait at most (a rule is quiet for a while after each), and tries of each.
_WAITING, _TRIES = 1000, 12
_KEPT = ("at", "rule", "subject", "principal", "address", "dataset_id")


def payload(alert: Mapping[str, Any], node: str) -> dict[str, Any]:
    """Return what the webhook gets; ``text`` is what chat services show."""
    return {
        "schema": "matcompute.alert/v1",
        "text": f"[{node}] {alert.get('message', '')}",
        "node": node,
        **{name: alert.get(name) for name in _KEPT},
    }


def letter(alert: Mapping[str, Any], node: str) -> tuple[str, str]:
    """Return subject and text of the mail of an alert."""
    said = payload(alert, node)
    facts = [f"{name}: {said[name]}" for name in _KEPT if said[name]]
    how = "All alerts, and the requests around this one: matcompute node alerts, matcompute node audit"
    return str(said["text"]), "\n".join([str(alert.get("message", "")), "", *facts, "", how, ""])


def _value(text: str, what: str) -> str:
    """Return a setting; one that begins with ``$`` names the environment variable that holds it."""
    if not text.startswith("$"):
        return text
    try:
        return secret(text[1:]) or ""
    except DeliveryError as error:
        raise DeliveryError(f"{what}: {error.message}") from error


class Teller:
    """Deliver alerts in their order; one that fails is tried again, less and less often, for about half a day.

    Parameters
    ----------
    rules
        Their ``webhook`` and ``email`` say where to; with neither, nobody is told.
    node
        Id of the node.
    first_wait
        Seconds before the second try; doubled for each after it, up to an hour and a half.

    Notes
    -----
    What one of the two ways took is not sent there again when the other one fails. An alert that is not delivered when
    the server ends is told no more: it is in the audit, as all are.
    """

    def __init__(self, rules: AlertRules, node: str, first_wait: float = 10.0) -> None:
        self.rules, self.node = rules, node
        self.first_wait = first_wait
        self.delivered = self.lost = 0
        self._ways: list[Callable[[Mapping[str, Any]], None]] = []
        if rules.webhook:
            self._ways.append(self._post)
        if rules.email is not None:
            self._ways.append(self._mail)
        self._queue: queue.Queue[Mapping[str, Any] | None] = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._lock = threading.Lock()

    def tell(self, alert: Mapping[str, Any]) -> None:
        """Have an alert delivered; returns at once."""
        if not self._ways:
            return
        with self._lock:
            if self._thread is None:
                self._ending.clear()
                self._thread = threading.Thread(target=self._run, name="matcompute-alerts", daemon=True)
                self._thread.start()
        try:
            self._queue.put_nowait(alert)
        except queue.Full:
            self.lost += 1
            _LOG.error("alert not told, too many wait: %s", alert.get("message"))

    def stop(self, seconds: float = 5.0) -> None:
        """Try once more what waits, and end the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._ending.set()
            with contextlib.suppress(queue.Full):
                self._queue.put_nowait(None)  # wakes it
            thread.join(seconds)

    def _run(self) -> None:
        while True:
            try:
                alert = self._queue.get(timeout=1.0)
            except queue.Empty:
                alert = None
            if alert is not None:
                self._deliver(alert)
            elif self._ending.is_set() and self._queue.empty():
                return

    def _deliver(self, alert: Mapping[str, Any]) -> None:
        wait, left = self.first_wait, list(self._ways)
        for attempt in range(1, _TRIES + 1):
            last = self._ending.is_set() or attempt == _TRIES
            for way in tuple(left):
                try:
                    way(alert)
                    left.remove(way)
                except DeliveryError as error:
                    _LOG.error("alert not told (try %d): %s", attempt, error.message)
            if not left:
                self.delivered += 1
                return
            if last:
                self.lost += 1
                return
            self._ending.wait(wait)
            wait = min(2 * wait, 5400.0)

    def _post(self, alert: Mapping[str, Any]) -> None:
        token = _value(self.rules.webhook_token, "alerts.webhook_token") or None
        url = _value(self.rules.webhook, "alerts.webhook")
        send_webhook(url, payload(alert, self.node), token=token)

    def _mail(self, alert: Mapping[str, Any]) -> None:
        if self.rules.email is not None:
            send_email(self.rules.email, *letter(alert, self.node))
