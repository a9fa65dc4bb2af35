"""Descriptors: one module per noun, each a Numba kernel and its public wrapper."""
