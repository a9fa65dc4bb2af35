"""From a YAML file to a :class:`~matcompute.campaign.model.Campaign`, collecting every problem on the way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from matcompute import plugins
from matcompute.campaign.adapters import (
    calculator_adapter,
    needs_calculator,
    parameters_model,
    stage_task,
    task_adapter,
)
from matcompute.campaign.columns import column_problems, stage_descriptor
from matcompute.campaign.model import (
    SCHEMA,
    Calculator,
    Campaign,
    CampaignFileError,
    CampaignHeader,
    Resources,
    Stage,
)
from matcompute.errors import InputError, did_you_mean
from matcompute.modelproblems import model_keys, one_line, validation_problems
from matcompute.structures.spec import GROUP as SOURCES
from matcompute.structures.spec import StructuresSpec, source
from matcompute.units import parse_quantity
from matcompute.yamlfile import KeyPath, LocatedYaml, Problem, load_yaml

__all__ = ["STAGE_KEYS", "read_campaign"]

#: Keys of a compute stage that are not the task's own.
STAGE_KEYS: tuple[str, ...] = ("name", "calculator", "resources", "batch_size")
#: British and American spelling, one meaning.
_ALIASES = {"license": "licence", "center": "centres", "centers": "centres"}
_HINT = "`matcompute campaign schema` prints all keys as a JSON Schema, `campaign new NAME` writes an example"
#: Endings of the datasets beside a descriptor.
_RESERVED = ("_status", "_process", "_label")
_STAGE_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*\Z")


class _Reader:
    def __init__(self, yaml_file: LocatedYaml) -> None:
        self.file = yaml_file
        self.problems: list[Problem] = list(yaml_file.problems)

    def bad(self, path: KeyPath, message: str) -> None:
        self.problems.append(self.file.problem(path, message))

    def validate(self, model: type[BaseModel], value: Any, prefix: KeyPath) -> Any:
        """Validate with a pydantic model; on failure note the problems and return None."""
        try:
            return model.model_validate(value)
        except ValidationError as error:
            self.problems += validation_problems(error, model, self.file, prefix)
        except InputError as error:
            self.bad(prefix, one_line(error))
        return None

    def attempt(self, path: KeyPath, call: Callable[[], Any]) -> Any:
        """Call something that may raise our errors; note them at ``path``."""
        try:
            return call()
        except (InputError, ValueError) as error:
            self.bad(path, one_line(error))
        return None

    # ------------------------------------------------------------------ parts

    def header(self, data: dict[str, Any]) -> CampaignHeader | None:
        known = [*model_keys(CampaignHeader), "structures", "stages"]
        header: dict[str, Any] = {}
        for key, value in data.items():
            name = _ALIASES.get(key, key)
            if name != key:
                if name in data or name in header:
                    self.bad((key,), f"'{key}' and '{name}' mean the same; keep one")
                    continue
                for place in [p for p in self.file.places if p[:1] == (key,)]:
                    self.file.places[(name, *place[1:])] = self.file.places[place]
            if name in {"structures", "stages"}:
                continue
            if name not in known:
                self.bad((key,), f"unknown key '{key}'{did_you_mean(key, known)}")
                continue
            if name == "centres" and isinstance(value, str):
                value = [value]
            header[name] = value
        if isinstance(header.get("schema"), str) and header["schema"] != SCHEMA:
            self.bad(
                ("schema",),
                f"'{header['schema']}' is not a version that this program reads; expected {SCHEMA}",
            )
            header["schema"] = SCHEMA
        return self.validate(CampaignHeader, header, ())

    def structures(self, data: dict[str, Any]) -> list[StructuresSpec]:
        items = data.get("structures")
        if "structures" not in data:
            self.bad(("structures",), "the key 'structures' is missing")
            return []
        if not isinstance(items, list) or not items:
            self.bad(("structures",), "expected a list with at least one source of structures")
            return []
        specs = []
        for index, item in enumerate(items):
            path: KeyPath = ("structures", index)
            if not isinstance(item, dict):
                self.bad(path, f"expected a mapping with one of {', '.join(plugins.names(SOURCES))}")
                continue
            kind = self.attempt(path, partial(StructuresSpec.kind_of, item))
            adapter = kind and self.attempt((*path, kind), partial(source, kind))
            if adapter and self.validate(adapter.Parameters, item, path) is not None:
                specs.append(StructuresSpec(kind=kind, parameters=item, line=self.file.place(path)[0]))
        return specs

    def stages(self, data: dict[str, Any]) -> list[Stage]:
        from matcompute.gates import GATES

        items = data.get("stages")
        if "stages" not in data:
            self.bad(("stages",), "the key 'stages' is missing")
            return []
        if not isinstance(items, list) or not items:
            self.bad(("stages",), "expected a list with at least one stage")
            return []
        kinds = [*plugins.names("matcompute.tasks"), *GATES]
        stages: list[Stage] = []
        taken: set[str] = set()
        for index, item in enumerate(items):
            path: KeyPath = ("stages", index)
            if isinstance(item, str):
                item = {item: {}}
            if not isinstance(item, dict) or len(item) != 1:
                found = ", ".join(map(str, item)) if isinstance(item, dict) else type(item).__name__
                self.bad(
                    path,
                    "expected one key, the kind of the stage, with its parameters indented below it"
                    + (f"; found {found}" if found else ""),
                )
                continue
            kind, body = next(iter(item.items()))
            if kind not in kinds:
                self.bad((*path, kind), f"unknown stage '{kind}'{_instead(str(kind), kinds)}")
                continue
            here = (*path, kind)
            if here not in self.file.places:
                self.file.places[here] = self.file.place(path)
            body = {} if body is None else body
            stage = self.gate(kind, body, here) if kind in GATES else self.compute(kind, body, here)
            if stage is None:
                continue
            name = self.stage_name(body, stage.name, taken, here)
            if stage_descriptor(stage) is not None and name.endswith(_RESERVED):
                self.bad((*here, "name"), f"a descriptor cannot be named '{name}': its ending has a meaning")
            taken.add(name)
            stages.append(stage.model_copy(update={"name": name, "line": self.file.place(here)[0]}))
        return stages

    def stage_name(self, body: Any, kind: str, taken: Iterable[str], path: KeyPath) -> str:
        if isinstance(body, dict) and "name" in body:
            name = body["name"]
            if not isinstance(name, str) or _STAGE_NAME.match(name) is None:
                self.bad(
                    (*path, "name"), f"'{name}' is not a stage name; expected lower-case words joined by '_'"
                )
                return str(name)
            if name in taken:
                self.bad((*path, "name"), f"another stage is named '{name}'; names are unique")
            return name
        number, name = 1, kind
        while name in taken:
            number += 1
            name = f"{kind}_{number}"
        return name

    def gate(self, kind: str, body: Any, path: KeyPath) -> Stage | None:
        from matcompute.gates import gate_model

        if isinstance(body, dict):
            body = {key: value for key, value in body.items() if key != "name"}
        method = (*path, "method")
        found = self.attempt(method if method in self.file.places else path, partial(gate_model, kind, body))
        if found is None:
            return None
        kind_model, body = found
        if isinstance(body, dict):
            body = self.quantities(kind_model, body, path)
        model = self.validate(kind_model, body, path)
        if model is None:
            return None
        return Stage(name=kind, kind=kind, is_gate=True, parameters=model.model_dump(mode="json"))

    def compute(self, kind: str, body: Any, path: KeyPath) -> Stage | None:
        if not isinstance(body, dict):
            self.bad(path, "expected a mapping of parameters")
            return None
        before = len(self.problems)
        named, body = _calculator_of(body)
        task = self.attempt(path, partial(self.stage_task, kind, named, path))
        own = {key: value for key, value in body.items() if key not in STAGE_KEYS}
        parameters: BaseModel | None = None
        own_keys = [key for key in STAGE_KEYS if key != "calculator" or needs_calculator(task)]
        model = None if task is None else self.task_model(task, own, path)
        if model is not None:
            known = [*model_keys(model), *own_keys]
            for key in [k for k in own if k not in model_keys(model)]:
                self.bad((*path, key), f"unknown key '{key}'{did_you_mean(key, known)}")
                del own[key]
            own = self.quantities(model, own, path)
            parameters = self.validate(model, own, path)
        resources = self.validate(Resources, body.get("resources") or {}, (*path, "resources"))
        batch_size = body.get("batch_size")
        if batch_size is not None and (
            not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1
        ):
            self.bad(
                (*path, "batch_size"),
                f"expected a whole number of structures from 1 up, found {batch_size!r}",
            )
        calculator = None
        if "calculator" in own_keys:
            calculator = self.calculator(body.get("calculator"), (*path, "calculator"))
        elif "calculator" in body:
            self.bad((*path, "calculator"), f"a {kind} stage needs no calculator; leave it out")
        if len(self.problems) > before or parameters is None:
            return None
        named = getattr(task, "default_name", None)  # of tasks older than this hook
        return Stage(
            name=kind if named is None else named(parameters),
            kind=kind,
            is_gate=False,
            parameters=parameters.model_dump(mode="json"),
            calculator=calculator,
            resources=resources,
            batch_size=batch_size,
        )

    def stage_task(self, kind: str, named: str | None, path: KeyPath) -> Any:
        """Return the task of a stage: its calculator may have one of its own."""
        if named is None or named not in plugins.names("matcompute.calculators"):
            return task_adapter(kind)
        task = stage_task(kind, named)
        if getattr(task, "per_structure", False) and not _works_alone(named):
            able = [name for name in plugins.names("matcompute.calculators") if _works_alone(name)]
            raise InputError(f"calculator '{named}' has no task '{kind}'; {', '.join(able)} have")
        return task

    def task_model(self, task: Any, values: dict[str, Any], path: KeyPath) -> type[BaseModel] | None:
        """Return the model of a task's parameters; which one may depend on one of them."""
        key = (*path, "descriptor")
        place = key if key in self.file.places else path
        model: type[BaseModel] | None = self.attempt(place, partial(parameters_model, task, values))
        return model

    def quantities(self, model: type[BaseModel], values: dict[str, Any], path: KeyPath) -> dict[str, Any]:
        """Convert texts such as ``0.05 eV/angstrom`` to the unit that the model's field names."""
        converted = dict(values)
        for key, value in values.items():
            field = model.model_fields.get(key)
            extra = field.json_schema_extra if field is not None else None
            unit = extra.get("unit") if isinstance(extra, dict) else None
            if isinstance(unit, str) and isinstance(value, str):
                number = self.attempt((*path, key), partial(parse_quantity, value, unit))
                if number is None:
                    del converted[key]  # already a problem; the default keeps the rest readable
                else:
                    converted[key] = number
        return converted

    def calculator(self, value: Any, path: KeyPath) -> Calculator | None:
        known = plugins.names("matcompute.calculators")
        if value is None:
            self.bad(path, f"the key 'calculator' is missing; known: {', '.join(known)}")
            return None
        body = {"name": value} if isinstance(value, str) else value
        if not isinstance(body, dict) or not isinstance(body.get("name"), str):
            self.bad(path, "expected a calculator's name, or a mapping with 'name' and its parameters")
            return None
        name = body["name"]
        if name not in known:
            self.bad((*path, "name"), f"unknown calculator '{name}'{did_you_mean(name, known)}")
            return None
        adapter = self.attempt(path, partial(calculator_adapter, name))
        if adapter is None:
            return None
        parameters = parameters_model(adapter)
        own = {key: item for key, item in body.items() if key != "name"}
        model = self.validate(parameters, self.quantities(parameters, own, path), path)
        return None if model is None else Calculator(name=name, parameters=model.model_dump(mode="json"))


