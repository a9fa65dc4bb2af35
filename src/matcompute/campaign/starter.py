"""The file that ``campaign new`` writes: small, complete, explained line by line."""

from __future__ import annotations

import os
from pathlib import Path

from matcompute.errors import InputError

__all__ = ["write_starter"]

_TEXT = """\
# A campaign: which structures, what is computed on them, who made it, and for whom.
#   matcompute campaign check {file}    says what is wrong in this file, by line
#   matcompute campaign plan {file}     says what it would compute, and what that costs
#   matcompute campaign run {file}      runs it, in a workspace (matcompute init)
# Every key is described in docs/reference/campaign-file.md.
schema: matcompute.campaign/v1
name: {name}                             # lower-case words joined by hyphens
title: "{title}"
domain: frontier-materials               # advanced-steel, advanced-nonferrous-metals, … see `campaign schema`
classification:
  grade: general                         # general, important or core (GB/T 43697-2024)
  tier: public                           # public, member-1, member-2 or member-3
licence: CC-BY-4.0                       # SPDX identifier
contributors:
  - name: Your Name
    # orcid: 0000-0000-0000-0000

# Where structures come from. Each structure is taken once; bad ones are reported by file and line.
structures:
  - prototypes: [L1_2, B2]               # decorate prototypes with elements …
    elements: [Al, Cu, Ni]               # … symbols, or groups such as 3d and transition-metals
  # - files: structures/**/*.cif         # any file that ASE or pymatgen reads
  # - dataset: earlier.h5                # the result of an earlier campaign …
  #   selection: hull                    # … or what passed one of its gates

# Tasks run on every structure that is left; gates (hull, filter, top) choose which go on.
stages:
  - relax:
      calculator: emt                    # emt: seven fcc metals, for trying out; chgnet: 89 elements
      cell: true
      fmax: 0.02 eV/angstrom             # a number alone is in the unit of the reference page
  - hull:
      max: 0.1 eV/atom                   # elemental ground states are added and computed where they lack
  - eos:
      calculator: emt
  - filter: bulk_modulus >= 50 GPa
  - top:
      n: 5
      by: bulk_modulus
      order: descending

# centres: [local]                       # else every centre that may hold the data and suits the stage
budget:
  core_hours: 1
"""


def write_starter(name: str, path: Path, *, overwrite: bool = False) -> Path:
    """Write a commented campaign file that passes ``campaign check`` as it is.

    Parameters
    ----------
    name
        Name of the campaign.
    path
        The file.
    overwrite
        Replace an existing file.

    Raises
    ------
    InputError
        If the name has the wrong form or the file exists.
    """
    import re

    if re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) is None or len(name) > 63:
        near = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63]
        raise InputError(
            f"'{name}' cannot name a campaign: lower-case letters, digits and single hyphens are allowed",
            hint=f"for example '{near}'" if near else None,
        )
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists", hint="choose another file with --output, or pass --force")
    text = _TEXT.format(name=name, file=path.name, title=name.replace("-", " ").capitalize())
    try:
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
    return path
