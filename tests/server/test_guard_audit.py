"""The audit: chained, durable before anybody hears of it, whole after kill -9, and any change of it is seen."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from matcompute.errors import InputError
from matcompute.server.guard.audit import FIRST, AuditError, AuditLog, Head, digest_of, link
from matcompute.server.guard.writer import AuditWriter


def record(k: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "at": f"2026-01-31T12:00:{k % 60:02d}.000Z",
        "kind": "request",
        "principal": f"user-{k % 3}",
        "address": "192.0.2.1",
        "method": "GET",
        "target": f"/blobs/sha256/{k}",
        "status": 200,
        "bytes": 10 + k,
        "tier": "member-1",
        **more,
    }


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    return AuditLog(tmp_path / "audit.sqlite")


def tamper(log: AuditLog, *statements: str) -> None:
    with sqlite3.connect(log.path) as db:
        db.execute("DROP TRIGGER IF EXISTS audit_stays")
        db.execute("DROP TRIGGER IF EXISTS audit_remains")
        for statement in statements:
            db.execute(statement)


def test_chain(log: AuditLog):
    assert log.append([record(k) for k in range(5)]) == [1, 2, 3, 4, 5]
    assert log.append([record(5)]) == [6]
    before = FIRST
    for entry in log.entries():
        before = link(before, digest_of(entry.record))
        assert entry.hash == before
    assert log.head() == Head(6, before)
    assert log.verify([Head(0, FIRST), log.head()]) == []
    assert [e.seq for e in log.entries(after=2, kinds=["request"], block=2)] == [3, 4, 5, 6]
    assert [e.seq for e in log.entries(since="2026-01-31T12:00:01", until="2026-01-31T12:00:03")] == [2, 3]


def test_nothing_is_changed_or_deleted(log: AuditLog):
    log.append([record()])
    with sqlite3.connect(log.path) as db:
        with pytest.raises(sqlite3.IntegrityError, match="never changed"):
            db.execute("UPDATE audit SET record = '{}'")
        with pytest.raises(sqlite3.IntegrityError, match="never deleted"):
            db.execute("DELETE FROM audit")


@pytest.mark.parametrize(
    ("statement", "seq", "message"),
    [
        ("UPDATE audit SET record = replace(record, 'user-1', 'user-2') WHERE seq = 2", 2, "was changed"),
        ("DELETE FROM audit WHERE seq = 3", 3, "missing"),
        ("DELETE FROM audit WHERE seq > 4", 4, "newest records were removed"),
        ("UPDATE audit SET hash = printf('%064d', 7) WHERE seq = 6", 6, "was changed"),
        ("UPDATE usage SET bytes = 0", 6, "metering"),
        ("UPDATE audit SET record = '{}' WHERE seq = 1", 1, "was changed"),
    ],
)
def test_tampering_is_seen(log: AuditLog, statement: str, seq: int, message: str):
    log.append([record(k) for k in range(6)])
    tamper(log, statement)
    assert any(p.seq == seq and message in p.message for p in log.verify())


def test_cut_and_rewritten_tail_is_seen_by_a_known_head(log: AuditLog):
    log.append([record(k) for k in range(6)])
    seen = log.head()
    with log.open() as db:
        fourth = db.execute("SELECT hash FROM audit WHERE seq = 4").fetchone()[0]
    tamper(
        log,
        "DELETE FROM audit WHERE seq > 4",
        f"UPDATE head SET seq = 4, hash = '{fourth}'",
        "DELETE FROM usage",
        "INSERT INTO usage SELECT principal, substr(at, 1, 7), 'member-1', count(*), sum(bytes) FROM audit GROUP BY 1",
    )
    assert log.verify() == []  # who may write the file can do this …
    assert [p.message for p in log.verify([seen])] == [
        "the record was seen before, and is gone"
    ]  # … not this
    log.append([record(4), record(9)])
    assert "not the one that was seen" in log.verify([seen])[0].message


def test_metering_counts_a_long_answer_once(log: AuditLog):
    log.append(
        [
            record(0, principal="a", kind="open", bytes=None),
            record(1, principal="a", kind="close", bytes=1000, ref=1),
            record(2, principal="a", bytes=5),
            record(3, principal="a", kind="alert", bytes=77),
        ]
    )
    assert log.usage("a") == [
        {"principal": "a", "period": "2026-01", "tier": "member-1", "requests": 2, "bytes": 1005}
    ]
    assert log.usage("b") == log.usage("a", "2026-02") == []


def test_hostile_text_stays_one_line_of_ascii(log: AuditLog):
    log.append([record(target="/x\r\n\x1b[2J\u202e\ud800", agent="晶体")])
    entry = next(log.entries())
    assert entry.record.isascii()
    assert entry.record.isprintable()
    assert entry.data["agent"] == "晶体"


def test_heads_are_read_strictly():
    head = Head(7, "a" * 64)
    assert Head.parse(str(head)) == head
    for text in ("", "7", "7:ab", f"x:{'a' * 64}", f"7:{'G' * 64}"):
        with pytest.raises(InputError, match="not a head"):
            Head.parse(text)


def test_writers_of_several_threads_and_files_make_one_chain(log: AuditLog):
    writers = [AuditWriter(log), AuditWriter(log)]
    futures: list[Future[int]] = []
    lock = threading.Lock()

    def work(writer: AuditWriter) -> None:
        for k in range(50):
            future = writer.submit(record(k))
            with lock:
                futures.append(future)

    threads = [threading.Thread(target=work, args=(w,)) for w in writers for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    numbers = [f.result(timeout=60) for f in futures]
    for w in writers:
        w.stop()
    assert len(set(numbers)) == 300
    kinds = [e.data["kind"] for e in log.entries()]
    assert sorted(kinds) == ["request"] * 300 + ["start"] * 2 + ["stop"] * 2
    assert log.verify() == []
    assert len(log.runs()) == 2


def test_what_waits_is_committed_together(log: AuditLog, monkeypatch: pytest.MonkeyPatch):
    sizes: list[int] = []
    append = AuditLog.append

    def counted(self: AuditLog, records: Any, db: Any = None) -> list[int]:
        sizes.append(len(records))
        return append(self, records, db)

    monkeypatch.setattr(AuditLog, "append", counted)
    writer = AuditWriter(log)
    writer.submit(record()).result(timeout=60)
    with log.open() as db:
        db.execute("COMMIT")
        db.execute("BEGIN IMMEDIATE")  # a slow disk
        futures = [writer.submit(record(k)) for k in range(500)]
        assert not any(f.done() for f in futures)
        db.execute("COMMIT")
        db.execute("BEGIN")
    assert [f.result(timeout=60) for f in futures] == list(range(3, 503))
    writer.stop()
    assert sum(sizes) == 503
    assert max(sizes) > 100
    assert len(sizes) < 20
    assert log.verify() == []


def test_a_failed_write_is_told_and_mended(log: AuditLog, tmp_path: Path):
    blocked = AuditLog(tmp_path / "file" / "audit.sqlite")
    (tmp_path / "file").write_text("not a folder")
    writer = AuditWriter(blocked)
    with pytest.raises(AuditError):
        writer.submit(record()).result(timeout=60)
    assert writer.failed
    (tmp_path / "file").unlink()
    assert writer.submit(record()).result(timeout=60) == 1
    assert writer.failed is None
    writer.stop()


_VICTIM = """
import os
import sys
from matcompute.server.guard.audit import AuditLog, now
from matcompute.server.guard.writer import AuditWriter
from pathlib import Path
import threading
writer = AuditWriter(AuditLog(Path(sys.argv[1])), beat=0.01)
def work(name):
    k = 0
    while True:
        number = writer.submit(
            {"at": now(), "kind": "request", "principal": name, "bytes": k, "tier": "public"}
        ).result()
        os.write(1, f"{number} {name} {k}\\n".encode())  # what a client was told, in one piece
        k += 1
