"""Compute centres: profiles, registration with AiiDA, the doctor, routing, limits, accounting."""

from __future__ import annotations

from matcompute.centres.errors import CentreError
from matcompute.centres.local import detect, local_centre
from matcompute.centres.model import Centre
from matcompute.centres.registration import RegisteredCentre, register
from matcompute.centres.registry import centre_ids, load_centre, load_centres, registered
from matcompute.centres.request import Request, job_options

__all__ = [
    "Centre",
    "CentreError",
    "RegisteredCentre",
    "Request",
    "centre_ids",
    "detect",
    "job_options",
    "load_centre",
    "load_centres",
    "local_centre",
    "register",
    "registered",
]
