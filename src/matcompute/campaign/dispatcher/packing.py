"""Slimming the AiiDA repository: loose files of finished first-principles campaigns are packed and compressed."""

from __future__ import annotations

import logging

__all__ = ["WORTHWHILE", "pack_repository"]

LOGGER = logging.getLogger(__name__)
#: Loose files below which packing is not worth the time.
WORTHWHILE = 200


def pack_repository(*, least: int = WORTHWHILE) -> int:
    """Pack the loose files of the loaded profile, compressed where that helps; return how many.

    To be called while nothing runs: a file that is opened by its path must not move meanwhile. Nothing is deleted but
    the loose copies of what was packed: AiiDA's own maintenance also removes what the database does not know, which
    could be what another process is about to store.
    """
    from aiida.manage import get_manager
    from aiida.repository.backend import DiskObjectStoreRepositoryBackend

    repository = get_manager().get_profile_storage().get_repository()
    if not isinstance(repository, DiskObjectStoreRepositoryBackend):
        return 0  # another kind of storage looks after itself
    loose = int(repository.get_info()["Objects"]["unpacked"])
    if loose < least:
        return 0
    repository.maintain(live=True, pack_loose=True, clean_storage=True, compress=True)
    LOGGER.info("%d files of the AiiDA repository are packed", loose)
    return loose
