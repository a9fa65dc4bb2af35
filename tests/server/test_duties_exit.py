"""Exit export and its import: the same digests elsewhere, and nothing that was touched gets through."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from matcompute.errors import MatcomputeError
from matcompute.publish import keys
from matcompute.publish.canonical import sha256_file
from matcompute.publish.errors import KeyFileError, PublishError
from matcompute.publish.keys import Keyring
from matcompute.publish.release import Publication
from matcompute.server.app import create_app
from matcompute.server.duties.arriving import import_node
from matcompute.server.duties.bag import check_bag
from matcompute.server.duties.errors import DutyError
from matcompute.server.duties.leaving import content_of, export_node
from matcompute.server.guard.audit import AuditLog
from matcompute.server.node import Node

from .conftest import IDS, Releaser


def digests(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): sha256_file(p) for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three datasets, one revised, one withdrawn, one regraded; keys rotated; asked by somebody."""
    folder = tmp_path_factory.mktemp("once")
    release = Releaser(folder / "publication", folder / "scratch")
    for name in (*IDS[:3], IDS[0]):
        release(name, 6)
    publication = release.publication
    publication.withdraw(IDS[1], "a mistake")
    keys.rotate(publication.keys)
    publication.regrade(IDS[2], "by contract", tier="member-1", grade="important")
    (publication.folder / "node.yaml").write_text("id: test-node\ndatabase: ''\ncontact: admin@example.org\n")
    with TestClient(create_app(Node(publication), follow_seconds=0)) as client:
        assert client.get("/changes").status_code == 200
    return publication.folder


@pytest.fixture
def old(once: Path, tmp_path: Path) -> Node:
    """A node of its own for each test."""
    shutil.copytree(once, tmp_path / "publication")
    return Node(tmp_path / "publication")


def test_another_node_has_the_same(old: Node, tmp_path: Path):
    said = export_node(old, tmp_path / "exit")
    assert said["versions"] == 4
    assert said["head"] == 6
    assert import_node(tmp_path / "exit", tmp_path / "new", trusted=[said_key(old)]) == said
    new = Publication(tmp_path / "new")
    assert content_of(new) == content_of(old.publication)
    assert content_of(new)["content_sha256"] == said["content_sha256"]
    assert digests(tmp_path / "new" / "store") == digests(Path(old.publication.store.root))
    assert new.events.after(0) == old.publication.events.after(0)
    assert new.describe() == old.publication.describe()
    assert new.verify() == []
    assert not list((tmp_path / "new" / "keys").glob("*.pem"))
    assert not list((tmp_path / "exit").rglob("*.pem"))
    node = Node(new)
    assert node.settings.contact == "admin@example.org"
    with TestClient(create_app(node, follow_seconds=0)) as client:
        assert client.get(f"/datasets/{IDS[0]}").json()["version"] == 2
        assert client.get(f"/datasets/{IDS[1]}").status_code == 404
        assert client.get(f"/datasets/{IDS[2]}").status_code == 404  # grades came along
    log = AuditLog(tmp_path / "new" / "audit.sqlite")
    first = next(log.entries()).data
    assert (first["kind"], first["content_sha256"]) == ("import", said["content_sha256"])
    assert log.verify() == []
    with pytest.raises(KeyFileError):
        export_node(node, tmp_path / "again")  # without a key it cannot sign


def said_key(node: Node) -> str:
    return Keyring.read(node.publication.keys).current.key_id


