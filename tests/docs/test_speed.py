"""The page of measured speeds shows the committed results."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_page_is_current():
    table = runpy.run_path(str(ROOT / "benchmarks" / "_table.py"))
    assert (ROOT / "docs" / "reference" / "speed.md").read_text() == table["page"](), (
        "run: python benchmarks/_table.py"
    )
