"""Which class of failure a job's traces tell."""

from __future__ import annotations

import re

import pytest

from matcompute.node.exit_codes import ExitCode
from matcompute_workflows.batch import EXIT_CODES, NODE_EXIT_CODES
from matcompute_workflows.parser import classify
from matcompute_workflows.scheduler import end_of_job

SUMMARY = {"counts": {"ok": 3, "crashed": 1, "not_attempted": 6}, "n_total": 10}


@pytest.mark.parametrize(
    ("exit_status", "stderr", "scheduler", "expected"),
    [
        (0, "", None, 0),
        (0, "warning: out of memory avoided", None, 0),
        (None, "", None, 300),
        (None, "", 140, 302),
        (None, "slurmstepd: error: Detected 1 oom-kill event(s)", None, 310),
        (None, "", 110, 310),
        (None, "", 120, 320),
        (137, "", None, 301),
        (139, "", None, 301),
        (143, "", None, 301),
        (137, "RuntimeError: DefaultCPUAllocator: can't allocate memory", None, 310),
        (70, "MemoryError", None, 310),
        (134, "terminate called after throwing an instance of 'std::bad_alloc'", None, 310),
        (75, "stopped: walltime", None, 321),
        (75, "stopped: walltime", 120, 321),
        (65, "error: structures.h5: no HDF5 file", None, 330),
        (66, "error: no model", None, 331),
        (69, "error: calculator 'x' needs the package 'y'", None, 332),
        (73, "error: cannot write", None, 333),
        (70, "Traceback", None, 334),
        (2, "Usage: matcompute-node", None, 334),
        (127, "matcompute-node: not found", None, 334),
    ],
)
def test_classes(exit_status, stderr, scheduler, expected):
    assert classify(exit_status, SUMMARY, stderr, scheduler)[0] == expected


@pytest.mark.parametrize(
    ("exit_status", "state", "expected"),
    [
        (None, "PREEMPTED", 303),
        (143, "PREEMPTED", 303),
        (None, "NODE_FAIL", 302),
        (None, "CANCELLED", 304),
        (137, "OUT_OF_MEMORY", 310),
        (None, "TIMEOUT", 320),
        (0, "NODE_FAIL", 0),
        (75, "PREEMPTED", 321),
        (70, "CANCELLED", 334),
        (None, "", 300),
    ],
)
def test_how_the_scheduler_ended_it(exit_status, state, expected):
    """What the program says of its own end comes first; the scheduler explains a job that was cut short."""
    assert classify(exit_status, SUMMARY, "", None, state)[0] == expected


SACCT = "Account|State|JobID|\nmaterials|{state}|12|\nmaterials|CANCELLED|12.batch|\n"
QACCT = "jobnumber    12\nfailed       {failed}\nexit_status  137\n"


@pytest.mark.parametrize(
    ("stdout", "stderr", "expected"),
    [
        (SACCT.format(state="NODE_FAIL"), "", "NODE_FAIL"),
        (SACCT.format(state="CANCELLED by 1000"), "", "CANCELLED"),
        (SACCT.format(state="FAILED"), "", ""),
        (QACCT.format(failed="37  : qmaster enforced h_rt limit"), "", "TIMEOUT"),
        (QACCT.format(failed="0"), "", ""),
        (
            "",
            "slurmstepd: error: *** JOB 7 ON b1 CANCELLED AT 2026-11-22T20:00:00 DUE TO TIME LIMIT ***",
            "TIMEOUT",
        ),
        (
            "",
            "slurmstepd: error: *** JOB 7 ON b1 CANCELLED AT 2026-11-22T20:00:00 DUE TO PREEMPTION ***",
            "PREEMPTED",
        ),
        ("", "slurmstepd: error: *** JOB 7 ON b1 CANCELLED AT 2026-11-22T20:00:00 ***", "CANCELLED"),
        ("", "nothing of the kind", ""),
    ],
)
def test_the_schedulers_own_words(stdout, stderr, expected):
    assert end_of_job({"retval": 0, "stdout": stdout, "stderr": ""}, stderr) == expected
    assert end_of_job(None, stderr) == (expected if not stdout else "")


def test_every_exit_status_of_the_node_program_is_known():
    for code in ExitCode:
        if code is not ExitCode.FINISHED:
            assert NODE_EXIT_CODES[int(code)] in EXIT_CODES
    assert set(NODE_EXIT_CODES) == {int(code) for code in ExitCode} - {0}


def test_messages_say_what_and_how_far():
    assert classify(75, SUMMARY, "")[1] == "4 of 10 structures were finished."
    assert classify(None, {}, "")[1] == "Nothing is known to be finished."
    detail = classify(65, {}, "noise\nerror: structures.h5: truncated file\n  hint: copy it again\n")[1]
    assert detail == "error: structures.h5: truncated file"
    assert classify(137, SUMMARY, "")[1].startswith("9;")


def test_each_class_has_its_own_code_and_label():
    labels = [label for label, _ in EXIT_CODES.values()]
    assert len(set(labels)) == len(labels)
    assert all(re.fullmatch("ERROR_[A-Z_]+", label) for label in labels)


def test_broken_results_have_their_own_codes(workspace, centre, write_shard, emt_task, wait_for, tmp_path):
    """A job whose program leaves a corrupt, a foreign or no result shard: a real code that does just that."""
    from aiida.engine import run_get_node
    from aiida.orm import Dict, InstalledCode
    from ase.build import bulk

    from matcompute_workflows import BatchCalculation, ShardData

    foreign = write_shard([bulk("Ag"), bulk("Pd")], "foreign.h5")
    short = write_shard([bulk("Cu", a=3.55)], "short.h5")
    shard = ShardData(write_shard()).store()
    cases = {
        "corrupt": ("echo no hdf5 > results.h5", 341),
        "foreign": (f"cp {foreign} results.h5", 342),
        "short": (f"cp {short} results.h5", 342),
        "missing": ("true", 340),
    }
    for name, (line, expected) in cases.items():
        script = tmp_path / f"{name}.sh"
        script.write_text(f"#!/bin/sh\n{line}\n")
        script.chmod(0o755)
        code = InstalledCode(
            label=f"test-{name}", computer=centre.computer, filepath_executable=str(script)
        ).store()
        builder = BatchCalculation.get_builder()
        builder.code, builder.shard, builder.task = code, shard, Dict(emt_task)
        _, node = run_get_node(builder)
        assert node.exit_status == expected, (name, node.exit_status, node.exit_message)
        assert "results" not in node.outputs
