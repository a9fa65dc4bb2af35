"""First-principles stages: one work chain per structure through the AiiDA plugin of the code.

A calculator of this kind is an entry point of ``matcompute.calculators`` like any other; it differs by
``per_structure = True`` and by what it gives: builders, outcomes and columns instead of an ASE calculator. Nothing here
imports AiiDA before a builder is wanted, so campaign files are checked without a profile.
"""

from __future__ import annotations

from matcompute_workflows.dft.adapter import Outcome, Prepared, StructureCalculator
from matcompute_workflows.dft.tasks import StructureTask

__all__ = ["Outcome", "Prepared", "StructureCalculator", "StructureTask"]