for name in "abcd":
    threading.Thread(target=work, args=(name,)).start()
"""


@pytest.mark.kill
@pytest.mark.parametrize("seed", range(6))
def test_kill_9_leaves_no_gap_and_loses_nothing_that_was_told(log: AuditLog, seed: int):
    generator = random.Random(seed)
    told: dict[int, tuple[str, int]] = {}
    for _ in range(2):
        victim = subprocess.Popen(
            [sys.executable, "-c", _VICTIM, str(log.path)], stdout=subprocess.PIPE, text=True
        )
        assert victim.stdout is not None
        # It dies at a count of answers, whatever the machine's load.
        lines = [victim.stdout.readline() for _ in range(generator.randrange(1, 400))]
        victim.send_signal(signal.SIGKILL)
        lines += victim.stdout.read().splitlines(keepends=True)
        victim.wait()
        for line in lines:
            parts = line.split()
            if line.endswith("\n") and len(parts) == 3:
                told[int(parts[0])] = (parts[1], int(parts[2]))
        assert log.verify() == []
    assert told
    found = {e.seq: e.data for e in log.entries()}
    assert sorted(found) == list(range(1, len(found) + 1))
    for number, (name, k) in told.items():
        assert (found[number]["principal"], found[number]["bytes"]) == (name, k)
    assert sum(e["kind"] == "start" for e in found.values()) == 2
