"""Process environment: everything that a library would cache in the user's home goes into the workspace."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["environment", "prepare_environment"]


def environment(root: Path) -> dict[str, str]:
    """Return the variables that keep AiiDA, Numba and Matplotlib inside a workspace.

    Parameters
    ----------
    root
        The workspace folder.
    """
    root = Path(root).resolve()
    variables = {
        "AIIDA_PATH": str(root / "aiida"),
        "MPLCONFIGDIR": str(root / "cache" / "matplotlib"),
        "XDG_CACHE_HOME": str(root / "cache" / "xdg"),
        "XDG_CONFIG_HOME": str(root / "cache" / "config"),
        # aiida's dependencies include Matplotlib; a headless node must not look for a display.
        "MPLBACKEND": "agg",
    }
    # Compiling our kernels takes ten seconds: Numba's own place, beside the modules, serves all workspaces. Where that
    # is not writable Numba would turn to the user's home.
    if not os.access(Path(__file__).parent, os.W_OK):
        variables["NUMBA_CACHE_DIR"] = str(root / "cache" / "numba")
    return variables


def prepare_environment(root: Path, *, aiida: bool = True) -> None:
    """Set the variables of :func:`environment` in this process.

    ``AIIDA_PATH`` is always replaced (a campaign must never write into another AiiDA configuration)
    unless ``aiida`` is false (an existing profile was chosen by the user); the others keep what the user has set.
    """
    for name, value in environment(root).items():
        if name == "AIIDA_PATH":
            if aiida:
                os.environ[name] = value
        else:
            os.environ.setdefault(name, value)
