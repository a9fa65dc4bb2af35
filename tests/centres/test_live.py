"""Live limits: the answers of Slurm 22.05 and Grid Engine 8.1.9, recorded, with the limits that centres set."""

from __future__ import annotations

import pytest

from matcompute.centres.remote import Result
from matcompute.centres.schedulers.live import LimitsError, limits, sections
from matcompute.centres.schedulers.slurm import starts

SLURM = """\
==matcompute:version
slurm-wlm 22.05.8
==matcompute:config
ClusterName             = big
AccountingStorageType   = accounting_storage/slurmdbd
MaxArraySize            = 1001
MaxJobCount             = 10000
==matcompute:partitions
PartitionName=cpu AllowAccounts=ALL MaxNodes=16 MaxTime=2-00:00:00 State=UP TotalNodes=3
PartitionName=gpu AllowAccounts=steel,alloys QoS=short MaxTime=UNLIMITED State=UP TotalNodes=2 MaxCPUsPerNode=32
PartitionName=old AllowAccounts=ALL QoS=N/A MaxNodes=1 MaxTime=30 State=INACTIVE TotalNodes=0 MaxCPUsPerNode=UNLIMITED
==matcompute:nodes
cpu|2|64|256000|(null)|mixed|up
cpu|1|64|512000|(null)|drained*|up
gpu|2|64|512000|gpu:a100:4(S:0-1),gpu:mig:8,shard:16|idle~|up
==matcompute:associations
steel||100|200|||1-12:00:00|normal,short
steel|gpu||5||||normal
==matcompute:qos
normal|||50||
short|00:30:00|||||
"""
SGE = """\
==matcompute:version
SGE 8.1.9
==matcompute:config
#global:
max_u_jobs                   20
max_jobs                     0
max_aj_tasks                 75000
==matcompute:scheduler
maxujobs 0
==matcompute:queues
qname                 all.q
pe_list               make smp,[bigmem=smp mpi]
slots                 4,[bigmem=16]
h_rt                  24:00:00,[bigmem=72:00:00]
qname                 off.q
pe_list               NONE
h_rt                  INFINITY
==matcompute:environments
pe_name            smp
slots              999
pe_name            mpi
slots              0
==matcompute:projects
steel
==matcompute:hosts
<?xml version='1.0'?>
<qhost><host name='global'><hostvalue name='mem_total'>-</hostvalue></host>
<host name='n1'><hostvalue name='mem_total'>23.5G</hostvalue>
<queue name='all.q'><queuevalue qname='all.q' name='slots'>4</queuevalue>
<queuevalue qname='all.q' name='state_string'></queuevalue></queue>
<queue name='off.q'><queuevalue qname='off.q' name='slots'>4</queuevalue>
<queuevalue qname='off.q' name='state_string'>d</queuevalue></queue></host>
<host name='bigmem'><hostvalue name='mem_total'>1.0T</hostvalue>
<queue name='all.q'><queuevalue qname='all.q' name='slots'>16</queuevalue>
<queuevalue qname='all.q' name='state_string'>au</queuevalue></queue></host></qhost>
"""


class Answers:
    """Answers every command with the same result."""

    def __init__(self, code: int = 0, stdout: str = "", stderr: str = "") -> None:
        self.result = Result(code, stdout, stderr)

    def run(self, command: str, timeout: float = 60) -> Result:
        return self.result


def test_slurm() -> None:
    live = limits(Answers(stdout=SLURM), "slurm")
    assert live is not None
    assert live.version == "22.05.8"
    assert live.max_array == 1000
    assert live.max_submit == (50, "MaxSubmitJobsPerUser of QOS normal")
    assert live.accounts == ("steel",)
    cpu, gpu, old = (live.partitions[name] for name in ("cpu", "gpu", "old"))
    assert (cpu.nodes, cpu.nodes_up, cpu.cores, cpu.max_nodes) == (3, 2, 64, 16)
    assert cpu.max_wall_s == 36 * 3600  # the association's is shorter than the partition's
    assert cpu.mem_gb == pytest.approx(512000 * 1024**2 / 1e9)
    assert (gpu.gpus, gpu.resources) == (12, ("gpu:a100", "gpu:mig"))
    assert gpu.cores == 32
    assert gpu.max_wall_s == 1800  # of the partition's QOS
    assert gpu.accounts == ("steel", "alloys")
    assert (old.up, old.max_wall_s, old.nodes_up) == (False, 1800, 0)


def test_slurm_without_accounting_has_no_accounts() -> None:
    text = SLURM.split("==matcompute:associations")[0].replace("accounting_storage/slurmdbd", "(null)")
    live = limits(Answers(stdout=text), "slurm")
    assert live is not None
    assert live.accounts is None
    assert live.max_submit == (10000, "MaxJobCount of the cluster")


def test_grid_engine() -> None:
    live = limits(Answers(stdout=SGE), "sge")
    assert live is not None
    assert live.max_submit == (20, "max_u_jobs of the configuration")
    assert live.accounts == ("steel",)
    queue, off = live.partitions["all.q"], live.partitions["off.q"]
    assert (queue.nodes, queue.nodes_up, queue.cores, queue.max_wall_s) == (2, 1, 16, 86400)
    assert queue.mem_gb == pytest.approx(1024**4 / 1e9)
    assert queue.environments == ("make", "smp")  # mpi has no slots
    assert not off.up
    assert off.max_wall_s is None


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("idle", True),
        ("mixed-", True),
        ("idle~", True),
        ("drained", False),
        ("idle*", False),
        ("down*", False),
    ],
)
def test_states_of_nodes(state: str, expected: bool) -> None:
    assert starts(state) is expected


@pytest.mark.parametrize(
    ("answer", "missing", "says"),
    [
        (Answers(127, stderr="scontrol and sinfo are not on PATH\n"), True, "are not there"),
        (
            Answers(1, stderr="slurm_load_conf: Unable to contact slurm controller\n"),
            False,
            "Unable to contact",
        ),
        (Answers(0, "==matcompute:config\n"), False, "is not understood"),
    ],
)
def test_no_answer_is_told(answer: Answers, missing: bool, says: str) -> None:
    with pytest.raises(LimitsError, match=says) as caught:
        limits(answer, "slurm")
    assert caught.value.missing is missing


def test_schedulers_that_cannot_be_asked() -> None:
    assert limits(Answers(), "pbs") is None


def test_sections() -> None:
    assert sections("x\n==matcompute:a\n1\n\n2\n==matcompute:b\n") == {"a": ["1", "2"], "b": []}
