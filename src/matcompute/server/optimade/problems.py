"""What an OPTIMADE request can get wrong; each error is answered as a JSON:API error object."""

from __future__ import annotations

from matcompute.errors import MatcomputeError

__all__ = [
    "BadRequest",
    "Forbidden",
    "NotFound",
    "NotImplementedHere",
    "OptimadeProblem",
    "VersionNotSupported",
]


class OptimadeProblem(MatcomputeError):
    """A request that is answered with an error object."""

    status = 500
    title = "Internal Server Error"


class BadRequest(OptimadeProblem):
    """The request cannot be understood."""

    status = 400
    title = "Bad Request"


class Forbidden(OptimadeProblem):
    """More is asked for than the server gives."""

    status = 403
    title = "Forbidden"


class NotFound(OptimadeProblem):
    """There is no such entry, or it is not for this caller: the two look the same."""

    status = 404
    title = "Not Found"


class NotImplementedHere(OptimadeProblem):
    """An optional part of the standard that this server has not, or a comparison of two types."""

    status = 501
    title = "Not Implemented"


class VersionNotSupported(OptimadeProblem):
    """A version of the API that this server does not speak."""

    status = 553
    title = "Version Not Supported"
