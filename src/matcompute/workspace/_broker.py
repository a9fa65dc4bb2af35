"""The ZeroMQ broker of an embedded profile, as a child of the supervisor: ``python -m … daemon broker DIR LOG``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from matcompute.workspace.runtime import die_with_parent

#: How AiiDA names the folders of a broker's sockets.
_SOCKETS_PREFIX = "aiida_zeromq_"


def forget_damaged_sockets(file: Path) -> bool:
    """Remove a ``broker.sockets`` file that does not name a folder of sockets; return whether it did.

    AiiDA deletes, with all it holds, whatever folder this file names. A disk that was full when the file was written
    leaves it empty, and an empty name is the current folder: the workspace (seen with AiiDA 2.9).
    """
    try:
        named = Path(file.read_text(encoding="utf-8").strip())
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        named = Path()
    ours = named.is_absolute() and named.parent == Path(tempfile.gettempdir())
    if ours and named.name.startswith(_SOCKETS_PREFIX) and named.name != _SOCKETS_PREFIX:
        return False
    file.unlink(missing_ok=True)
    return True


def main() -> None:
    """Run AiiDA's broker service until SIGTERM."""
    die_with_parent()
    from aiida.brokers.zeromq.service import run_broker_service

    folder = Path(sys.argv[-2])
    forget_damaged_sockets(folder / "broker.sockets")
    run_broker_service(service_dir=folder, log_file_path=sys.argv[-1])


if __name__ == "__main__":
    main()
