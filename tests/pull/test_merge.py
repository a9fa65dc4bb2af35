from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from matcompute.publish.pull import Options, pull
from matcompute.server.tokens import create

from .conftest import IDS, NodeUnderTest, copy_of

A, B, C = IDS[:3]


def test_three_nodes_in_one_store(make_node: Callable[[str], NodeUnderTest], tmp_path: Path) -> None:
    nodes = [make_node(f"node-{k}") for k in range(3)]
    # The same structures three times, once with a higher grade; the ids differ, one is even the same.
    nodes[0].release(A, 20, seed=5)
    nodes[1].release(B, 20, seed=5, grade="important", tier="member-1")
    nodes[2].release(A, 20, seed=5)
    nodes[2].release(C, 30, seed=6)
    tokens = [create(n.node.engine, "p", tier="member-1", grade="core", scopes=("read",)) for n in nodes]
    copies = []
    for k, order in enumerate(itertools.permutations(range(3))):
        folder = tmp_path / f"copy-{k}"
        for number in order:
            report = pull(nodes[number].url, folder, Options(token=tokens[number], receipts=False))
            assert report.refusals == []
        copies.append(folder)
        if k == 3:
            break
    first = copy_of(copies[0])
    assert all(copy_of(folder) == first for folder in copies[1:])

    catalogue = json.loads((copies[0] / "catalogue.json").read_text())
    roots = {n["id"]: n["key_id"] for n in catalogue["nodes"]}
    (group,) = catalogue["duplicates"]
    assert group["winner"] == f"{roots['node-1']}/{B}"
    assert set(group["others"]) == {f"{roots['node-0']}/{A}", f"{roots['node-2']}/{A}"}
    assert (group["grade"], group["tier"]) == ("important", "member-1")

    table = pq.read_table(copies[0] / "structures.parquet").to_pandas()
    assert len(table) == 90
    same = table[table.structure_hash.isin(table[table.dataset_id == B].structure_hash)]
    assert set(same[same.wins].dataset_id) == {B}
    assert (same.grade == "important").all()
    assert (same.tier == "member-1").all()
    assert table.groupby("structure_hash").wins.sum().eq(1).all()
    assert (table[table.dataset_id == C].grade == "general").all()

    # The winner is withdrawn: another one takes its place.
    nodes[1].publication.withdraw(B, "wrong")
    pull(nodes[1].url, copies[0], Options(token=tokens[1], receipts=False))
    catalogue = json.loads((copies[0] / "catalogue.json").read_text())
    (group,) = catalogue["duplicates"]
    assert (group["grade"], len(group["others"])) == ("general", 1)
    assert len(pq.read_table(copies[0] / "structures.parquet")) == 70
