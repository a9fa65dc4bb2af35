"""Single values in a YAML file, changed without touching the rest."""

from __future__ import annotations

import pytest
import yaml

from matcompute.centres import CentreError
from matcompute.centres.edit import set_value

TEXT = """\
# a centre
scheduler:            # how
  type: slurm
  max_submitted: 50   # ours
partitions:
  - name: a
    max_wall: 48:00:00
  - {name: b, max_wall: "2 days", cores: 4}
"""


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (("scheduler", "max_submitted"), 2, "  max_submitted: 2   # ours"),
        (("partitions", 0, "max_wall"), "24:00:00", "    max_wall: '24:00:00'"),
        (("partitions", 1, "max_wall"), "1-00:00:00", "  - {name: b, max_wall: 1-00:00:00, cores: 4}"),
        (("scheduler", "max_array"), 100, "  max_array: 100"),
        (("partitions", 1, "nodes"), 3, '  - {nodes: 3, name: b, max_wall: "2 days", cores: 4}'),
    ],
)
def test_a_value_is_changed_and_nothing_else(path: tuple, value: object, line: str) -> None:
    changed = set_value(TEXT, path, value)  # type: ignore[arg-type]
    assert line in changed.splitlines()
    found = yaml.safe_load(changed)
    for part in path:
        found = found[part]
    assert found == value
    before, after = TEXT.splitlines(), changed.splitlines()
    assert len(set(after) - set(before)) == 1
    assert after[0] == "# a centre"


@pytest.mark.parametrize("path", [("login", "port"), ("partitions", 7, "name"), ("scheduler",)])
def test_a_place_that_is_not_there_is_told(path: tuple) -> None:
    with pytest.raises(CentreError):
        set_value(TEXT, path, 1)
