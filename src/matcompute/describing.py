"""``matcompute describe``: a descriptor of the structures of any file, with no campaign."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matcompute.errors import InputError, MatcomputeError

if TYPE_CHECKING:
    from matcompute.dataset import Dataset
    from matcompute.structures.base import Reject

__all__ = ["Description", "describe_files", "prepare_dataset", "split_arguments"]

#: Structures of a chunk: small enough for a checkpoint every few seconds.
_CHUNK = 256


@dataclass
class Description:
    """What was described.

    Parameters
    ----------
    path
        The dataset.
    report
        What :func:`matcompute.node.describe.describe_dataset` says.
    rejects
        What could not be read, in place of a structure.
    """

    path: Path
    report: dict[str, Any]
    rejects: list[Reject] = field(default_factory=list)


def split_arguments(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Return which arguments are files and which are settings (they have ``=`` and no file has that name)."""
    files: list[str] = []
    settings: list[str] = []
    for argument in arguments:
        is_setting = "=" in argument and not Path(argument).exists()
        (settings if is_setting else files).append(argument)
    return [Path(file) for file in files], settings


def describe_files(
    files: Sequence[Path],
    descriptor: str,
    settings: Sequence[str] = (),
    *,
    output: Path | None = None,
    in_place: bool = False,
    name: str | None = None,
    driver: str | None = None,
    processes: int | None = None,
    chunk: int = _CHUNK,
    overwrite: bool = False,
    cluster: Any = None,
) -> Description | None:
    """Describe the structures of files and store the rows in a dataset.

    Parameters
    ----------
    files
        One dataset v1, or any number of files that ASE or pymatgen reads.
    descriptor
        Name of the descriptor, such as ``soap``.
    settings
        Its parameters as text, see :func:`matcompute.node.settings.parse_settings`.
    output
        The dataset to write. One that holds these very structures gains the descriptor (so a call that was killed
        continues); by default ``<first file>.h5`` in this folder, ``<first file>-described.h5`` for a dataset.
    in_place
        Add to the dataset that is read.
    name
        Name of the descriptor in the file; by default the descriptor's.
    driver
        ``serial``, ``threads``, ``mpi`` or ``dask``.
    processes
        Threads, MPI ranks or Dask workers; by default one for each core.
    chunk
        Structures of a chunk.
    overwrite
        Replace a descriptor of this name, or an output file with other structures.
    cluster
        For ``dask``: a client, cluster or scheduler whose workers see the same files; by default one is started here.

    Returns
    -------
    Description or None
        None on the ranks of an MPI job other than 0.

    Raises
    ------
    InputError
        If a file is missing, a parameter is wrong or the combination of options is impossible.
    """
    from matcompute.node.errors import TaskFileError

    try:
        return _describe(
            files,
            descriptor,
            settings,
            output,
            in_place,
            driver,
            processes,
            {"name": name, "size": chunk, "overwrite": overwrite}
            | ({} if cluster is None else {"cluster": cluster}),
        )
    except TaskFileError as error:  # its exit status is the node program's
        raise InputError(error.message, hint=error.hint) from error


def _describe(
    files: Sequence[Path],
    descriptor: str,
    settings: Sequence[str],
    output: Path | None,
    in_place: bool,
    driver: str | None,
    processes: int | None,
    options: dict[str, Any],
) -> Description | None:
    from matcompute.node.deadline import StopRequest
    from matcompute.node.describe import describe_dataset
    from matcompute.node.mpi import launched_ranks, launcher_rank
    from matcompute.node.settings import check_settings, find_descriptor, parse_settings
    from matcompute.progressbar import progress_bar

    adapter = find_descriptor(descriptor)
    parameters = parse_settings(settings)
    check_settings(adapter, parameters)  # before anything is read
    ranks = launched_ranks()
    rejects: list[Reject] = []
    with _rank_zero_first(ranks > 1):
        if launcher_rank() == 0:
            with progress_bar("reading") as progress:
                path, rejects = prepare_dataset(
                    files, output, in_place=in_place, overwrite=options["overwrite"], progress=progress
                )
        else:
            path = _target(files, output, in_place)
    request = StopRequest()
    request.install()
    if driver == "mpi" and ranks < 2:
        report = _over_ranks(path, descriptor, settings, processes, options)
    else:
        if processes is not None and ranks < 2:
            options["workers" if driver == "dask" else "threads"] = processes
            driver = "threads" if driver is None else driver
        if driver == "serial":
            options.pop("threads", None)
        with progress_bar(options["name"] or descriptor, quiet=launcher_rank() != 0) as progress:
            found = describe_dataset(
                path,
                descriptor,
                parameters,
                driver=driver,
                progress=progress,
                stop=lambda: request.reason,
                **options,
            )
        if found is None:
            return None
        report = found
    return Description(path, report, rejects)


