"""OPTIMADE over the tables of the server."""
