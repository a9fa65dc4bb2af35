"""The OPTIMADE door over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from optimade.validator import ImplementationValidator

from .conftest import IDS, Served


def test_the_validator_of_the_consortium_passes(
    release: Any, node: Any, serve: Callable[..., Served]
) -> None:
    release(IDS[0], 20)
    release(IDS[1], 15)
    served = serve(node)
    for base in ("/optimade/v1", "/optimade"):
        validator = ImplementationValidator(
            base_url=served.url + base, run_optional_tests=True, page_limit=5, verbosity=-1, respond_json=True
        )
        validator.validate_implementation()
        results = validator.results
        assert not results.failure_messages
        assert not results.optional_failure_messages
        assert not results.internal_failure_messages
        assert validator.valid
        assert results.success_count > 40
        assert results.optional_success_count > 0