def prepare_dataset(
    files: Sequence[Path],
    output: Path | None = None,
    *,
    in_place: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Path, list[Reject]]:
    """Return the dataset that holds the structures of files, written now unless it is there.

    All structures are kept, equal ones and those that no kernel will take as well: what becomes of each is told by
    the descriptor's status.

    Raises
    ------
    InputError
        If a file is missing or unreadable, or the output holds other structures.
    """
    from matcompute.structures.base import SourceContext, SourceFile, SourceTable

    for file in files:
        if not file.exists():
            raise InputError(f"{file}: no such file")
    if not files:
        raise InputError("no file is given", hint="matcompute describe FILE --soap r_cut=5,n_max=8,l_max=6")
    path = _target(files, output, in_place)
    if _is_hdf5(files[0]):
        if path != files[0]:
            _copy(files[0], path, overwrite)
        return path, []
    from matcompute.dataset import DatasetWriter, Metadata, Source
    from matcompute.structures.files import FilesParameters, FilesSource

    table = SourceTable()
    sources = [SourceFile(file.name, file.absolute()) for file in files]
    rows = [table.add(source) for source in sources]
    digests = [(source.name, table.sha256(row)) for source, row in zip(sources, rows)]
    if path.exists() and _sources_of(path) == digests:
        return path, []
    if path.exists() and not overwrite:
        raise InputError(
            f"{path} exists and holds other structures",
            hint="name another file by --output, or --overwrite it",
        )
    context = SourceContext(Path(), SourceFile("", Path()), 1, table, sources)
    rejects: list[Reject] = []
    used: dict[bytes, int] = {}
    with DatasetWriter(
        path, Metadata(title=", ".join(file.name for file in files)), overwrite=True
    ) as writer:
        for name, digest in digests:
            writer.add_source(Source(name, digest))
        for block in FilesSource().blocks(FilesParameters(files=[str(file) for file in files]), context):
            rejects += block.rejects
            if len(block):
                _append(writer, block, used)
            if progress is not None:
                progress(len(writer) + len(rejects), 0)
        if not len(writer):
            reasons = "; ".join(f"{r.source}:{r.line}: {r.reason}" for r in rejects[:3])
            raise InputError(f"no structure could be read{': ' + reasons if reasons else ''}")
    return path, rejects


def _append(writer: Any, block: Any, used: dict[bytes, int]) -> None:
    """Add structures under ids of their own: a second one of the same structure gets ``-2``."""
    import numpy as np

    from matcompute_kernels import entry_ids, structure_hash

    hashes = structure_hash(block.batch)
    ids = []
    for raw in entry_ids(block.batch, hashes).tolist():
        key = raw if isinstance(raw, bytes) else str(raw).encode()
        used[key] = used.get(key, 0) + 1
        ids.append(key if used[key] == 1 else key + f"-{used[key]}".encode())
    writer.append(
        block.batch,
        ids=np.array(ids),
        structure_hash=hashes,
        entry={
            "source_index": block.source_index,
            "source_line": np.asarray(block.source_line, dtype="i8"),
            "label": list(block.label),
        },
    )


def _target(files: Sequence[Path], output: Path | None, in_place: bool) -> Path:
    """Return the dataset that a call writes to."""
    hdf5 = [file for file in files if _is_hdf5(file)]
    if hdf5 and len(files) > 1:
        raise InputError(
            f"{hdf5[0]} is a dataset: describe one at a time, and apart from structure files",
            hint="`matcompute dataset merge` joins datasets",
        )
    if in_place and not hdf5:
        raise InputError("--in-place is for datasets", hint="structure files give a new file: see --output")
    if in_place and output is not None:
        raise InputError("give --in-place or --output, not both")
    if in_place:
        return files[0]
    if output is not None:
        if hdf5 and output.absolute() == files[0].absolute():
            raise InputError(f"{output} is the file that is read", hint="to add to it, give --in-place")
        return output
    if len(files) > 1:
        raise InputError("several files go into one dataset", hint="name it by --output")
    stem = files[0].name if not files[0].suffix else files[0].name.split(".")[0] or files[0].stem
    return Path(f"{stem}-described.h5" if hdf5 else f"{stem}.h5")


