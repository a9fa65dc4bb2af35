"""Compute centres: what each one offers, and how it is made known to AiiDA.

This release knows the local centre: the machine on which the workspace is.
"""

from __future__ import annotations

from matcompute.centres.errors import CentreError
from matcompute.centres.local import detect, local_centre
from matcompute.centres.model import Centre
from matcompute.centres.registration import RegisteredCentre, register

__all__ = ["Centre", "CentreError", "RegisteredCentre", "detect", "local_centre", "register"]
