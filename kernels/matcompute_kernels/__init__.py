"""Numba and CUDA kernels on packed structures; knows no other part of matcompute."""
