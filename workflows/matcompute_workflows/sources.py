"""Source files of a campaign as nodes: packed before the ingest, unpacked inside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aiida.orm import FolderData

if TYPE_CHECKING:
    from matcompute.structures import StructuresSpec
    from matcompute.structures.base import SourceFile

__all__ = ["NAMES", "source_nodes", "unpack_sources"]

#: Attribute of a sources node: the names that datasets show, in the order of the objects ``0000-…``, ``0001-…``.
NAMES = "source_names"


def source_nodes(specs: Sequence[StructuresSpec], base_dir: Path) -> dict[str, FolderData]:
    """Return the files of each item of ``structures:`` as a node, under ``source_<i>``; items without files have none.

    Parameters
    ----------
    specs
        Items of the campaign file.
    base_dir
        Folder of the campaign file.
    """
    from matcompute.structures.spec import source_files, source_name

    nodes = {}
    for index, files in enumerate(source_files(specs, base_dir)):
        if not files:
            continue
        node = FolderData()
        for number, file in enumerate(files):
            node.base.repository.put_object_from_file(str(Path(file).resolve()), _object(number, Path(file)))
        node.base.attributes.set(NAMES, [source_name(Path(file), base_dir) for file in files])
        nodes[f"source_{index}"] = node
    return nodes


def _object(number: int, file: Path) -> str:
    # The suffix tells readers the format; the number keeps two files of one name apart.
    return f"{number:04d}-{file.name}"


def unpack_sources(sources: Mapping[str, FolderData], count: int, folder: Path) -> list[list[SourceFile]]:
    """Write the files of the nodes into a folder; return for each of ``count`` items its files and their names."""
    from matcompute.structures.base import SourceFile

    unpacked: list[list[SourceFile]] = [[] for _ in range(count)]
    for key, node in sources.items():
        index = int(key.removeprefix("source_"))
        target = folder / str(index)
        target.mkdir(parents=True)
        node.base.repository.copy_tree(target)
        objects = sorted(node.base.repository.list_object_names())
        names = node.base.attributes.get(NAMES)
        unpacked[index] = [SourceFile(name, target / obj) for name, obj in zip(names, objects, strict=True)]
    return unpacked
