"""The command line starts quickly and says what it does not know."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(BIN / command[0]), *command[1:]], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("program", ["matcompute", "matcompute-node"])
def test_help_answers_in_less_than_0_4_s(program: str) -> None:
    # The least of a few, in processor time: what is asked is the program's own time, not that of a busy machine.
    best = float("inf")
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = _run(program, "--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert result.returncode == 0
        assert "Commands" in result.stdout
    assert best < 0.4


def test_unknown_command_names_the_nearest() -> None:
    result = _run("matcompute", "campain")
    assert result.returncode == 2
    assert "did you mean 'campaign'" in result.stderr


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from matcompute.cli import cli\n"
        "try: cli(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'aiida', 'numpy', 'pymatgen', 'torch', 'pandas', 'h5py'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_known_errors_have_no_traceback(tmp_path: Path) -> None:
    result = _run("matcompute", "dataset", "info", str(tmp_path / "absent.h5"))
    assert result.returncode in {1, 2}
    assert "Traceback" not in result.stderr
    assert "absent.h5" in result.stderr
