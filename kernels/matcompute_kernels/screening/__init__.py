"""Screening: hulls, neighbours and kernels in feature space, selection, duplicates."""
