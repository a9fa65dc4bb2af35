"""What a dataset says about itself: root attributes, methods, sources, selections."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import numpy as np

from matcompute.dataset.errors import DatasetError
from matcompute.errors import did_you_mean

__all__ = [
    "DOMAINS",
    "GRADES",
    "NODE_CLASSES",
    "TIERS",
    "Metadata",
    "Method",
    "Selection",
    "Source",
    "highest_grade",
    "software_versions",
    "spdx",
]

#: Controlled vocabularies (design, section 6).
DOMAINS: tuple[str, ...] = (
    "advanced-steel",
    "advanced-nonferrous-metals",
    "advanced-petrochemicals",
    "advanced-inorganic-nonmetals",
    "high-performance-fibres-and-composites",
    "frontier-materials",
    "integrated-applications",
)
NODE_CLASSES: tuple[str, ...] = ("sci-tech", "industry", "computation")
#: From low to high; a merge takes the highest.
GRADES: tuple[str, ...] = ("general", "important", "core")
TIERS: tuple[str, ...] = ("public", "member-1", "member-2", "member-3")


def spdx(expression: str) -> str:
    """Return a licence as a canonical SPDX expression.

    Raises
    ------
    DatasetError
        If it is not one.
    """
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    try:
        return str(canonicalize_license_expression(expression))
    except InvalidLicenseExpression as error:
        usual = (
            "CC-BY-4.0",
            "CC-BY-SA-4.0",
            "CC0-1.0",
            "CC-BY-NC-4.0",
            "ODbL-1.0",
            "ODC-By-1.0",
            "PDDL-1.0",
            "MIT",
        )
        raise DatasetError(
            f"'{expression}' is not an SPDX licence{did_you_mean(expression, usual)}",
            hint="see the identifiers at spdx.org/licenses; LicenseRef-<name> for your own",
        ) from error


def highest_grade(grades: list[str]) -> str:
    """Return the highest of several data grades."""
    return max(grades, key=GRADES.index, default=GRADES[0])


def software_versions() -> dict[str, str]:
    """Return the versions of what writes a file."""
    import h5py

    import matcompute

    return {
        "matcompute": matcompute.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "h5py": h5py.__version__,
        "hdf5": h5py.version.hdf5_version,
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Metadata:
    """Root attributes of a dataset.

    ``domain`` and ``license`` may be empty in working shards; a release needs them (``validate --release``).

    Parameters
    ----------
    title, description
        For people.
    domain, node_class, grade, tier
        Controlled fields, see `DOMAINS`, `NODE_CLASSES`, `GRADES`, `TIERS`.
    license
        SPDX expression.
    dataset_id, dataset_version, shard
        Identity; a new UUID, ``"1"`` and ``"1/1"`` (this part of how many) by default.
    campaign, campaign_uuid
        Name and UUID of the campaign.
    created
        UTC, ISO 8601.
    contributors
        ``{"name": ..., "orcid": ..., "affiliation": ...}`` each.
    software
        Name → version.
    """

    title: str = ""
    description: str = ""
    domain: str = ""
    node_class: str = "computation"
    grade: str = "general"
    tier: str = "public"
    license: str = ""
    dataset_id: str = field(default_factory=lambda: str(uuid4()))
    dataset_version: str = "1"
    shard: str = "1/1"
    campaign: str = ""
    campaign_uuid: str = ""
    created: str = field(default_factory=_now)
    contributors: tuple[dict[str, str], ...] = ()
    software: dict[str, str] = field(default_factory=software_versions)

    def __post_init__(self) -> None:
        vocabularies = {"node_class": NODE_CLASSES, "grade": GRADES, "tier": TIERS, "domain": ("", *DOMAINS)}
        for name, known in vocabularies.items():
            value = getattr(self, name)
            if value not in known:
                options = [v for v in known if v]
                raise DatasetError(f"{name} '{value}' is not in the vocabulary{did_you_mean(value, options)}")
        if self.license:
            object.__setattr__(self, "license", spdx(self.license))
        for name in ("dataset_id", "campaign_uuid"):
            value = getattr(self, name)
            if value:
                try:
                    UUID(value)
                except ValueError as error:
                    raise DatasetError(f"{name} '{value}' is not a UUID") from error
        object.__setattr__(self, "contributors", tuple(dict(c) for c in self.contributors))

    def with_(self, **changes: Any) -> Metadata:
        """Return a copy with some fields changed."""
        return replace(self, **changes)

    @classmethod
    def names(cls) -> list[str]:
        """Return the field names."""
        return [f.name for f in fields(cls)]


@dataclass(frozen=True)
class Method:
    """How values were computed: one row of ``/methods``.

    Parameters
    ----------
    name
        Short name, such as the calculator's.
    code, code_version
        Program or library.
    model
        Functional, or the name of the machine-learned model.
    model_sha256, potential_sha256
        Digests of the model file and of the pseudopotential set (empty if there is none).
    cutoff
        Plane-wave cut-off in eV (NaN if it does not apply).
    k_density
        k-points per reciprocal atom (NaN if it does not apply).
    centre
        Compute centre.
    parameters
        Anything else that matters, JSON-able.
    """

    name: str
    code: str = ""
    code_version: str = ""
    model: str = ""
    model_sha256: str = ""
    potential_sha256: str = ""
    cutoff: float = float("nan")
    k_density: float = float("nan")
    centre: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """A file that structures came from: one row of ``/sources``."""

    path: str
    sha256: str = ""
    node_uuid: str | None = None


@dataclass(frozen=True)
class Selection:
    """Which entries passed a gate."""

    name: str
    mask: np.ndarray
    expression: str = ""
    inputs: tuple[str, ...] = ()
    #: Rows of the provenance: the processes that decided (several after a merge of datasets).
    processes: tuple[int, ...] = ()
