"""The AiiDA codes of a centre: one for each program of its profile."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matcompute.centres.errors import CentreError
from matcompute.centres.launch import code_lines, engine_command
from matcompute.centres.model import NODE_PROGRAM, CodeBlock

if TYPE_CHECKING:
    from aiida.orm import Computer, InstalledCode

    from matcompute.centres.model import Centre

__all__ = ["hide_codes", "local_node_program", "setup_codes"]

#: Marks a code as made from a profile.
_EXTRA = "matcompute"
#: Extra of a code: its version, as the profile says.
VERSION = "version"


def setup_codes(computer: Computer, centre: Centre) -> dict[str, InstalledCode]:
    """Make the codes of a centre, or bring them up to date; return them by the names of the profile.

    A code cannot be changed in AiiDA. One whose program has moved, or whose modules have changed, is hidden and a new
    one made (``<name>-2``): nodes of earlier calculations keep pointing to what they ran.

    Raises
    ------
    CentreError
        If the node program is to run on this machine and is not installed.
    """
    blocks = list(centre.codes)
    if centre.code() is None:
        blocks.append(local_node_program())
    made = {block.name: _setup(computer, block) for block in blocks}
    for code in _existing(computer):
        if not _is_ours(code):
            continue  # made by the user with verdi
        hide = all(code.uuid != one.uuid for one in made.values())
        if code.is_hidden != hide:
            code.is_hidden = hide
    return made


def hide_codes(computer: Computer) -> None:
    """Hide the codes of a centre that is no longer used."""
    for code in _existing(computer):
        if _is_ours(code) and not code.is_hidden:
            code.is_hidden = True


def local_node_program() -> CodeBlock:
    """Return the node program of this environment, for centres that are this machine.

    Raises
    ------
    CentreError
        If it is not installed.
    """
    path = Path(sys.executable).parent / NODE_PROGRAM
    if not path.is_file():
        raise CentreError(
            f"the node program is not installed beside {sys.executable}",
            hint="install matcompute into the environment that you run it from",
        )
    return CodeBlock(name=NODE_PROGRAM, executable=str(path))


def _existing(computer: Computer) -> list[InstalledCode]:
    from aiida.orm import AbstractCode, QueryBuilder

    # Not InstalledCode: a query for it leaves out containerized ones, whose type does not begin with its type.
    query = QueryBuilder().append(AbstractCode, filters={"dbcomputer_id": computer.pk})
    codes: list[InstalledCode] = query.all(flat=True)
    return codes


def _setup(computer: Computer, block: CodeBlock) -> InstalledCode:
    from aiida.orm import ContainerizedCode, InstalledCode

    wanted: dict[str, Any] = {
        "filepath_executable": block.executable,
        "default_calc_job_plugin": block.plugin,
        "prepend_text": code_lines(block),
        "with_mpi": True if block.mpi else None,
    }
    kind: type[InstalledCode] = InstalledCode
    if block.container is not None:
        kind = ContainerizedCode
        wanted |= {
            "engine_command": engine_command(block),
            "image_name": block.container.image,
            # The shell shall put the job's folder where the engine's command says $PWD.
            "use_double_quotes": True,
        }
    # Nodes of earlier releases carry the label alone; a number was added when a program had moved.
    own = [code for code in _existing(computer) if _is_of(code.label, block.name)]
    for code in own:
        if type(code) is kind and all(_value(code, key) == value for key, value in wanted.items()):
            if code.base.extras.get(VERSION, None) != block.version:
                code.base.extras.set(VERSION, block.version)
            return code
    labels = {code.label for code in own}
    label, number = block.name, 1
    while label in labels:
        number += 1
        label = f"{block.name}-{number}"
    description = "node program of matcompute" if block.name == NODE_PROGRAM else ""
    code = kind(label=label, computer=computer, description=description, **wanted).store()
    code.base.extras.set(_EXTRA, True)
    if block.version is not None:
        # What inputs look like may depend on it.
        code.base.extras.set(VERSION, block.version)
    return code


def _is_ours(code: InstalledCode) -> bool:
    return bool(code.base.extras.get(_EXTRA, False)) or _is_of(code.label, NODE_PROGRAM)


def _value(code: InstalledCode, key: str) -> Any:
    value = getattr(code, key)
    return str(value) if key == "filepath_executable" else value


def _is_of(label: str, name: str) -> bool:
    rest = label.removeprefix(name)
    return label.startswith(name) and (not rest or (rest[0] == "-" and rest[1:].isdigit()))