def _is_hdf5(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(8) == b"\x89HDF\r\n\x1a\n"
    except OSError:
        return False


def _copy(file: Path, path: Path, overwrite: bool) -> None:
    from matcompute.dataset import Dataset

    with Dataset(file) as old:  # whether it is one
        if path.exists() and _same_entries(old, path):
            return
    if path.exists() and not overwrite:
        raise InputError(
            f"{path} exists and holds other structures",
            hint="name another file by --output, or --overwrite it",
        )
    temporary = path.with_name(f".{path.name}.copying")
    try:
        shutil.copyfile(file, temporary)
        temporary.replace(path)
    except OSError as error:
        raise MatcomputeError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _same_entries(old: Dataset, path: Path) -> bool:
    from matcompute.dataset import Dataset, DatasetError

    try:
        with Dataset(path) as new:
            if len(old) != len(new):
                return False
            columns = ("id", "structure_hash")
            return all((old.entry_column(name) == new.entry_column(name)).all() for name in columns)
    except DatasetError:
        return False


def _sources_of(path: Path) -> list[tuple[str, str]] | None:
    from matcompute.dataset import Dataset, DatasetError

    try:
        with Dataset(path) as dataset:
            return [(source.path, source.sha256) for source in dataset.sources]
    except DatasetError:
        return None


@contextmanager
def _rank_zero_first(parallel: bool) -> Iterator[None]:
    """Let the ranks of an MPI job go on when rank 0 has left the block; its error ends all of them."""
    if not parallel:
        yield
        return
    from matcompute.node.errors import UnavailableError
    from matcompute.node.mpi import launcher_rank

    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise UnavailableError(f"started by an MPI launcher, but mpi4py cannot be loaded: {error}") from error
    if launcher_rank() != 0:
        yield
        code = MPI.COMM_WORLD.bcast(None, root=0)
        if code:
            sys.exit(code)
        return
    code = 1
    try:
        yield
        code = 0
    except MatcomputeError as error:
        code = error.exit_code
        raise
    finally:
        MPI.COMM_WORLD.bcast(code, root=0)


def _over_ranks(
    path: Path, descriptor: str, settings: Sequence[str], processes: int | None, options: dict[str, Any]
) -> dict[str, Any]:
    """Run ``matcompute-node describe`` on so many ranks and show how far its chunks are."""
    import json

    from matcompute.dataset import Dataset
    from matcompute.node.describe import chunk_folder
    from matcompute.node.errors import NodeError, UnavailableError
    from matcompute.progressbar import progress_bar
    from matcompute_kernels.drivers import AppendSink
    from matcompute_kernels.drivers.job import usable_cores

    beside = Path(sys.executable).with_name("mpiexec")
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None:
        raise UnavailableError("there is no mpiexec", hint="pip install mpi4py mpich, or --driver threads")
    name = options["name"] or descriptor
    command = [mpiexec, "-n", str(processes or usable_cores()), sys.executable, "-c"]
    command += ["from matcompute.node.cli import main; main()", "describe", str(path)]
    command += ["--kernel", descriptor, "--name", name, "--driver", "mpi", "--chunk", str(options["size"])]
    command += [f"--set={text}" for text in settings]
    command += ["--overwrite"] if options["overwrite"] else []
    with Dataset(path) as dataset:
        total = len(dataset)
    with (
        progress_bar(name) as progress,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
    ):
        while True:
            try:
                out, err = process.communicate(timeout=0.5)
                break
            except subprocess.TimeoutExpired:
                folder = chunk_folder(path, name)
                if folder.exists():
                    records = AppendSink(folder).records().values()
                    progress(sum(record.stop - record.start for record in records), total)
            except BaseException:
                process.terminate()
                raise
    if process.returncode == 0:
        report: dict[str, Any] = json.loads(out)
        return report
    lines = [line for line in err.splitlines() if line.strip()]
    text = next((line.partition(": ")[2] for line in lines if line.startswith(("error: ", "stopped: "))), "")
    failure = NodeError(
        text or "\n".join(lines[-8:]) or f"mpiexec ended with status {process.returncode}",
        hint="what is done stays done: run the same command again",
    )
    failure.exit_code = process.returncode if 0 < process.returncode < 126 else 1
    raise failure
