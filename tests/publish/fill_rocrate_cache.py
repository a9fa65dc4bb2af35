"""Fill the cache of rocrate-validator without a network: run by the Python of the validators' environment.

The package ``rocrate`` ships the context of RO-Crate 1.3 (CC0-1.0). It holds all terms of 1.1 and 1.2 with the same
addresses, but for ``ComputationalWorkflow``, ``FormalParameter``, ``input`` and ``output``, which ours do not use.
"""

from __future__ import annotations

import io
import sys
from importlib.resources import files
from typing import Any

import requests
from requests.adapters import BaseAdapter
from requests_cache import CachedSession
from urllib3 import HTTPResponse

CONTEXTS = ("https://w3id.org/ro/crate/1.1/context", "https://w3id.org/ro/crate/1.2/context")


class Shipped(BaseAdapter):
    """Answers every request with the context that the package ships."""

    def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:
        raw = files("rocrate").joinpath("data", "ro-crate.jsonld").read_bytes()
        response = requests.Response()
        response.status_code, response.url, response.request = 200, str(request.url), request
        response.headers["Content-Type"] = "application/ld+json"
        response.raw = HTTPResponse(
            io.BytesIO(raw), response.headers, 200, preload_content=False, request_url=request.url
        )
        return response

    def close(self) -> None:
        pass


def main(path: str) -> None:
    session = CachedSession(cache_name=path, expire_after=-1, backend="sqlite", allowable_methods=("GET",))
    session.mount("https://", Shipped())
    for url in CONTEXTS:
        session.get(url).raise_for_status()


if __name__ == "__main__":
    main(sys.argv[1])
