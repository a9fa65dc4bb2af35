"""Change single values in a YAML file and leave the rest, comments too, as it stands."""

from __future__ import annotations

import yaml

from matcompute.centres.errors import CentreError
from matcompute.yamlfile import KeyPath, format_key

__all__ = ["set_value"]


def set_value(text: str, path: KeyPath, value: str | int | float) -> str:
    """Return YAML text in which one scalar has another value; a key that is missing is put in.

    Parameters
    ----------
    text
        A mapping.
    path
        Keys and indices; all but the last must be there.
    value
        The new value.

    Raises
    ------
    CentreError
        If the place is not there, or holds more than one value.
    """
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    for depth, part in enumerate(path):
        found = _child(node, part)
        if found is None:
            if depth == len(path) - 1 and isinstance(node, yaml.MappingNode) and node.value:
                return _insert(text, node, str(part), _scalar(value))
            raise CentreError(f"{format_key(path[: depth + 1])} is not in the file")
        node = found
    if not isinstance(node, yaml.ScalarNode):
        raise CentreError(f"{format_key(path)} is not a single value")
    return text[: node.start_mark.index] + _scalar(value) + text[node.end_mark.index :]


def _child(node: yaml.Node | None, part: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == part), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        child: yaml.Node = node.value[part]
        return child
    return None


def _insert(text: str, node: yaml.MappingNode, key: str, value: str) -> str:
    first = node.value[0][0].start_mark
    if node.flow_style:
        return f"{text[: first.index]}{key}: {value}, {text[first.index :]}"
    return f"{text[: first.index]}{key}: {value}\n{' ' * first.column}{text[first.index :]}"


def _scalar(value: str | int | float) -> str:
    dumped: str = yaml.safe_dump(value, default_style=None, width=10**6)
    return dumped.removesuffix("\n").removesuffix("\n...").strip()
