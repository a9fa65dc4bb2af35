"""nginx with the manual's configuration (docs/how-to/nginx.md), for a benchmark and for tests."""

from __future__ import annotations

import os
import re
import shutil
import socket
from pathlib import Path

__all__ = ["NGINX", "command", "configure", "free_port"]

PAGE = Path(__file__).resolve().parents[1] / "docs" / "how-to" / "nginx.md"
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
_MAIN = """\
{user}
{top}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    default_type application/octet-stream;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{site}
}}
"""


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def configure(folder: Path, port: int, backend: int, store: str, more: str = "") -> None:
    """Write ``nginx.conf``: what the manual says, with these ports and this store, without TLS.

    Parameters
    ----------
    folder
        Where it goes, with all that nginx writes.
    port, backend
        Where nginx listens, and where the node does.
    store
        Folder of the store.
    more
        Goes into the server block.
    """
    text = PAGE.read_text(encoding="utf-8")
    top, site = re.findall(r"^```nginx\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for old, new in (
        ("127.0.0.1:8642", f"127.0.0.1:{backend}"),
        ("listen 443 ssl;", f"listen 127.0.0.1:{port};\n    {more}"),
        ("/srv/publication/store/", f"{store}/"),
    ):
        if site.count(old) != 1:
            raise ValueError(f"{PAGE.name} has not one '{old}'")
        site = site.replace(old, new)
    site = "\n".join(line for line in site.splitlines() if "ssl_certificate" not in line)
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(_MAIN.format(user=user, top=top, folder=folder, site=site))


def command(folder: Path) -> list[str]:
    """Return the words that start nginx with the configuration of a folder; with ``-s reload`` they reload it."""
    assert NGINX is not None
    return [NGINX, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
