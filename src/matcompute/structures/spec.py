"""Items of a campaign's ``structures:`` list: which source, with which parameters, from which line."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from matcompute import plugins
from matcompute.errors import InputError, did_you_mean
from matcompute.structures.base import SourceBlock, SourceContext, SourceFile, SourceTable

if TYPE_CHECKING:
    from matcompute.structures.base import StructureSource

__all__ = ["GROUP", "StructuresSpec", "iter_structures", "source", "source_files", "source_name"]

GROUP = "matcompute.structure_sources"


def source(kind: str) -> StructureSource:
    """Return the source adapter registered under a key (an instance, whether a class or an object was given)."""
    adapter: Any = plugins.load(GROUP, kind)
    if inspect.isclass(adapter):
        adapter = adapter()
    return cast("StructureSource", adapter)


class StructuresSpec(BaseModel):
    """One item of ``structures:``.

    Accepts the compact form of a campaign file (``{files: "*.cif", limit: 10}``) or the expanded form that
    :meth:`model_dump` gives.

    Attributes
    ----------
    kind
        Entry-point name of the source.
    parameters
        The source's own parameters (JSON values), its kind's key among them.
    line
        1-based line of the item in the campaign file (1 if unknown).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    parameters: dict[str, Any]
    line: int = Field(default=1, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _compact(cls, value: Any) -> Any:
        if not isinstance(value, dict) or {"kind", "parameters"} <= set(value):
            return value
        item = dict(value)
        line = item.pop("line", 1)
        return {"kind": cls.kind_of(item), "parameters": item, "line": line}

    @model_validator(mode="after")
    def _check(self) -> StructuresSpec:
        # Normal form: what was not set stays out, so that a stored spec reads like the campaign file.
        parameters = source(self.kind).Parameters.model_validate(self.parameters)
        object.__setattr__(self, "parameters", parameters.model_dump(mode="json", exclude_unset=True))
        return self

    @staticmethod
    def kind_of(item: dict[str, Any]) -> str:
        """Return the source that an item asks for: the one of its keys that names a source.

        Raises
        ------
        ValueError
            If none or more than one does.
        """
        known = plugins.names(GROUP)
        kinds = [key for key in item if key in known]
        if len(kinds) == 1:
            return kinds[0]
        if kinds:
            raise ValueError(f"one source an item, found {', '.join(kinds)}; make them separate items")
        hints = [did_you_mean(str(key), known) for key in item]
        near = next((hint for hint in hints if "did you mean" in hint), f"; known: {', '.join(known)}")
        raise ValueError(f"expected one source key{near}")

    @property
    def model(self) -> Any:
        """The parameters as the source's own pydantic model."""
        return source(self.kind).Parameters.model_validate(self.parameters)

    @property
    def label(self) -> str:
        """The item's label, or its kind."""
        return self.parameters.get("label") or self.kind

    def files(self, base_dir: Path) -> list[Path]:
        """Return the files that this item reads, sorted."""
        try:
            return source(self.kind).files(self.model, Path(base_dir))
        except InputError as error:
            raise InputError(f"line {self.line}: {error.message}", hint=error.hint) from error

    def count(self, base_dir: Path) -> int | None:
        """Return the number of structures if it is known without reading them."""
        limit = self.parameters.get("limit")
        count = source(self.kind).count(self.model, Path(base_dir))
        if count is None:
            return None
        return count if limit is None else min(count, limit)


def source_name(path: Path, base_dir: Path) -> str:
    """Return the name under which a file is shown and stored: relative to the campaign file if it is below it."""
    path, base_dir = Path(path).absolute(), Path(base_dir).absolute()
    return path.relative_to(base_dir).as_posix() if path.is_relative_to(base_dir) else path.as_posix()


def source_files(specs: Sequence[StructuresSpec], base_dir: Path) -> list[list[Path]]:
    """Return the files of each item, in the order in which they are read (empty lists for generated structures)."""
    return [spec.files(base_dir) for spec in specs]


@dataclass
class _Limited:
    left: int | None

    def cut(self, block: SourceBlock) -> SourceBlock:
        if self.left is None or len(block) <= self.left:
            if self.left is not None:
                self.left -= len(block)
            return block
        short = block[np.arange(self.left)]
        short.rejects = block.rejects
        self.left = 0
        return short


def iter_structures(
    specs: Sequence[StructuresSpec],
    base_dir: Path,
    *,
    campaign_file: Path | None = None,
    table: SourceTable | None = None,
    files: Sequence[Sequence[SourceFile]] | None = None,
    block_size: int = 4096,
) -> Iterator[SourceBlock]:
    """Stream the structures of all items, in order, packed.

    Parameters
    ----------
    specs
        Items of the campaign file.
    base_dir
        Folder that relative paths start from.
    campaign_file
        Named as the source of generated structures.
    table
        Filled with the source files; ``SourceBlock.source_index`` are rows of it.
    files
        The files of each item if they were collected before (see :func:`source_files`), under the names to show.
    block_size
        Structures a block (an upper bound).

    Raises
    ------
    InputError
        If a file of an item is missing. What cannot be read inside a file is a reject of its block instead.
    """
    base_dir = Path(base_dir)
    table = SourceTable() if table is None else table
    path = Path(campaign_file) if campaign_file is not None else base_dir / "campaign.yaml"
    own = SourceFile(path.name, path)
    for index, spec in enumerate(specs):
        context = SourceContext(
            base_dir=base_dir,
            campaign_file=own,
            line=spec.line,
            table=table,
            files=None if files is None or not files[index] else files[index],
            block_size=block_size,
        )
        limited = _Limited(spec.parameters.get("limit"))
        try:
            for block in source(spec.kind).blocks(spec.model, context):
                yield limited.cut(block)
                if limited.left == 0:
                    break
        except ValidationError as error:  # a spec that was built by hand around the validators
            raise InputError(f"{path.name}:{spec.line}: {error}") from error