def _calculator_of(body: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """Return the name of a stage's calculator, and its body with ``protocol`` where it belongs.

    ``{calculator: qe, protocol: fast}`` is short for ``{calculator: {name: qe, protocol: fast}}``.
    """
    value = body.get("calculator")
    name = value.get("name") if isinstance(value, dict) else value
    if not isinstance(name, str):
        return None, body
    inside = value if isinstance(value, dict) else {"name": name}
    if "protocol" in body and "protocol" not in inside and name in plugins.names("matcompute.calculators"):
        adapter = plugins.load("matcompute.calculators", name)
        if "protocol" in parameters_model(adapter).model_fields:
            body = {key: item for key, item in body.items() if key != "protocol"} | {
                "calculator": {**inside, "protocol": body["protocol"]}
            }
    return name, body


def _works_alone(name: str) -> bool:
    return bool(getattr(calculator_adapter(name), "per_structure", False))


def _instead(kind: str, kinds: Iterable[str]) -> str:
    """Return what to write in place of an unknown stage."""
    from matcompute.gates import METHODS

    if kind in METHODS:
        return f"; write `- select: {{method: {kind}, …}}`"
    if kind in plugins.names("matcompute.kernels"):
        return f"; write `- describe: {{descriptor: {kind}, …}}`"
    return did_you_mean(kind, kinds)


def read_campaign(path: Path) -> Campaign:
    """Read a campaign file; see :meth:`matcompute.campaign.model.Campaign.load`."""
    yaml_file = load_yaml(path)
    if not isinstance(yaml_file.data, dict):
        raise CampaignFileError(
            path, [yaml_file.problem((), f"expected a mapping that begins with 'schema: {SCHEMA}'")]
        )
    reader = _Reader(yaml_file)
    header = reader.header(yaml_file.data)
    structures = reader.structures(yaml_file.data)
    complete = len(reader.problems)
    stages = reader.stages(yaml_file.data)
    if len(reader.problems) == complete and stages:
        # Columns are only followed through stages that are all understood: else every later one looks unknown.
        reader.problems += column_problems(stages, yaml_file)
    if reader.problems or header is None:
        raise CampaignFileError(path, reader.problems, _HINT)
    campaign = Campaign.model_construct(
        **{name: getattr(header, name) for name in CampaignHeader.model_fields},
        structures=structures,
        stages=stages,
    )
    campaign._path = Path(path)
    campaign._file = yaml_file
    return campaign
