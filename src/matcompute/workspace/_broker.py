"""The ZeroMQ broker of an embedded profile, as a child of the supervisor: ``python -m … daemon broker DIR LOG``."""

from __future__ import annotations

import sys

from matcompute.workspace.runtime import die_with_parent


def main() -> None:
    """Run AiiDA's broker service until SIGTERM."""
    die_with_parent()
    from aiida.brokers.zeromq.service import run_broker_service

    run_broker_service(service_dir=sys.argv[-2], log_file_path=sys.argv[-1])


if __name__ == "__main__":
    main()
