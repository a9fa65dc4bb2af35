"""Each handler of the work chain on jobs that failed in one way, and giving up end to end."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from aiida.common.links import LinkType
from aiida.orm import CalcJobNode, Dict, RemoteData
from ase.build import bulk

from matcompute.node.checkpoint import count_journal
from matcompute_workflows import BatchCalculation, ShardData, build_batch
from matcompute_workflows.batch import EXIT_CODES


@pytest.fixture
def process(workspace, centre, write_shard, emt_task):
    """Make a work chain that is set up but was not submitted (and leaves no node)."""
    from aiida.engine.utils import instantiate_process
    from aiida.manage import get_manager

    def make(**resources):
        shard = ShardData(write_shard()).store()
        builder = build_batch(centre, shard, emt_task, label="unit", resources=resources)
        builder.metadata.store_provenance = False
        made = instantiate_process(get_manager().get_runner(), builder)
        made.setup()
        return made

    return make


@pytest.fixture
def job(centre):
    """Make a finished job with an exit code, a remote folder and a summary."""

    def make(label, finished=0, detail="why"):
        code = getattr(BatchCalculation.exit_codes, label).format(detail=detail)
        node = CalcJobNode(computer=centre.computer, process_type="aiida.calculations:matcompute.batch")
        node.set_process_state("finished")
        node.set_exit_status(code.status)
        node.set_exit_message(code.message)
        node.store()
        folder = RemoteData(computer=centre.computer, remote_path="/nowhere")
        folder.base.links.add_incoming(node, LinkType.CREATE, "remote_folder")
        folder.store()
        summary = Dict({"counts": {"ok": finished, "not_attempted": 2 - finished}, "n_total": 2})
        summary.base.links.add_incoming(node, LinkType.CREATE, "summary")
        summary.store()
        node.seal()
        return node

    return make


def _inspect(process, node):
    """What the work chain does with a job: the handlers through the engine's own step."""
    process.ctx.children = [*process.ctx.get("children", []), node]
    process.ctx.iteration = len(process.ctx.children)
    code = process.inspect_process()
    assert code is None or code.status == 0, "giving up is put off until what is finished was collected"
    return process.ctx.given_up


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("ERROR_INVALID_INPUT", 410),
        ("ERROR_MODEL", 411),
        ("ERROR_UNAVAILABLE", 412),
        ("ERROR_CANNOT_WRITE", 413),
    ],
)
def test_unrecoverable_causes_end_with_their_own_exit_code(process, job, label, expected):
    chain = process()
    status, message = _inspect(chain, job(label, detail="calculator 'x' is unknown"))
    assert status == expected
    assert "calculator 'x' is unknown" in message
    assert not chain.should_run_process()


@pytest.mark.parametrize(
    "label", ["ERROR_PARTIAL", "ERROR_OUT_OF_WALLTIME", "ERROR_VANISHED", "ERROR_KILLED"]
)
def test_an_interrupted_job_goes_on_from_its_checkpoint(process, job, label):
    chain = process(walltime_s=100, processes=2)
    node = job(label, finished=1)
    assert _inspect(chain, node) is None
    assert chain.should_run_process()
    assert chain.ctx.inputs.parent_folder.uuid == node.outputs.remote_folder.uuid
    options = chain.ctx.inputs.metadata.options
    assert options.max_wallclock_seconds == 100
    assert options.processes == 2


def test_a_walltime_in_which_nothing_fits_is_doubled(process, job):
    chain = process(walltime_s=100)
    assert _inspect(chain, job("ERROR_PARTIAL")) is None
    assert chain.ctx.inputs.metadata.options.max_wallclock_seconds == 200


def test_no_progress_at_all_ends_the_batch(process, job):
    chain = process(walltime_s=100)
    given_up = [_inspect(chain, job("ERROR_PARTIAL")) for _ in range(3)]
    assert given_up[:2] == [None, None]
    assert given_up[2][0] == 421


def test_progress_resets_the_patience(process, job):
    chain = process(walltime_s=100)
    for finished in (0, 1, 1, 2):
        assert _inspect(chain, job("ERROR_PARTIAL", finished=finished)) is None


def test_out_of_memory_asks_for_more_and_uses_fewer_processes(process, job):
    chain = process(processes=4, memory_gb=2)
    assert _inspect(chain, job("ERROR_OUT_OF_MEMORY", finished=1)) is None
    options = chain.ctx.inputs.metadata.options
    assert options.processes == 2
    assert options.max_memory_kb == 4_000_000
    assert _inspect(chain, job("ERROR_OUT_OF_MEMORY", finished=1)) is None
    assert options.processes == 1


def test_out_of_memory_halves_the_ranks_and_their_resources(process, job):
    chain = process(ranks=4)
    assert _inspect(chain, job("ERROR_OUT_OF_MEMORY", finished=1)) is None
    options = chain.ctx.inputs.metadata.options
    assert options.ranks == 2
    assert dict(options.resources) == {"num_machines": 1, "num_mpiprocs_per_machine": 2}


def test_out_of_memory_with_one_process_and_no_limit_to_raise_ends(process, job):
    status, _ = _inspect(process(processes=1), job("ERROR_OUT_OF_MEMORY", finished=1))
    assert status == 420


