"""The terms under which a dataset is released: what its files say, and what the node adds or corrects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from matcompute.dataset import Dataset, Metadata
from matcompute.dataset.metadata import highest_grade
from matcompute.errors import InputError
from matcompute.publish.manifest import Manifest
from matcompute.publish.rights import Identifiers, Rights, identifiers_of, rights_of

__all__ = ["Terms", "terms_of"]


@dataclass(frozen=True)
class Terms:
    """Terms of a release; an empty field is one that a gate will complain about.

    Parameters
    ----------
    dataset_id
        UUID of the dataset.
    node
        Name of the publishing node.
    title, description, domain, node_class, grade, tier, licence
        As in `matcompute.dataset.Metadata`.
    lowest_grade
        The highest grade that one of the files bears: a release cannot go below it.
    keywords, identifiers, rights
        What the node adds.
    """

    dataset_id: str
    node: str
    title: str
    description: str
    domain: str
    node_class: str
    grade: str
    tier: str
    licence: str
    lowest_grade: str
    keywords: tuple[str, ...] = ()
    identifiers: Identifiers = field(default_factory=Identifiers)
    rights: Rights = field(default_factory=Rights)

    def following(self, previous: Manifest | None) -> Terms:
        """Return the terms of a version that follows another: its keywords and rights hold where none are given.

        Identifiers do not: a registry gives each version its own, or one for all, and only the node knows which.
        """
        if previous is None:
            return self
        before = previous.rights.model_dump()
        given = {key: value for key, value in self.rights.model_dump().items() if value}
        if "funder" in given:
            del before["funder_id"]  # it was that of another one
        return replace(self, keywords=self.keywords or previous.keywords, rights=Rights(**(before | given)))


def terms_of(
    shards: Sequence[Path],
    node: str,
    *,
    dataset_id: str | None = None,
    title: str | None = None,
    description: str | None = None,
    domain: str | None = None,
    grade: str | None = None,
    tier: str | None = None,
    licence: str | None = None,
    keywords: Sequence[str] = (),
    cstr: str | None = None,
    doi: str | None = None,
    holder: str | None = None,
    project: str | None = None,
    funder: str | None = None,
    funder_id: str | None = None,
    embargo: str | None = None,
    patents: Sequence[str] = (),
) -> Terms:
    """Return the terms that the files of a dataset bear, with what is given put in their place.

    Raises
    ------
    InputError
        If there is no file, the files belong to different datasets or disagree about a term that is not given, or
        an identifier or the embargo is not of its pattern.
    DatasetError
        If a file cannot be read, or what is given is not in a vocabulary.
    """
    identifiers = identifiers_of(cstr=cstr, doi=doi)
    rights = rights_of(
        holder=holder,
        project=project,
        funder=funder,
        funder_id=funder_id,
        embargo=embargo,
        patents=tuple(patents),
    )
    if not shards:
        raise InputError("a release needs at least one dataset file")
    found: list[Metadata] = []
    for path in shards:
        with Dataset(path) as dataset:
            found.append(dataset.metadata)
    grades = [m.grade for m in found]
    given = {
        "dataset_id": dataset_id,
        "title": title,
        "description": description,
        "domain": domain,
        "tier": tier,
        "license": licence,
        "grade": grade or highest_grade(grades),
    }
    for name in ("dataset_id", "title", "description", "domain", "tier", "license", "node_class"):
        values = {getattr(m, name) for m in found}
        if given.get(name) is None and len(values) > 1:
            raise InputError(
                f"the files disagree about {name}: {', '.join(sorted(map(repr, values)))}",
                hint="say which one holds, or merge them first with `matcompute dataset merge`",
            )
    merged = found[0].with_(**{name: value for name, value in given.items() if value is not None})
    return Terms(
        dataset_id=merged.dataset_id,
        node=node,
        title=merged.title,
        description=merged.description,
        domain=merged.domain,
        node_class=merged.node_class,
        grade=merged.grade,
        tier=merged.tier,
        licence=merged.license,
        lowest_grade=highest_grade(grades),
        keywords=tuple(dict.fromkeys(word.strip() for word in keywords if word.strip())),
        identifiers=identifiers,
        rights=rights,
    )
