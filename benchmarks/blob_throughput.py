"""One file downloaded three ways in turns: from nginx, from the node through nginx (X-Accel), from the node alone.

Run ``python benchmarks/blob_throughput.py [--rounds N] [--sizes MIB …]``; needs nginx (Debian: nginx-light). nginx is
configured as docs/how-to/nginx.md says, with one more location for the file itself; the node is ``matcompute serve``,
with its audit, and the client reads from a socket, a new connection for each download. The file is in the page cache.

Prints one JSON line; ``ratios`` are the time of nginx alone divided by ours, medians of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from _machine import machine
from _nginx import NGINX, command, configure, free_port

ROOT = Path(__file__).resolve().parents[1]
DATASET = "11111111-0000-4000-8000-00000000000{}"


def prepare(folder: Path, sizes: list[int]) -> Any:
    """Release a dataset with a file of each size (MiB); return the publication."""
    from matcompute.publish import keys
    from matcompute.publish.build import build
    from matcompute.publish.gates import Limits
    from matcompute.publish.release import Publication
    from matcompute.publish.terms import terms_of
    from publish_build import write

    publication = Publication(folder / "publication")
    keys.generate(publication.keys)
    for k, size in enumerate(sizes, start=1):
        shard, archive = folder / f"s{k}.h5", folder / f"a{k}.aiida"
        write(shard, 20 + k)
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("metadata.json", "{}")
            with file.open("db.sqlite3", "w") as out:
                for _ in range(size):
                    out.write(os.urandom(1 << 20))
        build(
            [shard],
            terms_of([shard], "node-1", dataset_id=DATASET.format(k)),
            folder / f"r{k}",
            archive=archive,
        )
        publication.release(folder / f"r{k}", limits=Limits(0.0, 0.0), reason="benchmark")
        archive.unlink()
        shutil.rmtree(folder / f"r{k}")
    (publication.folder / "node.yaml").write_text(
        "x_accel: /store/\non_access_end: []\n"
        "limits: {anonymous_per_minute: 1000000000}\nalerts: {bulk_files: 1000000}\n"
    )
    return publication


def wait_for(port: int) -> None:
    """Wait until somebody listens."""
    for _ in range(6000):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    sys.exit("error: a server did not start")


def start_nginx(folder: Path, port: int, backend: int, store: str) -> subprocess.Popen[bytes]:
    """Start nginx with the manual's configuration and ``/alone/``, the store without the node."""
    configure(folder, port, backend, store, f"location /alone/ {{ alias {store}/; }}")
    return subprocess.Popen(command(folder))


def download(port: int, path: str, size: int) -> float:
    """Return the seconds from the connection to the last byte."""
    buffer = memoryview(bytearray(1 << 20))
    begin = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            piece = connection.recv(65536)
            if not piece:
                sys.exit(f"error: {path}: {head!r}")
            head += piece
        head, _, body = head.partition(b"\r\n\r\n")
        got = len(body)
        while got < size and (n := connection.recv_into(buffer)):
            got += n
    spent = time.perf_counter() - begin
    if b" 200 " not in head.split(b"\r\n")[0] or got != size:
        sys.exit(f"error: {path}: {head[:200]!r}, {got} of {size} bytes")
    return spent


def main() -> None:
    """Prepare, serve, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 16, 256], metavar="MIB")
    options = parser.parse_args()
    if NGINX is None:
        sys.exit("error: nginx is not installed (Debian: nginx-light)")
    if sorted(set(options.sizes)) != sorted(options.sizes):
        sys.exit("error: give each size once")
    ratios: dict[str, float] = {}
    rates: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        publication = prepare(folder, options.sizes)
        front, plain = free_port(), free_port()
        program = [str(Path(sys.executable).parent / "matcompute"), "serve", "-d", str(publication.folder)]
        # Two servers over one publication: the plain one is not told of nginx.
        backend = free_port()
        shutil.copytree(publication.folder, folder / "plain")
        settings = (folder / "plain" / "node.yaml").read_text().replace("x_accel: /store/\n", "")
        (folder / "plain" / "node.yaml").write_text(settings)
        alone = [*program[:-1], str(folder / "plain")]
        processes = [
            subprocess.Popen([*program, "--port", str(backend)], stdout=subprocess.DEVNULL),
            subprocess.Popen([*alone, "--port", str(plain)], stdout=subprocess.DEVNULL),
            start_nginx(folder, front, backend, publication.store.root),
        ]
        try:
            for port in (backend, plain, front):
                wait_for(port)
            for k, size in enumerate(options.sizes, start=1):
                manifest = publication.latest(DATASET.format(k))
                file = next(f for f in manifest.files if f.path.endswith(".aiida"))
                place = publication.store.path(manifest.dataset_id, 1, file.path)
                place = place.removeprefix(publication.store.root)
                blob = f"/blobs/sha256/{file.sha256}"
                ways = {
                    "nginx": (front, f"/alone{place}"),
                    "x-accel": (front, blob),
                    "plain": (plain, blob),
                }
                for port, path in ways.values():
                    download(port, path, file.size)
                times: dict[str, list[float]] = {way: [] for way in ways}
                for turn in range(options.rounds):
                    order = list(ways.items())
                    for way, (port, path) in order[turn % 3 :] + order[: turn % 3]:
                        times[way].append(download(port, path, file.size))
                for way in ("x-accel", "plain"):
                    case = f"{way}_{size}_mib"
                    ratio = statistics.median(n / t for n, t in zip(times["nginx"], times[way]))
                    ratios[case] = round(ratio, 3)
                    rates[case] = {
                        "ours": round(file.size / statistics.median(times[way]) / 1e6, 1),
                        "peer": round(file.size / statistics.median(times["nginx"]) / 1e6, 1),
                        "unit": "MB/s",
                    }
                    print(f"{case:16s} {rates[case]} × {ratio:.3f}", file=sys.stderr)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(30)
    said = subprocess.run([NGINX, "-v"], capture_output=True, text=True, check=True).stderr
    line = {
        "benchmark": "blob_throughput",
        "ratios": ratios,
        "rates": rates,
        "rounds": options.rounds,
        "peers": {"nginx": said.rsplit("/", 1)[1].split()[0]},
        "machine": machine(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
