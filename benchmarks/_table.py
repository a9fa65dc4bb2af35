"""Write docs/reference/speed.md from benchmarks/results: ``python benchmarks/_table.py``.

``make bench`` stores the last line of each benchmark there and calls this at its end.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "reference" / "speed.md"
HEAD = """\
# Speed

Written by `benchmarks/_table.py` from `benchmarks/results/`; `make bench` measures anew and writes both. A ratio is
the peer's time divided by ours, from one run in which both take turns, so larger is better (`engine_overhead` alone
is ours divided by the bare loop; `limits` has no peer: two threads against one, and which part of dgemm's or memory's
speed a kernel reaches). Kernels: CPU time of one thread, median of at least five. Rates are of that run too; they
depend on the machine and on what else it did; ratios do less, yet those of processors with and without AVX-512 differ.

Not measured here: anything on a GPU.
"""


def rows(result: dict[str, Any]) -> list[str]:
    """Return the table's lines of one benchmark."""
    rates = result.get("rates", {})
    lines = []
    for case, ratio in result["ratios"].items():
        rate = rates.get(case, {})
        ours = f"{rate['ours']:,.4g} {rate['unit']}" if "ours" in rate else ""
        peer = f"{rate['peer']:,.4g} {rate['unit']}" if rate.get("peer") else ""
        lines.append(f"| {result['benchmark']} | {case} | {ratio:,.4g} | {ours} | {peer} |")
    return lines


def page(folder: Path = RESULTS) -> str:
    """Return the text of the page: a table for each machine that results were measured on."""
    machines: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        machine = result["machine"]
        processor = " with ".join(
            filter(None, (machine.get("cpu", "unknown processor"), machine.get("simd")))
        )
        name = f"{processor}, {machine['cores']} cores, Python {machine['python']}"
        machines.setdefault(name, []).append(result)
    text = HEAD
    for name, results in sorted(machines.items()):
        peers: dict[str, str] = {}
        for result in results:
            peers.update({k: v for k, v in result.get("peers", {}).items() if isinstance(v, str)})
        text += f"\n## {name}\n\nPeers: " + ", ".join(f"{k} {v}" for k, v in sorted(peers.items())) + ".\n\n"
        text += "| benchmark | case | ratio | ours | peer |\n|---|---|---:|---:|---:|\n"
        text += "\n".join(line for result in results for line in rows(result)) + "\n"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE.relative_to(ROOT))
