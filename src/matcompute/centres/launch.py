"""From a profile to shell lines: what stands at the start of a job script, and before a code."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matcompute.centres.model import Centre, CodeBlock, PartitionBlock

__all__ = [
    "code_lines",
    "directives",
    "engine_command",
    "environment_lines",
    "module_lines",
    "quote",
    "start_lines",
]

_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]*\Z")
#: Files that define the command ``module`` where the shell has not read them.
_MODULE_FILES = "/etc/profile.d/modules.sh /etc/profile.d/lmod.sh /usr/share/lmod/lmod/init/bash"
#: How a container is started; the job's folder is seen inside under the same path.
ENGINES = {
    "apptainer": "apptainer exec --bind $PWD:$PWD --pwd $PWD {image_name}",
    "singularity": "singularity exec --bind $PWD:$PWD --pwd $PWD {image_name}",
    "docker": "docker run --rm -i -v $PWD:$PWD:rw -w $PWD {image_name}",
    "podman": "podman run --rm -i -v $PWD:$PWD:rw -w $PWD {image_name}",
    "sarus": "sarus run --mount=src=$PWD,dst=$PWD,type=bind --workdir=$PWD {image_name}",
}


def quote(value: str) -> str:
    """Quote a value for the shell; ``$NAME`` in it still stands for the variable."""
    if _PLAIN.match(value):
        return value
    if "$" in value:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("`", "\\`") + '"'
    return shlex.quote(value)


def environment_lines(values: dict[str, str]) -> list[str]:
    """Return the lines that set environment variables."""
    return [f"export {name}={quote(value)}" for name, value in sorted(values.items())]


def module_lines(modules: tuple[str, ...]) -> list[str]:
    """Return the lines that load environment modules, in one command."""
    if not modules:
        return []
    find = (
        "command -v module >/dev/null 2>&1 || "
        f'for f in {_MODULE_FILES}; do if [ -r "$f" ]; then . "$f"; break; fi; done'
    )
    return [find, f"module load {' '.join(quote(name) for name in modules)}"]


def start_lines(centre: Centre) -> str:
    """Return what stands at the start of every job script of a centre."""
    launch = centre.launch
    lines = module_lines(launch.modules) + environment_lines(launch.env)
    if launch.prepend.strip():
        lines.append(launch.prepend.strip("\n"))
    return "\n".join(lines)


def code_lines(code: CodeBlock) -> str:
    """Return what stands before a code in a job script, after :func:`start_lines`."""
    lines = module_lines(code.modules)
    if code.prepend.strip():
        lines.append(code.prepend.strip("\n"))
    return "\n".join(lines)


def directives(centre: Centre, partition: PartitionBlock | None = None) -> list[str]:
    """Return the raw scheduler directives of the jobs of a centre, and of one of its partitions."""
    return [*centre.launch.extra_directives, *(partition.extra_directives if partition is not None else ())]


def engine_command(code: CodeBlock) -> str:
    """Return the command that starts a code's container, with ``{image_name}`` in it."""
    assert code.container is not None
    engine = code.container.engine
    command = ENGINES.get(engine, engine)
    return command if "{image_name}" in command else f"{command} {{image_name}}"
