"""What is raised when CUDA is asked for and cannot be used."""

from __future__ import annotations

__all__ = ["CudaError"]


class CudaError(RuntimeError):
    """CUDA was asked for and cannot be used, or a launch is wrong; the text says what to do."""
