"""What a campaign gives to a release: its dataset, and the AiiDA archive of all that made it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from matcompute.campaign.state import State
from matcompute.campaign.state.campaigns import find
from matcompute.errors import MatcomputeError

if TYPE_CHECKING:
    from matcompute.workspace import Workspace

__all__ = ["CampaignData", "campaign_data", "export_archive", "exported"]


@dataclass(frozen=True)
class CampaignData:
    """The result of a finished campaign.

    Parameters
    ----------
    name
        Name of the campaign.
    dataset
        The file in the workspace.
    node
        UUID of the AiiDA node with the same content.
    """

    name: str
    dataset: Path
    node: str


def campaign_data(workspace: Workspace, name: str) -> CampaignData:
    """Return the dataset of a finished campaign.

    Raises
    ------
    InputError
        If there is no such campaign.
    MatcomputeError
        If it is not finished, or its dataset file is gone.
    """
    with State(workspace.state_path) as state, state.read() as connection:
        row = find(connection, name)
    if row.state != "finished" or not row.dataset or not row.dataset_uuid:
        raise MatcomputeError(
            f"campaign '{row.name}' is {row.state}: it has no dataset yet",
            hint=f"see `matcompute campaign status {row.name}`",
        )
    # The workspace may have been moved since: the file lies where this workspace keeps its datasets.
    path = workspace.datasets_dir / Path(row.dataset).name
    if not path.is_file():
        raise MatcomputeError(
            f"{path}, the dataset of campaign '{row.name}', is gone",
            hint=f"its content is in the AiiDA node {row.dataset_uuid}",
        )
    return CampaignData(row.name, path, row.dataset_uuid)


def export_archive(workspace: Workspace, data: CampaignData, out: Path) -> Path:
    """Write the AiiDA archive of a campaign: the node of its dataset and all from which it was made, to the sources.

    Passwords, addresses of hosts' accounts (AiiDA's *authinfos*) and checkpoints of processes stay out.

    Parameters
    ----------
    workspace
        The workspace of the campaign.
    data
        What `campaign_data` returned.
    out
        The file to write; it appears when complete.

    Raises
    ------
    MatcomputeError
        If the node is gone, the dataset file is not its content any more, or AiiDA refuses the export.
    """
    workspace.load_profile()
    from aiida.common.exceptions import AiidaException, NotExistent
    from aiida.common.log import AIIDA_LOGGER
    from aiida.orm import load_node
    from aiida.tools.archive import create_archive

    from matcompute.publish.canonical import sha256_file  # of another extra

    try:
        node = load_node(uuid=data.node)
    except NotExistent as error:
        raise MatcomputeError(
            f"the AiiDA node {data.node} of campaign '{data.name}' is gone",
            hint="give the dataset by its path, and an archive with --archive",
        ) from error
    if sha256_file(data.dataset) != node.sha256:
        raise MatcomputeError(
            f"{data.dataset} was changed after campaign '{data.name}' wrote it: the archive would be of other data",
            hint="put the content of the AiiDA node back, or give the file by its path, without --campaign",
        )
    level = AIIDA_LOGGER.level
    AIIDA_LOGGER.setLevel("WARNING")  # the export reports each step on the terminal
    try:
        create_archive(
            [node],
            filename=out,
            overwrite=True,
            include_authinfos=False,
            strip_checkpoints=True,
            # Backward only: what other campaigns made from the same structures is not part of this one.
            create_backward=True,
            return_backward=True,
            input_calc_forward=False,
            input_work_forward=False,
            call_calc_backward=True,
            call_work_backward=True,
        )
    except AiidaException as error:
        raise MatcomputeError(f"AiiDA cannot export campaign '{data.name}': {error}") from error
    finally:
        AIIDA_LOGGER.setLevel(level)
    return out


@contextlib.contextmanager
def exported(workspace: Workspace, name: str, out: Path) -> Iterator[tuple[Path, Path]]:
    """Give the dataset of a campaign and a temporary archive of it, ``<name>.aiida``, for a release in folder ``out``.

    What an earlier call that was killed has left is removed.

    Yields
    ------
    tuple of Path
        The dataset and the archive.
    """
    data = campaign_data(workspace, name)
    folder = out.with_name(f".{out.name}.archive")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield data.dataset, export_archive(workspace, data, folder / f"{data.name}.aiida")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
