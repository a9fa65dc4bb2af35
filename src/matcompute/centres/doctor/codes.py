"""Step 5: the codes: modules load, executables are there, the node program is of our version."""

from __future__ import annotations

import re
import shlex
from importlib.metadata import entry_points
from typing import Any

import matcompute
from matcompute.centres.doctor.patient import Patient
from matcompute.centres.doctor.report import Finding, Step, worst
from matcompute.centres.launch import engine_command, environment_lines, module_lines, quote
from matcompute.centres.model import NODE_PROGRAM, CodeBlock
from matcompute.errors import did_you_mean

__all__ = ["code_command", "examine_codes", "program_blocks"]

#: What `module load` says when it failed; old versions leave the exit status at 0.
_MODULE_ERROR = re.compile(
    r"error|unable to locate|not found|unknown|cannot be loaded|does not exist", re.IGNORECASE
)
_VERSION = re.compile(r"version\s+(\S+)")


def program_blocks(patient: Patient) -> list[CodeBlock]:
    """Return the codes of the profile; on this machine the node program of this environment is one of them."""
    from matcompute.centres.codes import local_node_program

    codes = list(patient.centre.codes)
    return codes if patient.centre.code() is not None else [*codes, local_node_program()]


def code_command(code: CodeBlock) -> str:
    """Return the start of a command line that runs a code, its container included."""
    if code.container is None:
        return quote(code.executable)
    return f"{engine_command(code).format(image_name=quote(code.container.image))} {quote(code.executable)}"


def examine_codes(patient: Patient) -> Step:
    """Look at every code as a job would find it, on the login node."""
    findings: list[Finding] = []
    details: dict[str, Any] = {}
    findings += _common(patient)
    broken = bool(findings)
    for code in program_blocks(patient):
        if broken:
            patient.bad_codes.add(code.name)
            continue
        found = _code(patient, code, details)
        if any(item.state == "fail" for item in found):
            patient.bad_codes.add(code.name)
        findings += found
    if not broken:
        findings += _mpi(patient)
    bad = next((item.message for item in findings if item.state == "fail"), None)
    names = ", ".join(f"{name} {info.get('version', '')}".strip() for name, info in details.items())
    return Step("codes", worst(findings), bad or names, tuple(findings), details=details)


def _preamble(patient: Patient) -> list[str]:
    launch = patient.centre.launch
    lines = [
        f"{line} || exit 1" if line.startswith("module ") else line for line in module_lines(launch.modules)
    ]
    return [*lines, *environment_lines(launch.env), launch.prepend]


def _common(patient: Patient) -> list[Finding]:
    """Try what stands at the start of every job."""
    launch = patient.centre.launch
    found = _modules(patient, launch.modules, (), "launch.modules")
    if found or not launch.prepend.strip():
        return found
    done = patient.way.run(f"bash -n <<'@prepend@'\n{launch.prepend}\n@prepend@")
    if not done.ok:
        return [
            Finding("bad-prepend", f"launch.prepend is no shell code: {done.message}", "mend launch.prepend")
        ]
    return []


def _modules(patient: Patient, names: tuple[str, ...], before: tuple[str, ...], where: str) -> list[Finding]:
    """Load modules one after the other, those of ``before`` first; name the first that fails."""
    if not names:
        return []
    tries = "\n".join(
        f"m={quote(name)}; out=$(module load $m 2>&1); status=$?; "
        'if [ $status -ne 0 ] || [ -n "$out" ]; then '
        'printf "%s|%s|%s\\n" "$m" $status "$(echo "$out" | tr "\\n|" "  ")"; fi; '
        "module load $m >/dev/null 2>&1"
        for name in names
    )
    find = module_lines(("x",))[0]
    start = "".join(f"module load {quote(name)} >/dev/null 2>&1\n" for name in before)
    done = patient.way.run(
        f"{find}\nif ! command -v module >/dev/null 2>&1; then echo '|127|'; exit 0; fi\n{start}{tries}",
        timeout=120,
    )
    for line in done.stdout.splitlines():
        name, status, said = [*line.split("|", 2), "", ""][:3]
        if status == "127" and not name:
            return [
                Finding(
                    "missing-module",
                    f"{where}: module '{names[0]}' cannot be loaded at {patient.way.where}: "
                    "there is no command 'module'",
                    f"leave {where} empty there, or set login.use_login_shell: true if a login shell has it",
                )
            ]
        if status.isdigit() and (int(status) != 0 or _MODULE_ERROR.search(said)):
            listed = patient.way.run(f"{find}\nmodule -t avail 2>&1", timeout=120).stdout.split()
            hint = did_you_mean(name, [item for item in listed if "/" in item or item.isalnum()])
            return [
                Finding(
                    "missing-module",
                    f"{where}: module '{name}' cannot be loaded at {patient.way.where}{hint}"
                    + (f" ({said.strip()[:120]})" if said.strip() else ""),
                    f"put the name that `module avail` shows there into {where}",
                )
            ]
    return []


