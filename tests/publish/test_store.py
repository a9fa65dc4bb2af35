from __future__ import annotations

import hashlib
import os
import signal
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from matcompute.publish.errors import StoreError
from matcompute.publish.ocfl import object_path
from matcompute.publish.store import Store

from .validators import need_program, run


@pytest.fixture(params=["disk", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "s3":
        return Store(f"{request.getfixturevalue('s3').bucket()}/store")
    return Store(tmp_path / "store" if request.param == "disk" else f"memory://{uuid4()}/store")


def files(folder: Path, **content: str) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, text in content.items():
        path = folder / name
        path.write_text(text)
        found[f"data/{name}"] = path
    return found


def ocfl_valid(root: Path) -> tuple[bool, str]:
    """Validate with ocfl-py."""
    need_program("ocfl-root.py")
    what = ["validate", "--root"] if (root / "0=ocfl_1.1").exists() else ["validate-object", "--objdir"]
    result = run("ocfl-root.py", *what, root, cwd=root)
    said = result.stdout + result.stderr
    return result.returncode == 0 and " is VALID" in said, said


def test_versions_and_deduplication(store: Store, tmp_path: Path) -> None:
    assert list(store.objects()) == []
    assert store.commit("urn:a", files(tmp_path / "1", x="one", y="same", z="same"), version=1) == 7
    assert store.commit("urn:a", files(tmp_path / "2", x="two", y="same"), version=2, message="second") == 3
    store.commit("urn:b", files(tmp_path / "3", x="one"), version=1)
    assert set(store.objects()) == {"urn:a", "urn:b"}
    assert {n: v.message for n, v in store.versions("urn:a").items()} == {1: "", 2: "second"}
    assert store.read("urn:a", 1, "data/x") == b"one"
    assert store.read("urn:a", 1, "data/z") == b"same"
    with store.open("urn:a", 2, "data/x") as file:
        assert file.read() == b"two"
    content = [
        str(p) for p in store.files.fs.find(f"{store.root}/{object_path('urn:a')}") if "/content/" in str(p)
    ]
    assert len(content) == 3
    assert store.fixity() == []
    with pytest.raises(StoreError, match="no file 'data/z'"):
        store.read("urn:a", 2, "data/z")
    with pytest.raises(StoreError, match="versions 1 to 2"):
        store.path("urn:a", 3, "data/x")
    with pytest.raises(StoreError, match="no object"):
        store.versions("urn:c")


def test_a_validator_of_others_agrees_and_sees_a_flipped_byte(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.commit("urn:a", files(tmp_path / "1", x="one", y="same"), version=1, user="node-1", message="first")
    store.commit(
        "urn:a", files(tmp_path / "2", x="two", y="same"), version=2, user="node-1", message="second"
    )
    ok, said = ocfl_valid(tmp_path / "store")
    assert ok, said
    path = Path(store.path("urn:a", 1, "data/x"))
    path.write_text("onf")
    ok, said = ocfl_valid(tmp_path / "store" / object_path("urn:a"))
    assert not ok, said
    damage = store.fixity("urn:a")
    assert [(d.path, "not" in d.reason) for d in damage] == [("v1/content/data/x", True)]
    with pytest.raises(StoreError, match="is damaged"):
        store.read("urn:a", 1, "data/x")
    path.unlink()
    assert "cannot be read" in store.fixity()[0].reason


def test_refusals_leave_the_store_as_it_was(store: Store, tmp_path: Path) -> None:
    good = files(tmp_path / "1", x="one")
    store.commit("urn:a", good, version=1)
    with pytest.raises(StoreError, match="at version 1; version 3"):
        store.commit("urn:a", good, version=3)
    with pytest.raises(StoreError, match="cannot be the next"):
        store.commit("urn:a", good, version=1)
    with pytest.raises(StoreError, match="not a plain relative path"):
        store.commit("urn:a", {"../x": good["data/x"]}, version=2)
    with pytest.raises(StoreError, match="not the file that the manifest lists"):
        store.commit("urn:a", files(tmp_path / "2", x="2", y="3"), version=2, digests={"data/y": "0" * 64})
    assert list(store.versions("urn:a")) == [1]
    assert store.commit("urn:a", files(tmp_path / "2", x="2"), version=2) == 1
    assert store.fixity() == []
    assert not any("/v2/content/data/y" in str(p) for p in store.files.fs.find(store.root))


def test_a_crash_before_the_root_inventory_is_mended(store: Store, tmp_path: Path) -> None:
    store.commit("urn:a", files(tmp_path / "1", x="one"), version=1)
    folder = f"{store.root}/{object_path('urn:a')}"
    old = {n: store.files.fs.cat_file(f"{folder}/{n}") for n in ("inventory.json", "inventory.json.sha256")}
    store.commit("urn:a", files(tmp_path / "2", x="two"), version=2)
    store.files.fs.pipe_file(f"{folder}/inventory.json.sha256", old["inventory.json.sha256"])
    assert list(store.versions("urn:a")) == [1, 2]  # the version is whole
    assert "root inventory" in store.fixity()[0].reason
    # A third version of which only a part arrived.
    store.files.fs.makedirs(f"{folder}/v3/content/data", exist_ok=True)
    store.files.fs.pipe_file(f"{folder}/v3/content/data/half", b"half")
    assert list(store.versions("urn:a")) == [1, 2]
    store.commit("urn:a", files(tmp_path / "3", x="three"), version=3)
    assert store.fixity() == []
    assert not store.files.fs.exists(f"{folder}/v3/content/data/half")


def test_not_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match="neither empty nor"):
        Store(tmp_path / "store").commit("urn:a", files(tmp_path / "1", x="one"), version=1)


def killed_at(store: Store, at: int, given: dict[str, Path], version: int) -> bool:
    """Commit in a child process that is killed at its file operation number ``at``; return whether it was."""
    child = os.fork()
    if child == 0:
        count = 0

        def hook(event: str, args: tuple[Any, ...]) -> None:
            nonlocal count
            writes = event in ("os.rename", "os.mkdir", "os.rmdir", "os.remove") or (
                event == "open" and isinstance(args[1], str) and "w" in args[1]
            )
            if writes:
                count += 1
                if count == at:
                    os.kill(os.getpid(), signal.SIGKILL)

        status = 1
        try:
            sys.addaudithook(hook)
            store.commit("urn:a", given, version=version)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
    return os.WIFSIGNALED(status)


@pytest.mark.kill
def test_killed_writers_leave_whole_versions(tmp_path: Path) -> None:
    """Kill a writer at each of its file operations: what stands afterwards is whole versions, old and new."""
    store, kills = Store(tmp_path / "store"), 0
    for round_ in range(3):
        for at in range(1, 60):
            known = list(store.versions("urn:a")) if store.has("urn:a") else []
            given = files(tmp_path / "in", x=f"round {round_} kill {at}", fixed="the same in all versions")
            killed = killed_at(store, at, given, len(known) + 1)
            found = list(store.versions("urn:a")) if store.has("urn:a") else []
            assert len(found) - len(known) in ((0, 1) if killed else (1,))
            for number in found:
                store.read("urn:a", number, "data/x")
                assert store.read("urn:a", number, "data/fixed") == b"the same in all versions"
            if not killed:
                break
            kills += 1
        assert not killed
    assert kills > 20
    assert store.fixity() == []
    # The next commit clears what a killed one left.
    assert {p.name for p in tmp_path.iterdir()} <= {"store", ".store.lock", "in"}
    ok, said = ocfl_valid(tmp_path / "store")
    assert ok, said


def test_an_inventory_cannot_lead_out_of_its_object(store: Store, tmp_path: Path) -> None:
    store.commit("urn:a", files(tmp_path / "1", x="one"), version=1)
    folder = f"{store.root}/{object_path('urn:a')}"
    raw = store.files.fs.cat_file(f"{folder}/v1/inventory.json").replace(
        b"v1/content/data/x", b"../../../../../secret"
    )
    sidecar = f"{hashlib.sha256(raw).hexdigest()} inventory.json\n".encode()
    store.files.fs.pipe_file(f"{folder}/v1/inventory.json", raw)
    store.files.fs.pipe_file(f"{folder}/v1/inventory.json.sha256", sidecar)
    with pytest.raises(StoreError, match="not a plain relative path"):
        store.open("urn:a", 1, "data/x")