def test_the_successor_goes_on(old: Node, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path / "new"
    scratch = tmp_path_factory.mktemp("successor")
    release = Releaser(scratch / "publication", scratch / "scratch")
    own = keys.generate(folder / "keys")
    export_node(old, tmp_path / "exit0")
    with pytest.raises(KeyFileError, match="names no successor"):
        import_node(tmp_path / "exit0", folder)
    assert Keyring.read(folder / "keys").current == own.public
    said = export_node(old, tmp_path / "exit", successor=Keyring.read(folder / "keys"))
    assert said["successor"] == own.key_id
    import_node(tmp_path / "exit", folder)
    new = Publication(folder)
    ring = Keyring.read(new.keys)
    assert [k.key_id for k in ring.keys][-1] == own.key_id
    assert len(ring.keys) == 3
    ring.check([said_key(old)])  # who trusts the old key trusts the new one
    release.publication = new
    assert release(IDS[0], 6).version == 3
    assert new.verify() == []
    again = export_node(Node(new), tmp_path / "second")
    assert again["versions"] == 5
    import_node(tmp_path / "second", tmp_path / "third")


def test_a_stranger_cannot_succeed(old: Node, tmp_path: Path):
    keys.generate(tmp_path / "named" / "keys")
    keys.generate(tmp_path / "other" / "keys")
    export_node(old, tmp_path / "exit", successor=Keyring.read(tmp_path / "named" / "keys"))
    with pytest.raises(KeyFileError, match="not this node's key"):
        import_node(tmp_path / "exit", tmp_path / "other")
    with pytest.raises(KeyFileError, match="trusted"):
        import_node(tmp_path / "exit", tmp_path / "named", trusted=["0" * 32])
    assert {p.name for p in (tmp_path / "named").iterdir()} == {"keys"}


def rebag(export: Path) -> None:
    """Make the lists fit what is there now, as a liar would; the signed list stays."""
    from matcompute.server.duties.bag import Bag

    moved = export.with_name("moved")
    export.rename(moved)
    bag = Bag(export)
    for path in sorted((moved / "data").rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                bag.add(path.relative_to(moved / "data").as_posix(), file)
    bag.close({})
    shutil.rmtree(moved)


@pytest.mark.parametrize(
    "name", ["store/0=ocfl_1.1", "events.jsonl", "receipts.jsonl", "audit.jsonl", "keyring.json", "exit.json"]
)
def test_a_changed_byte_is_refused(old: Node, tmp_path: Path, name: str):
    export_node(old, tmp_path / "exit")
    path = tmp_path / "exit" / "data" / name
    raw = path.read_bytes() or b"x"
    path.write_bytes(raw[:-2] + bytes([raw[-2] ^ 1]) + raw[-1:] if len(raw) > 1 else b"y")
    with pytest.raises(DutyError, match=f"{path.name} was changed"):
        import_node(tmp_path / "exit", tmp_path / "new")
    rebag(tmp_path / "exit")
    check_bag(tmp_path / "exit")
    with pytest.raises(MatcomputeError):
        import_node(tmp_path / "exit", tmp_path / "new")
    assert not (tmp_path / "new" / "events.sqlite").exists()


def test_missing_and_extra_files_are_refused(old: Node, tmp_path: Path):
    export_node(old, tmp_path / "exit")
    extra = tmp_path / "exit" / "data" / "store" / "extra"
    extra.write_text("x")
    with pytest.raises(DutyError, match="in no list"):
        import_node(tmp_path / "exit", tmp_path / "new")
    rebag(tmp_path / "exit")
    with pytest.raises(DutyError, match="not the file that was signed"):
        import_node(tmp_path / "exit", tmp_path / "new")
    (tmp_path / "exit" / "data" / "store" / "extra").unlink()
    (tmp_path / "exit" / "data" / "events.jsonl").unlink()
    with pytest.raises(DutyError, match="missing"):
        import_node(tmp_path / "exit", tmp_path / "new")


def test_paths_cannot_leave(old: Node, tmp_path: Path):
    export_node(old, tmp_path / "exit")
    lists = tmp_path / "exit" / "manifest-sha256.txt"
    lists.write_text(lists.read_text() + f"{'0' * 64}  data/../../evil\n")
    tags = tmp_path / "exit" / "tagmanifest-sha256.txt"
    lines = [line for line in tags.read_text().splitlines() if "manifest-sha256" not in line]
    tags.write_text("\n".join([*lines, f"{sha256_file(lists)}  manifest-sha256.txt"]) + "\n")
    with pytest.raises(DutyError, match="not a plain relative path"):
        import_node(tmp_path / "exit", tmp_path / "new")


def test_an_import_wants_an_empty_place(old: Node, tmp_path: Path):
    export_node(old, tmp_path / "exit")
    with pytest.raises(DutyError, match="not empty"):
        import_node(tmp_path / "exit", old.publication.folder)
    with pytest.raises(DutyError, match="exists"):
        export_node(old, tmp_path / "exit")
    shutil.copytree(old.publication.keys, tmp_path / "half" / "keys", ignore=shutil.ignore_patterns("*.pem"))
    with pytest.raises(DutyError, match="no private key"):
        import_node(tmp_path / "exit", tmp_path / "half")
    # As if an earlier import had been killed on its way.
    place = tmp_path / "new"
    (place / "store" / "half").mkdir(parents=True)
    (place / ".importing").touch()
    import_node(tmp_path / "exit", place)
    assert Publication(place).verify() == []
    assert not (place / ".importing").exists()


def test_a_damaged_node_is_told_before_it_leaves(old: Node, tmp_path: Path):
    data = next(Path(old.publication.store.root).rglob("entries.h5"))
    data.write_bytes(data.read_bytes()[:-1] + b"?")
    with pytest.raises(DutyError, match="in the store"):
        export_node(old, tmp_path / "exit")
    assert not (tmp_path / "exit").exists()


def test_events_are_restored_into_an_empty_table_only(old: Node, tmp_path: Path):
    events = old.publication.events.after(0)
    with pytest.raises(PublishError, match="already"):
        old.publication.events.restore(events, [])
    empty = Publication(tmp_path / "empty").events
    with pytest.raises(PublishError, match="do not grow"):
        empty.restore(events[::-1], [])


def test_secrets_stay(old: Node, tmp_path: Path):
    from matcompute.server import tokens

    secret = tokens.create(old.engine, "alice")
    export_node(old, tmp_path / "exit")
    digest = json.dumps(tokens.find(old.engine, secret).sha256).encode()  # type: ignore[union-attr]
    for path in (tmp_path / "exit").rglob("*"):
        if path.is_file():
            raw = path.read_bytes()
            assert secret.encode() not in raw
            assert digest.strip(b'"') not in raw
            assert b"PRIVATE KEY" not in raw


_KILLED = """
import os, signal, sys
from pathlib import Path
from typing import Any
from matcompute.publish.release import Publication
from matcompute.server.duties.arriving import import_node
from matcompute.server.duties.leaving import export_node
from matcompute.server.node import Node
what, source, target, stage = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
def progress(text, done, total):
    if text == stage and done >= total // 2:
        os.kill(os.getpid(), signal.SIGKILL)
if what == "export":
    export_node(Node(source), target, progress=progress)
else:
    import_node(source, target, progress=progress)
"""


@pytest.mark.kill
@pytest.mark.parametrize(
    ("what", "stage"),
    [
        ("export", "checking"),
        ("export", "copying"),
        ("import", "checking"),
        ("import", "copying"),
        ("import", "verifying"),
    ],
)
def test_kill_9_and_again(old: Node, tmp_path: Path, what: str, stage: str):
    if what == "export":
        source, target = old.publication.folder, tmp_path / "out"
    else:
        source, target = tmp_path / "exit", tmp_path / "out"
        export_node(old, source)
    command = [sys.executable, "-c", _KILLED, what, str(source), str(target), stage]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    if what == "export":
        assert not target.exists()
        said = export_node(old, target)
        check_bag(target)
        assert said["content_sha256"] == content_of(old.publication)["content_sha256"]
    else:
        assert (target / ".importing").exists() == (stage != "checking")
        import_node(source, target)
        assert content_of(Publication(target)) == content_of(old.publication)
        assert digests(target / "store") == digests(Path(old.publication.store.root))
        assert Publication(target).verify() == []


def _validators() -> Any:
    path = Path(__file__).parents[1] / "publish" / "validators.py"
    spec = importlib.util.spec_from_file_location("validators_of_others", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_programs_of_others_accept_the_export(old: Node, tmp_path: Path):
    validators = _validators()
    validators.need_program("bagit.py")
    validators.need_program("ocfl-root.py")
    export_node(old, tmp_path / "exit")
    done = validators.run("bagit.py", "--validate", tmp_path / "exit", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    store = tmp_path / "exit" / "data" / "store"
    done = validators.run("ocfl-root.py", "validate", "--root", store, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    data = next(store.rglob("entries.h5"))
    raw = bytearray(data.read_bytes())
    raw[100] ^= 1
    data.write_bytes(raw)
    assert validators.run("bagit.py", "--validate", tmp_path / "exit", cwd=tmp_path).returncode != 0
