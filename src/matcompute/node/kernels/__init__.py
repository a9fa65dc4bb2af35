"""Descriptors of :mod:`matcompute_kernels` as adapters, a module for each family."""
