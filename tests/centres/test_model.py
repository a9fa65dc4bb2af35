"""The centre profile: the ready ones, durations, variables, and what is said about a wrong file."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from matcompute.centres import Centre, CentreError
from matcompute.centres.durations import format_duration, parse_duration
from matcompute.centres.schema import centre_schema, schema_text

ROOT = Path(__file__).parents[2]
READY = sorted((ROOT / "cluster_configs").glob("*.yaml"))
START = "schema: matcompute.centre/v1\ncentre: {id: a}\n"
PARTITION = "partitions: [{name: p, cores: 1, mem_gb: 1}]\n"


def test_there_are_six_ready_profiles() -> None:
    names = {path.stem for path in READY}
    assert names == {"workstation", "slurm-cpu", "slurm-gpu", "sge", "pbs", "lsf"}


@pytest.mark.parametrize("path", READY, ids=lambda p: p.stem)
def test_a_ready_profile_loads_and_fits_the_schema(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=../docs/reference/centre.schema.json\n")
    values = dict.fromkeys(yaml.safe_load(text).get("variables", {}), "somebody")
    centre = Centre.load(path, values)
    assert centre.unfilled == []
    assert "{user}" not in centre.model_dump_json(exclude={"variables"})
    data = json.loads(json.dumps(yaml.safe_load(text), default=str))
    jsonschema.Draft202012Validator(centre_schema()).validate(data)


def test_the_committed_schema_is_current() -> None:
    committed = (ROOT / "docs" / "reference" / "centre.schema.json").read_text(encoding="utf-8")
    assert committed == schema_text(), "run: matcompute centre schema > docs/reference/centre.schema.json"


def test_the_schema_is_a_schema_and_describes_every_block() -> None:
    schema = centre_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    blocks = {"centre", "login", "scheduler", "partitions", "storage", "launch", "codes", "projects", "pilot"}
    assert blocks < set(schema["properties"])


def test_what_the_gpu_profile_says() -> None:
    centre = Centre.load(ROOT / "cluster_configs" / "slurm-gpu.yaml", {"user": "ada"})
    assert centre.login.proxy_jump == "ada@gate.hpc.example.org"
    assert centre.projects[0].account == "materials"  # the default of the variable
    assert centre.project() is centre.projects[0]
    debug = centre.partition("gpu-debug")
    assert (debug.n_gpus, debug.gpus.resource, debug.max_wall_s) == (4, "gpu:a100", 1800)
    assert not centre.is_local
    with pytest.raises(CentreError, match=r"no partition 'gpus'; did you mean 'gpu'"):
        centre.partition("gpus")
    with pytest.raises(CentreError, match=r"no project 'materialz'; did you mean 'materials'"):
        centre.project("materialz")


def test_a_variable_without_a_value_stays(tmp_path: Path) -> None:
    centre = Centre.load(ROOT / "cluster_configs" / "slurm-cpu.yaml", {"user": "ada"})
    assert centre.unfilled == ["project"]
    assert centre.storage.work_dir == "/scratch/ada/matcompute"


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("24 h", 86400),
        ("30min", 1800),
        ("1d 12h", 129600),
        ("1.5 h", 5400),
        ("2 weeks", 1209600),
        ("1-12:00:00", 129600),
        ("2-00", 172800),
        ("00:30:00", 1800),
        ("10:30", 630),
        (90, 90),
    ],
)
def test_durations(written: str | float, seconds: float) -> None:
    assert parse_duration(written) == seconds
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize("written", ["", "24", "h", "1 fortnight", "12:00:00:00", 0, -3, True, "24 h later"])
def test_what_is_no_duration(written: object) -> None:
    with pytest.raises(ValueError):
        parse_duration(written)  # type: ignore[arg-type]


def test_yaml_clock_without_quotes_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(START + "partitions: [{name: p, cores: 1, mem_gb: 1, max_wall: 48:00:00}]\n")
    assert Centre.load(path).partition().max_wall_s == 48 * 3600


NODE = "codes: [{name: matcompute-node, executable: /x}]\n"


@pytest.mark.parametrize(
    ("text", "line", "key", "message"),
    [
        ("centre: {id: a}\n" + PARTITION, 1, "", "the key 'schema' is missing"),
        (START.replace("v1", "v9") + PARTITION, 1, "schema", "'matcompute.centre/v9' is not a valid value"),
        (START + PARTITION + "sheduler: {type: slurm}\n", 4, "sheduler", "did you mean 'scheduler'"),
        (START + PARTITION + "scheduler:\n  type: slrum\n", 5, "scheduler.type", "did you mean 'slurm'"),
        (START + PARTITION + "scheduler:\n  poll_intervall_s: 3\n", 5, "", "did you mean 'poll_interval_s'"),
        (
            START
            + "partitions:\n  - {name: p, cores: 1, mem_gb: 1}\n  - name: q\n    cores: none\n    mem_gb: 1\n",
            6,
            "partitions[1].cores",
            "valid integer",
        ),
        (START + PARTITION * 2, 4, "partitions", "duplicate key"),
        (
            START + "partitions: [{name: p, cores: 1, mem_gb: 1, max_wall: soon}]\n",
            3,
            "partitions[0].max_wall",
            "'soon' is not a time",
        ),
        (START + PARTITION + "login: {transport: ssh}\n", 1, "codes", "'matcompute-node' must be among"),
        (START + PARTITION + "login: {auth: {method: key}}\n", 4, "login.auth", "needs key_file"),
        (START + PARTITION + "login: {transport: firecrest}\n" + NODE, 4, "login", "needs url"),
        (
            START + PARTITION + "codes:\n  - {name: pw, executable: pw.x, partitions: [q]}\n",
            5,
            "codes[0].partitions[0]",
            "no partition 'q'; known: p",
        ),
        (START + PARTITION + "scheduler: {type: sge}\n", 3, "partitions[0]", "needs parallel_environment"),
        (
            START + PARTITION + "storage: {work_dir: '~/jobs'}\n",
            4,
            "storage.work_dir",
            "is not an absolute path",
        ),
        (START + PARTITION + "pilot: {partition: q}\n", 4, "pilot.partition", "no partition 'q'"),
        (
            START
            + PARTITION
            + "projects:\n  - {account: x, default: true}\n  - {account: y, default: true}\n",
            4,
            "projects",
            "only one",
        ),
        (START + PARTITION + "projects:\n  - {account: x}\n  - {account: x}\n", 6, "projects[1]", "unique"),
        (
            START + PARTITION + "storage: {work_dir: '/s/{usr}'}\nvariables: {user: {}}\n",
            4,
            "storage.work_dir",
            "unknown variable '{usr}'; did you mean 'user'",
        ),
        (START + PARTITION + "variables:\n  user: {}\n", 5, "variables.user", "is used nowhere"),
        (
            START + PARTITION + "variables:\n  workspace: {}\n",
            5,
            "variables.workspace",
            "has a meaning already",
        ),
        (START + PARTITION + "launch:\n  env: {X: true}\n", 4, "launch", "env.X: quote the value: 'true'"),
        (
            START + PARTITION + 'launch:\n  extra_directives: ["#SBATCH -a\\n#SBATCH -b"]\n',
            5,
            "launch.extra_directives[0]",
            "one line",
        ),
        ("- 1\n", 1, "", "expected a mapping"),
    ],
)
def test_a_wrong_file_is_told_by_line_and_key(
    tmp_path: Path, text: str, line: int, key: str, message: str
) -> None:
    path = tmp_path / "centre.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CentreError) as caught:
        Centre.load(path)
    told = str(caught.value)
    assert message in told
    assert f"{path}:{line}: {key}" in told


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "centre.yaml"
    path.write_text(START + "partitions: [{name: p, cores: 0, mem_gb: 1, nodes: 0}]\nlogn: {}\n")
    with pytest.raises(CentreError) as caught:
        Centre.load(path)
    assert str(caught.value).startswith("3 problems in")


def test_a_value_that_no_variable_takes_is_refused() -> None:
    with pytest.raises(CentreError, match=r"a value was given for 'usr'; did you mean 'user'"):
        Centre.load(ROOT / "cluster_configs" / "sge.yaml", {"usr": "ada"})


def test_shell_variables_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        START + PARTITION + "variables: {user: {}}\nstorage: {work_dir: '/s/${HOME}/{user}'}\n"
        "launch: {prepend: 'f() { echo {a,b}; }; export X=${X:-{user}}'}\n"
    )
    centre = Centre.load(path, {"user": "ada"})
    assert centre.storage.work_dir == "/s/${HOME}/ada"
    assert centre.launch.prepend == "f() { echo {a,b}; }; export X=${X:-ada}"


def test_numbers_in_the_environment_are_text(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(START + PARTITION + "launch: {env: {OMP_NUM_THREADS: 4}}\n")
    assert Centre.load(path).launch.env == {"OMP_NUM_THREADS": "4"}
