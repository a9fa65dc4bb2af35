"""Campaign state: our own indexed tables, so that nothing depends on the size of AiiDA's graph."""

from __future__ import annotations

from matcompute.campaign.state.session import HEAD, SchemaError, State, StateError

__all__ = ["HEAD", "SchemaError", "State", "StateError"]
