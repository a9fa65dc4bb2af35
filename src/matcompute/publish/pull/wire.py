"""What goes over the wire: requests to a node, tried again as long as it makes sense."""

from __future__ import annotations

import ipaddress
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from matcompute.errors import InputError
from matcompute.publish.canonical import MAX_BYTES
from matcompute.publish.pull.errors import Gone, PullError, Unreachable

if TYPE_CHECKING:
    import httpx

__all__ = ["Stopped", "Wire"]

T = TypeVar("T")
_PAGE_BYTES = 16 << 20
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class Stopped(PullError):
    """The user wants to stop."""


class _Again(Exception):
    """The node asks, or gives reason, to try again."""

    def __init__(self, what: str, after: float | None = None) -> None:
        super().__init__(what)
        self.after = after


class Wire:
    """A node's pull door over HTTP.

    Parameters
    ----------
    url
        Address of the node.
    token
        What the node gave us for more than public data.
    jobs
        Connections at once.
    patience
        Seconds without any good answer after which we give up.
    timeout
        Seconds without a byte after which a connection counts as dead.

    Raises
    ------
    InputError
        If the address is none, or a token would go over an open line.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        jobs: int = 4,
        patience: float = 60.0,
        timeout: float = 30.0,
    ) -> None:
        import httpx

        import matcompute

        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise InputError(f"'{url}' is not an address: {error}") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise InputError(f"'{url}' is not an address", hint="write for example https://node.example.org")
        if token is not None and parsed.scheme == "http" and not _loopback(parsed.host):
            raise InputError(
                f"{url}: a token over plain http can be read on the way", hint="use the node's https address"
            )
        headers = {"User-Agent": f"matcompute-pull/{matcompute.__version__}", "Accept-Encoding": "identity"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self.url = url.rstrip("/")
        self.patience = patience
        #: Set by the user: the end. Set by ourselves: these downloads end, others may follow.
        self.stop, self.cancel = threading.Event(), threading.Event()
        self._heard = time.monotonic()
        self._timeout = timeout
        self._client = httpx.Client(
            base_url=self.url,
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0), pool=None),
            limits=httpx.Limits(max_connections=jobs + 1, max_keepalive_connections=jobs + 1),
        )

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    @property
    def halted(self) -> bool:
        """Whether downloads shall end now."""
        return self.stop.is_set() or self.cancel.is_set()

    # -- requests ---------------------------------------------------------------------------------------------

    def json(self, path: str, *, wait: int = 0, **params: Any) -> dict[str, Any]:
        """Return a JSON object.

        Raises
        ------
        Gone
            If the node does not show it.
        Unreachable
            If the node does not answer, or what it answers is no JSON object.
        """
        query = {**params, **({"wait": wait} if wait else {})}
        raw = self.persist(lambda: self._small(path, query, _PAGE_BYTES, wait))
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise Unreachable(f"{self.url}{path}: the answer is not JSON") from error
        if not isinstance(value, dict):
            raise Unreachable(f"{self.url}{path}: the answer is not a JSON object")
        return value

    def raw(self, path: str) -> bytes:
        """Return a small file; raises as `json` does."""
        return self.persist(lambda: self._small(path, {}, MAX_BYTES, 0))

    def post(self, path: str, body: bytes) -> int:
        """Send a JSON document; return the status of the answer (below 500)."""

        def send() -> int:
            answer = self._client.post(path, content=body, headers={"Content-Type": "application/json"})
            if answer.status_code in _AGAIN:
                raise _Again(f"status {answer.status_code}", _after(answer))
            self.heard()
            return answer.status_code

        return self.persist(send)

    @contextmanager
    def stream(self, path: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
        """Open a download, once; to be used within `persist`."""
        with self._client.stream("GET", path, headers=headers) as answer:
            self._check(answer, path)
            yield answer

    def heard(self) -> None:
        """Note that the node is alive and gets on."""
        self._heard = time.monotonic()

    def persist(self, call: Callable[[], T]) -> T:
        """Call until it works, with growing pauses, as long as our patience lasts.

        Raises
        ------
        Unreachable
            If no good answer came for `patience` seconds.
        Stopped
            If `stop` was set.
        """
        import httpx

        begun, pause = time.monotonic(), 0.1
        while True:
            if self.halted:
                raise Stopped("stopped")
            heard = self._heard
            try:
                return call()
            except _Again as error:
                why, after = str(error), error.after
            except (httpx.TransportError, httpx.DecodingError) as error:
                why, after = f"{type(error).__name__}: {error}".rstrip(": "), None
            if self._heard > heard:
                pause = 0.1
            if time.monotonic() - max(begun, self._heard) > self.patience:
                raise Unreachable(
                    f"{self.url} gave no good answer for {self.patience:g} s ({why})",
                    hint="what was fetched is kept; pull again later",
                )
            # The pause differs, so that many clients of a node that comes back do not all come at once.
            pause = min(5.0, pause * 2)
            self.stop.wait(min(after, self.patience) if after is not None else pause * random.uniform(0.5, 1))

    def _small(self, path: str, params: dict[str, Any], limit: int, wait: int) -> bytes:
        parts, size = [], 0
        timeout = self._timeout + wait
        with self._client.stream("GET", path, params=params, timeout=timeout) as answer:
            self._check(answer, path)
            for part in answer.iter_raw():
                parts.append(part)
                size += len(part)
                if size > limit:
                    raise Unreachable(f"{self.url}{path}: more than {limit >> 20} MiB")
            expected = answer.headers.get("Content-Length")
            if expected is not None and expected != str(size):
                raise _Again("the answer broke off")
        self.heard()
        return b"".join(parts)

    def _check(self, answer: httpx.Response, path: str) -> None:
        status = answer.status_code
        if status in (200, 206, 416):
            if answer.headers.get("Content-Encoding", "identity") != "identity":
                raise Unreachable(f"{self.url}{path}: compressed, though we asked for it as it is")
            return
        if status in _AGAIN:
            if status == 429 and _after(answer) is not None:
                self.heard()  # it is well and asks us to go slower
            raise _Again(f"status {status}", _after(answer))
        if status == 401:
            raise PullError(
                f"{self.url} does not know the token, or it has expired", hint="ask the node for a new one"
            )
        if status in (403, 404, 410, 451):
            raise Gone(f"{self.url}{path}: status {status}")
        raise Unreachable(
            f"{self.url}{path}: status {status}",
            hint="is this the address of a node? `matcompute serve` is what answers there",
        )


def _after(answer: httpx.Response) -> float | None:
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else None


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
