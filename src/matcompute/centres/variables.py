"""``{name}`` in the texts of a profile: what each user fills in when the centre is registered."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from matcompute.errors import did_you_mean
from matcompute.yamlfile import KeyPath, LocatedYaml, Problem

__all__ = ["BUILT_IN", "fill", "placeholders", "variable_problems"]

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
#: Placeholders that are filled in later: by the workspace, by AiiDA when it writes a job script, by the shell.
BUILT_IN = frozenset(
    {
        "workspace",
        "username",
        "tot_num_mpiprocs",
        "num_machines",
        "num_mpiprocs_per_machine",
        "num_cores_per_machine",
        "num_cores_per_mpiproc",
        "image_name",
    }
)
#: Texts that are shell code, in which braces have meanings of their own.
_SHELL = {"prepend", "append"}


def placeholders(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Yield the place and name of every ``{name}`` in the texts of a profile's plain values."""
    if isinstance(value, str):
        for match in _PLACEHOLDER.finditer(value):
            if match.start() == 0 or value[match.start() - 1] != "$":  # ${HOME} is the shell's
                yield path, match.group(1)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if path or key != "variables":
                yield from placeholders(item, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from placeholders(item, (*path, index))


def fill(value: Any, values: Mapping[str, str]) -> Any:
    """Return plain values with every ``{name}`` that ``values`` has replaced; others stay."""
    if isinstance(value, str):

        def replace(match: re.Match[str]) -> str:
            shell = match.start() > 0 and value[match.start() - 1] == "$"
            return match.group(0) if shell else str(values.get(match.group(1), match.group(0)))

        return _PLACEHOLDER.sub(replace, value)
    if isinstance(value, Mapping):
        return {key: fill(item, values) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [fill(item, values) for item in value]
    return value


def variable_problems(file: LocatedYaml, given: Iterable[str] = ()) -> list[Problem]:
    """Return placeholders that nobody fills, variables that nobody uses, and given values that there is no use for."""
    data = file.data if isinstance(file.data, dict) else {}
    declared = data.get("variables")
    declared = set(declared) if isinstance(declared, dict) else set()
    problems, used = [], set()
    for path, name in placeholders(data):
        used.add(name)
        shell = bool(path) and path[-1] in _SHELL
        if name not in declared and name not in BUILT_IN and not shell:
            hint = did_you_mean(name, declared | BUILT_IN) if declared else ""
            problems.append(
                file.problem(path, f"unknown variable '{{{name}}}'{hint or '; declare it under variables'}")
            )
    problems += [
        file.problem(("variables", name), f"'{name}' has a meaning already; choose another name")
        for name in sorted(declared & BUILT_IN)
    ]
    problems += [
        file.problem(("variables", name), f"the variable '{name}' is used nowhere")
        for name in sorted(declared - used - BUILT_IN)
    ]
    problems += [
        file.problem(("variables",), f"a value was given for '{name}'{did_you_mean(name, declared)}")
        for name in sorted(set(given) - declared)
    ]
    return problems
