"""Shell lines of a profile, run by a real bash."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from matcompute.centres import Centre
from matcompute.centres.launch import (
    code_lines,
    directives,
    engine_command,
    environment_lines,
    module_lines,
    quote,
    start_lines,
)
from matcompute.centres.model import CodeBlock, ContainerBlock

CONFIGS = Path(__file__).parents[2] / "cluster_configs"


def bash(script: str, **env: str) -> str:
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True, env={**os.environ, **env}
    )
    return done.stdout


@pytest.mark.parametrize(
    "value", ["plain", "two words", "it's", 'a "quoted" word', "back`tick`", "semi;colon", "", "a\\b"]
)
def test_values_reach_the_job_as_they_are(value: str) -> None:
    (line,) = environment_lines({"X": value})
    assert bash(f'{line}\nprintf %s "$X"') == value


def test_variables_in_values_are_filled_in_by_the_shell() -> None:
    (line,) = environment_lines({"X": '$HOME/"a" b`c'})
    assert bash(f'{line}\nprintf %s "$X"', HOME="/there") == '/there/"a" b`c'


def test_modules_are_loaded_in_order_before_the_environment_and_the_rest() -> None:
    centre = Centre.load(CONFIGS / "slurm-cpu.yaml", {"user": "ada", "project": "p"})
    lines = start_lines(centre).splitlines()
    assert lines[1] == "module load gcc/13 python/3.11"
    assert lines[-1] == "export OMP_PROC_BIND=close"
    said = bash('module() { echo "module $*"; }\n' + start_lines(centre) + '\necho "$OMP_PROC_BIND"')
    assert said.split("\n") == ["module load gcc/13 python/3.11", "close", ""]


def test_module_is_found_where_the_shell_has_not_read_its_file(tmp_path: Path) -> None:
    init = tmp_path / "modules.sh"
    init.write_text('module() { echo "found $*"; }\n')
    text = "\n".join(module_lines(("a/1",))).replace("/etc/profile.d/modules.sh", str(init))
    assert bash(f"unset -f module\n{text}").strip() == "found load a/1"


def test_nothing_stands_where_nothing_is_asked() -> None:
    assert module_lines(()) == []
    assert start_lines(Centre.load(CONFIGS / "workstation.yaml")) == ""


def test_directives_of_the_centre_come_before_those_of_the_partition() -> None:
    centre = Centre.load(CONFIGS / "slurm-cpu.yaml")
    centre = centre.model_copy(
        update={"launch": centre.launch.model_copy(update={"extra_directives": ("#SBATCH --exclusive",)})}
    )
    assert directives(centre, centre.partition("bigmem")) == [
        "#SBATCH --exclusive",
        "#SBATCH --constraint=bigmem",
    ]
    assert directives(centre) == ["#SBATCH --exclusive"]


def test_a_code_s_own_lines() -> None:
    code = CodeBlock(name="pw", executable="pw.x", modules=("qe/7",), prepend="ulimit -s unlimited\n")
    assert code_lines(code).splitlines()[1:] == ["module load qe/7", "ulimit -s unlimited"]


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ("apptainer", "apptainer exec --bind $PWD:$PWD --pwd $PWD {image_name}"),
        ("podman", "podman run --rm -i -v $PWD:$PWD:rw -w $PWD {image_name}"),
        ("/opt/bin/run {image_name} --", "/opt/bin/run {image_name} --"),
        ("ch-run", "ch-run {image_name}"),
    ],
)
def test_container_engines(engine: str, expected: str) -> None:
    code = CodeBlock(name="x", executable="x", container=ContainerBlock(engine=engine, image="i.sif"))
    assert engine_command(code) == expected


def test_quote_leaves_plain_words() -> None:
    assert quote("gcc/13") == "gcc/13"
    assert quote("a b") == "'a b'"
