"""Mapping tables: YAML files of this package, or a node's own in their place."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from matcompute.errors import InputError, did_you_mean
from matcompute.publish.errors import PublishError
from matcompute.yamlfile import load_yaml

__all__ = ["SCHEMA", "MappingError", "Table", "load_table", "table_names"]

SCHEMA = "matcompute.mapping/v1"
_REQUIRED = ("schema", "name", "version", "standard", "document")
_KNOWN = {*_REQUIRED, "settings", "note"}


class MappingError(InputError, PublishError):
    """A mapping table is missing, malformed, or does not fit the facts."""


@dataclass(frozen=True)
class Table:
    """One mapping table.

    Parameters
    ----------
    name, version, standard
        Name of the table, its own version, and the standard with its version.
    document
        The template (JSON-e).
    settings
        Constants of the table, ``settings`` inside the template.
    path
        Where it was read.
    """

    name: str
    version: str
    standard: str
    document: Any
    path: Path
    settings: dict[str, Any] = field(default_factory=dict)


def _packaged() -> Path:
    return Path(str(files("matcompute.publish.mappings").joinpath("data")))


def table_names(tables_dir: Path | None = None) -> list[str]:
    """Return the names of all tables: the package's and those of a node's folder."""
    folders = [_packaged(), *([Path(tables_dir)] if tables_dir is not None else [])]
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


def load_table(name: str, tables_dir: Path | None = None) -> Table:
    """Read a table; ``<tables_dir>/<name>.yaml`` replaces the package's.

    Raises
    ------
    MappingError
        If there is no such table, or it is not one; file, line and key are named.
    """
    known = table_names(tables_dir)
    if name not in known:
        raise MappingError(f"no mapping table '{name}'{did_you_mean(name, known)}")
    path = _packaged() / f"{name}.yaml"
    if tables_dir is not None and (own := Path(tables_dir) / f"{name}.yaml").is_file():
        path = own
    state = path.stat()
    return _read(path, name, (state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=64)  # a release needs seven tables, and reading YAML is most of its time if it is small
def _read(path: Path, name: str, _stamp: tuple[int, int]) -> Table:
    located = load_yaml(path)
    data = located.data
    if located.problems:
        first = located.problems[0]
        raise MappingError(f"{path}:{first.line}: {first.message}")
    if not isinstance(data, dict):
        raise MappingError(f"{path}: a mapping table is a YAML mapping")
    missing = [key for key in _REQUIRED if key not in data]
    if missing:
        raise MappingError(
            f"{path}: key '{missing[0]}' is missing", hint=f"keys: {', '.join(sorted(_KNOWN))}"
        )
    for key in data:
        if key not in _KNOWN:
            line, _ = located.place((key,))
            raise MappingError(f"{path}:{line}: unknown key '{key}'{did_you_mean(key, _KNOWN)}")
    if data["schema"] != SCHEMA:
        line, _ = located.place(("schema",))
        raise MappingError(f"{path}:{line}: schema '{data['schema']}' is not {SCHEMA}")
    if data["name"] != name:
        line, _ = located.place(("name",))
        raise MappingError(f"{path}:{line}: name '{data['name']}', but the file is called {name}.yaml")
    return Table(
        name=name,
        version=str(data["version"]),
        standard=str(data["standard"]),
        document=data["document"],
        settings=data.get("settings") or {},
        path=path,
    )
