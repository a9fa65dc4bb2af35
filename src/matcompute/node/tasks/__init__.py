"""Tasks that come with matcompute; others register in the entry-point group ``matcompute.tasks``."""