def _code(patient: Patient, code: CodeBlock, details: dict[str, Any]) -> list[Finding]:
    index = next((k for k, item in enumerate(patient.centre.codes) if item.name == code.name), None)
    where = f"codes[{index}]" if index is not None else code.name
    found = _modules(patient, code.modules, patient.centre.launch.modules, f"{where}.modules")
    if found:
        return found
    script = [*_preamble(patient), *module_lines(code.modules), code.prepend]
    info = details.setdefault(code.name, {})
    if code.container is not None:
        found = _container(patient, code, script, where)
        if found:
            return found
    else:
        done = patient.way.run("\n".join([*script, f"command -v {quote(code.executable)}"]), timeout=60)
        path = done.stdout.strip().splitlines()[-1:] if done.ok else []
        if not path:
            return [_absent(patient, code, where)]
        info["path"] = path[0]
    plugins = [entry.name for entry in entry_points(group="aiida.calculations")]
    if code.plugin not in plugins:
        found.append(
            Finding(
                "plugin-missing",
                f"{where}.plugin: AiiDA on this machine has no plugin '{code.plugin}'"
                + did_you_mean(code.plugin, plugins),
                "pip install the plugin's package here; until then no stage can use the code",
                "warn",
            )
        )
    if code.name == NODE_PROGRAM:
        found += _version(patient, code, script, where, info)
    return found


def _absent(patient: Patient, code: CodeBlock, where: str) -> Finding:
    fix = f"install it there, or write its path into {where}.executable"
    if code.name == NODE_PROGRAM:
        fix = (
            f"install it there: python3.11 -m venv DIR; DIR/bin/pip install matcompute=={matcompute.__version__}; "
            f"then set {where}.executable: DIR/bin/{NODE_PROGRAM}"
        )
    return Finding(
        "code-missing",
        f"{where}: {code.name} is not there: {patient.way.where} has no executable {code.executable}",
        fix,
    )


def _container(patient: Patient, code: CodeBlock, script: list[str], where: str) -> list[Finding]:
    assert code.container is not None
    engine = engine_command(code).split()[0]
    image = code.container.image
    done = patient.way.run("\n".join([*script, f"command -v {quote(engine)} >/dev/null"]))
    if not done.ok:
        return [
            Finding(
                "code-missing",
                f"{where}.container: {patient.way.where} has no {engine}",
                f"load its module (codes[].modules), or name another engine in {where}.container.engine",
            )
        ]
    if image.startswith("/") and not patient.way.run(f"test -r {quote(image)}").ok:
        return [
            Finding(
                "code-missing",
                f"{where}.container: the image {image} is not at {patient.way.where}, or cannot be read",
                f"put it there, or mend {where}.container.image",
            )
        ]
    return []


def _version(
    patient: Patient, code: CodeBlock, script: list[str], where: str, info: dict[str, Any]
) -> list[Finding]:
    done = patient.way.run("\n".join([*script, f"{code_command(code)} --version"]), timeout=120)
    match = _VERSION.search(done.stdout)
    if not done.ok or match is None:
        return [
            Finding(
                "code-broken",
                f"{where}: {code.executable} does not run at {patient.way.where}: {done.message}",
                "run it there by hand; its Python or its libraries may be gone",
            )
        ]
    found = info["version"] = match.group(1)
    wanted = code.version or matcompute.__version__
    if found == wanted or found.startswith(f"{wanted}."):
        return []
    return [
        Finding(
            "version-mismatch",
            f"{where}: {code.name} at {patient.way.where} is of version {found}, wanted is {wanted}",
            f"{shlex.quote(code.executable.rsplit('/', 1)[0] + '/pip')} install matcompute=={wanted} there, "
            f"or set {where}.version: {found} if you know that it fits",
        )
    ]


def _mpi(patient: Patient) -> list[Finding]:
    """Look for the program that starts MPI jobs; without it only jobs of one process run."""
    launcher = (patient.centre.launch.mpi.split() or [""])[0]
    if not launcher or patient.centre.is_local:
        return []
    done = patient.way.run("\n".join([*_preamble(patient), f"command -v {quote(launcher)} >/dev/null"]))
    if done.ok:
        return []
    needed = [code.name for code in patient.centre.codes if code.mpi]
    fix = f"load its module (launch.modules), or write its path into launch.mpi: /…/{launcher} …"
    node = patient.centre.code()
    if node is not None and node.executable.startswith("/"):
        beside = f"{node.executable.rsplit('/', 1)[0]}/{launcher}"
        if patient.way.run(f"test -x {quote(beside)}").ok:
            rest = patient.centre.launch.mpi.split(maxsplit=1)[1:]
            fix = f"set launch.mpi: {' '.join([beside, *rest])}"
    return [
        Finding(
            "mpi-missing",
            f"launch.mpi: {patient.way.where} has no {launcher}"
            + (f", which {', '.join(needed)} needs" if needed else "; stages with ranks cannot run"),
            fix,
            "fail" if needed else "warn",
        )
    ]