def test_kills_without_progress_reduce_the_processes(process, job):
    chain = process(processes=2)
    _inspect(chain, job("ERROR_KILLED"))
    assert chain.ctx.inputs.metadata.options.processes == 2
    _inspect(chain, job("ERROR_KILLED"))
    assert chain.ctx.inputs.metadata.options.processes == 1


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("ERROR_NODE_PROGRAM", 414),
        ("ERROR_RESULTS_MISSING", 415),
        ("ERROR_RESULTS_CORRUPT", 415),
        ("ERROR_RESULTS_MISMATCH", 415),
    ],
)
def test_strange_failures_have_one_more_chance(process, job, label, expected):
    chain = process()
    assert _inspect(chain, job(label)) is None
    assert _inspect(chain, job(label))[0] == expected


def test_the_number_of_jobs_is_bounded(process, job):
    chain = process()
    limit = chain.inputs.max_iterations.value
    for finished in range(1, limit):
        assert _inspect(chain, job("ERROR_PARTIAL", finished=finished)) is None
    assert _inspect(chain, job("ERROR_PARTIAL", finished=limit))[0] == 401


@pytest.mark.parametrize("label", sorted(label for label, _ in EXIT_CODES.values()))
def test_every_exit_code_of_a_job_has_a_handler(process, job, label):
    given_up = _inspect(process(), job(label))
    assert given_up is None or given_up[0] != 402, "an unhandled failure"


def test_what_is_finished_is_kept_when_a_batch_is_given_up(
    workspace, centre, write_shard, emt_task, wait_for
):
    """One job may run, and it is asked to stop after its first structures: the rest is lost, these are not."""
    from aiida.engine import submit

    from matcompute.dataset import Status

    atoms = []
    for seed in range(40):
        one = bulk("Al", cubic=True).repeat(2)
        one.rattle(0.05, seed=seed)
        atoms.append(one)
    builder = build_batch(
        centre,
        ShardData(write_shard(atoms)),
        {**emt_task, "parameters": {"fmax": 0.001}},
        label="given up",
        max_iterations=1,
    )
    node = submit(builder)
    stopped = []

    def stop() -> None:
        for job in node.called:
            folder = job.get_remote_workdir() if isinstance(job, CalcJobNode) else None
            if not stopped and folder and count_journal(Path(folder) / "checkpoint"):
                stopped.extend(p for p in psutil.process_iter(["cmdline", "cwd"]) if _is_program(p, folder))
                for process in stopped:
                    process.terminate()

    wait_for(node, each=stop)
    assert stopped
    assert node.exit_status == 401, node.exit_message
    assert [link.link_label for link in node.base.links.get_outgoing(link_type=LinkType.CALL_CALC).all()][
        :2
    ] == [
        "iteration_01",
        "collect",
    ]
    with node.outputs.results.open() as results:
        status = results.status("energy_per_atom")
        lost = status == Status.LOST
        assert 0 < lost.sum() < len(results)
        assert set(status[~lost].tolist()) <= {Status.OK, Status.NOT_CONVERGED}
        assert set(results.entry_column("message")[lost].tolist()) == {"its batch was given up"}


def _is_program(process, folder):
    command = process.info["cmdline"] or []
    return process.info["cwd"] == folder and any(word.endswith("matcompute-node") for word in command)


def test_a_walltime_grows_as_far_as_the_partition_lets_it(process, job):
    chain = process(walltime_s=100)
    options = chain.ctx.inputs.metadata.options
    options.longest_wallclock_seconds = 150
    assert _inspect(chain, job("ERROR_PARTIAL")) is None
    assert options.max_wallclock_seconds == 150
    assert _inspect(chain, job("ERROR_PARTIAL")) is None
    assert options.max_wallclock_seconds == 150


def test_memory_grows_as_far_as_a_node_has_it(process, job):
    chain = process(processes=1, memory_gb=2)
    options = chain.ctx.inputs.metadata.options
    options.largest_memory_kb = 3_000_000
    assert _inspect(chain, job("ERROR_OUT_OF_MEMORY")) is None
    assert options.max_memory_kb == 3_000_000
    status, _ = _inspect(chain, job("ERROR_OUT_OF_MEMORY"))
    assert status == 420


@pytest.mark.parametrize("label", ["ERROR_NODE_FAILED", "ERROR_CANCELLED"])
def test_a_centre_that_ends_jobs_again_and_again_is_left(process, job, label):
    chain = process(walltime_s=100, processes=2)
    given_up = [_inspect(chain, job(label)) for _ in range(4)]
    assert given_up[:3] == [None, None, None]
    assert given_up[3][0] == 422
    options = chain.ctx.inputs.metadata.options
    assert (options.max_wallclock_seconds, options.processes) == (100, 2), "the job is not to blame"


def test_a_job_may_have_to_make_way_often(process, job):
    chain = process()
    assert all(_inspect(chain, job("ERROR_PREEMPTED")) is None for _ in range(12))
    assert _inspect(chain, job("ERROR_PREEMPTED"))[0] == 422
