"""What a kernel raises when its input cannot be described."""

from __future__ import annotations

__all__ = ["KernelInputError"]


class KernelInputError(ValueError):
    """Bad input of a kernel.

    Parameters
    ----------
    message
        What is wrong and what to do about it.
    index
        Number of the structure in the batch, or None if a parameter is wrong.

    Attributes
    ----------
    index : int or None
        Number of the structure in the batch; the text names it too.
    """

    def __init__(self, message: str, index: int | None = None) -> None:
        self.index = index
        super().__init__(message if index is None else f"structure {index}: {message}")

    def __reduce__(self) -> tuple:
        return _restore, (str(self), self.index)


def _restore(text: str, index: int | None) -> KernelInputError:
    error = KernelInputError(text)
    error.index = index
    return error
