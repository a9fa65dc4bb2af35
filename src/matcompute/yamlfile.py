"""YAML with line numbers: the plain values of a file, and where each key and value stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from matcompute.errors import InputError

__all__ = ["KeyPath", "LocatedYaml", "Problem", "format_key", "load_yaml", "parse_yaml"]

#: The way to a value: mapping keys and list indices.
KeyPath = tuple[str | int, ...]


def format_key(path: KeyPath) -> str:
    """Return a key path as people write it: ``stages[0].relax.fmax``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else str(part)
    return text


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong in a file.

    Parameters
    ----------
    line, column
        1-based place in the file (line 0: the whole file).
    key
        The key path, as written by :func:`format_key`.
    message
        What was found, what was expected, and the nearest valid spelling.
    """

    line: int
    column: int
    key: str
    message: str


@dataclass
class LocatedYaml:
    """The plain values of a YAML file with the place of each.

    Attributes
    ----------
    data
        Dictionaries, lists and scalars.
    places
        Key path → 1-based (line, column): of the key for a mapping member, of the value for a list item.
    problems
        Duplicate keys and keys that are no text.
    """

    path: Path
    data: Any
    places: dict[KeyPath, tuple[int, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place(self, path: KeyPath) -> tuple[int, int]:
        """Return the (line, column) of a key path, or of its nearest parent that is in the file."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return (1, 1)

    def problem(self, path: KeyPath, message: str) -> Problem:
        """Return a :class:`Problem` at a key path."""
        line, column = self.place(path)
        return Problem(line, column, format_key(path), message)


def parse_yaml(text: str, path: Path) -> LocatedYaml:
    """Read YAML text; see :class:`LocatedYaml`.

    Raises
    ------
    InputError
        If the text is not YAML; the line and column are given.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark is not None else str(path)
        what = " ".join(part for part in (error.context, error.problem) if part)
        raise InputError(
            f"{where}: not valid YAML: {what}",
            hint="indent with spaces, and quote text that holds ': ' or ' #'",
        ) from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {error}") from error
    result = LocatedYaml(path, None)
    result.places[()] = (1, 1)
    if node is not None:
        # One constructor for all scalars: YAML's own rules decide what is a number, a date, a boolean.
        result.data = _plain(node, (), result, yaml.SafeLoader(""), set())
    return result


def load_yaml(path: Path) -> LocatedYaml:
    """Read a YAML file; see :class:`LocatedYaml`.

    Raises
    ------
    InputError
        If the file is missing, unreadable, or no YAML.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_yaml(text, path)


def _plain(node: yaml.Node, path: KeyPath, out: LocatedYaml, loader: Any, open_nodes: set[int]) -> Any:
    if id(node) in open_nodes:
        out.problems.append(out.problem(path, "an alias that holds itself"))
        return None
    open_nodes = open_nodes | {id(node)}
    if isinstance(node, yaml.MappingNode):
        # `<<: *anchor` is resolved first, as in any other YAML reader; own keys win over merged ones.
        own = {id(key) for key, _ in node.value}
        explicit: set[str] = set()
        loader.flatten_mapping(node)
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line, column = key_node.start_mark.line + 1, key_node.start_mark.column + 1
            if not isinstance(key_node, yaml.ScalarNode):
                out.problems.append(Problem(line, column, format_key(path), "a key must be plain text"))
                continue
            key = str(key_node.value)
            here = (*path, key)
            if id(key_node) in own:
                if key in explicit:
                    first = out.places[here][0]
                    out.problems.append(
                        Problem(
                            line,
                            column,
                            format_key(here),
                            f"duplicate key '{key}' (first on line {first}); keep one",
                        )
                    )
                    continue
                explicit.add(key)
            out.places[here] = (line, column)
            values[key] = _plain(value_node, here, out, loader, open_nodes)
        return values
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            here = (*path, index)
            out.places[here] = (item.start_mark.line + 1, item.start_mark.column + 1)
            items.append(_plain(item, here, out, loader, open_nodes))
        return items
    try:
        return loader.construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError) as error:
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        out.problems.append(Problem(line, column, format_key(path), f"'{node.value}': {error}"))
        return None
