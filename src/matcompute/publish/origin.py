"""The programs and people that the files of a dataset name: `origin`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from matcompute.dataset import Dataset
from matcompute.publish.errors import PublishError
from matcompute.publish.facts import Contributor

__all__ = ["origin"]


def origin(shards: Sequence[Path]) -> tuple[dict[str, str], list[Contributor]]:
    """Return the software (name → version) and the contributors of some files, each once, in their order.

    Raises
    ------
    PublishError
        If a file names a contributor that has no name, or whose ORCID iD is none.
    """
    software: dict[str, str] = {}
    people: list[Contributor] = []
    for path in shards:
        with Dataset(path) as dataset:
            software.update(dataset.metadata.software)
            for number, item in enumerate(dataset.metadata.contributors, start=1):
                person = _person(path, number, item)
                if person not in people:
                    people.append(person)
    return software, people


def _person(path: Path, number: int, item: dict[str, str]) -> Contributor:
    try:
        return Contributor.model_validate({k: v for k, v in item.items() if k in Contributor.model_fields})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        who = item.get("name") or f"number {number}"
        raise PublishError(
            f"{path}: contributor {who}: {key}: {first['msg'].removeprefix('Value error, ')}",
            hint="mend it in the campaign file, or in /@contributors of the dataset, and write that again",
        ) from error
