"""The dispatcher: one process per workspace that moves campaigns through their stages."""
