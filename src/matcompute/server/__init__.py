"""The node's server: pull protocol, OPTIMADE, OAI-PMH and pages over one index of what was released."""
