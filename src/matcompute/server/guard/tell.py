"""Tell people of alerts by a webhook (JSON by POST), from a thread of its own: no receiver holds a record up."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Mapping
from typing import Any

from matcompute.errors import MatcomputeError

__all__ = ["DeliveryError", "Teller", "payload"]

_LOG = logging.getLogger(__name__)
#: Alerts that wait at most (a rule is quiet for a while after each), seconds for one delivery, tries of each.
_WAITING, _SECONDS, _TRIES = 1000, 15.0, 12


class DeliveryError(MatcomputeError):
    """An alert cannot be delivered."""


def payload(alert: Mapping[str, Any], node: str) -> dict[str, Any]:
    """Return what the webhook gets; ``text`` is what chat services show."""
    kept = ("at", "rule", "subject", "principal", "address", "dataset_id")
    return {
        "schema": "matcompute.alert/v1",
        "text": f"[{node}] {alert.get('message', '')}",
        "node": node,
        **{name: alert.get(name) for name in kept},
    }


def _value(text: str, what: str) -> str:
    """Return a setting; one that begins with ``$`` names the environment variable that holds it."""
    if not text.startswith("$"):
        return text
    value = os.environ.get(text[1:])
    if not value:
        raise DeliveryError(f"{what}: the environment variable {text[1:]} is not set where the server runs")
    return value


class Teller:
    """Deliver alerts in their order; one that fails is tried again, less and less often, for about half a day.

    Parameters
    ----------
    webhook
        Address, or ``$NAME`` of the environment variable that holds it; empty: nobody is told.
    token
        ``$NAME`` of the environment variable that holds a bearer token; empty: none is sent.
    node
        Id of the node.
    first_wait
        Seconds before the second try; doubled for each after it, up to an hour and a half.

    Notes
    -----
    An alert that is not delivered when the server ends is told no more: it is in the audit, as all are.
    """

    def __init__(self, webhook: str, token: str, node: str, first_wait: float = 10.0) -> None:
        self.webhook, self.token, self.node = webhook, token, node
        self.first_wait = first_wait
        self.delivered = self.lost = 0
        self._queue: queue.Queue[Mapping[str, Any] | None] = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._lock = threading.Lock()

    def tell(self, alert: Mapping[str, Any]) -> None:
        """Have an alert delivered; returns at once."""
        if not self.webhook:
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
        wait = self.first_wait
        for attempt in range(1, _TRIES + 1):
            ending = self._ending.is_set()
            try:
                self._send(payload(alert, self.node))
            except DeliveryError as error:
                last = ending or attempt == _TRIES
                _LOG.error("alert not told (try %d): %s", attempt, error.message)
                if last:
                    self.lost += 1
                    return
            else:
                self.delivered += 1
                return
            self._ending.wait(wait)
            wait = min(2 * wait, 5400.0)

    def _send(self, content: dict[str, Any]) -> None:
        import httpx

        headers = {"User-Agent": "matcompute"}
        if self.token:
            headers["Authorization"] = f"Bearer {_value(self.token, 'alerts.webhook_token')}"
        url = _value(self.webhook, "alerts.webhook")
        begin = time.monotonic()
        try:
            answer = httpx.post(url, json=content, headers=headers, timeout=_SECONDS)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            # The address may be a secret itself: it is not written down.
            raise DeliveryError(
                f"webhook: {type(error).__name__} after {time.monotonic() - begin:.1f} s"
            ) from error
        if not 200 <= answer.status_code < 300:
            raise DeliveryError(f"webhook: status {answer.status_code}")
