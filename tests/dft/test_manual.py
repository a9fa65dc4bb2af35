"""What the manual says of adapters is what they have."""

from __future__ import annotations

import re
from pathlib import Path

from matcompute_workflows.dft import qe, tasks
from matcompute_workflows.dft.adapter import StructureCalculator

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-calculator.md"


def test_members_and_pieces_of_a_calculator_per_structure() -> None:
    section = PAGE.read_text(encoding="utf-8").split("## A calculator per structure\n")[1].split("\n## ")[0]
    cells = [
        row.split("|")[1] for row in section.split("Members of the class:")[1].splitlines() if "|" in row
    ]
    told = set(re.findall(r"`(\w+)", " ".join(cells)))
    has = {name for name in vars(StructureCalculator) if not name.startswith("_")}
    has |= set(StructureCalculator.__annotations__)
    # What the base class gives, and what the text says above the table.
    assert told == has - {"version", "available", "task", "per_structure", "species"}
    folder = Path(qe.__file__).parent
    for name in re.findall(r"`([\w/]+\.(?:py|yaml))`", section):
        assert (folder / name.removeprefix("dft/")).is_file(), name
    for name in re.findall(r"`(\w+Task)`", section):
        assert hasattr(tasks, name)
    fields = re.search(r"fields (.*?) mean", section)
    assert fields is not None
    assert set(re.findall(r"`(\w+)`", fields[1])) <= qe.QeParameters.model_fields.keys()
