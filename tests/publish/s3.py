"""An S3-compatible server (moto) in this process, which others speak to over a socket."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import NamedTuple
from urllib.request import Request, urlopen
from uuid import uuid4

#: What a client needs: what the manual tells users to set.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "tests",
    "AWS_DEFAULT_REGION": "us-east-1",
}


class Server(NamedTuple):
    """Where the server is, and the environment that leads clients to it."""

    url: str
    environment: dict[str, str]

    def bucket(self) -> str:
        """Make a bucket; return its address."""
        name = f"b-{uuid4()}"
        with urlopen(Request(f"{self.url}/{name}", method="PUT"), timeout=60) as answer:
            assert answer.status == 200
        return f"s3://{name}"


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """Run the server; this process, and what it starts, finds it by its environment, as users' programs do."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    url = f"http://{host}:{port}"
    environment = {**CREDENTIALS, "AWS_ENDPOINT_URL": url}
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield Server(url, environment)
    finally:
        os.environ.clear()
        os.environ.update(before)
        running.stop()
