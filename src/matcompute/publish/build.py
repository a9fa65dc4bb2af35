"""Make the folder of a release out of dataset files: `build`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from matcompute.publish.blobs import copy, rename_folder, sync_tree
from matcompute.publish.canonical import sha256_file
from matcompute.publish.errors import PublishError
from matcompute.publish.facts import FileFact, NodeFact, ReleaseFacts, SoftwareFact
from matcompute.publish.gates import structures_digest
from matcompute.publish.manifest import MANIFEST, Counts, File, Manifest, Previous
from matcompute.publish.mappings import render
from matcompute.publish.optimade import write_optimade
from matcompute.publish.origin import origin
from matcompute.publish.parquet import write_summary_table
from matcompute.publish.summary import summarize_release
from matcompute.publish.terms import Terms
from matcompute.times import utc_now

__all__ = ["DOCUMENTS", "build", "shards_of"]

#: Mapping table → file of the release.
DOCUMENTS = {
    "croissant": "croissant.json",
    "cstm": "cstm.json",
    "datacite": "datacite.json",
    "ro-crate": "ro-crate-metadata.json",
    "schema-org": "schema-org.json",
}
#: The crate of the processes is in a folder of its own, with the archive: it follows other rules than the release's.
_PROCESSES = ("process-run", "provenance/ro-crate-metadata.json")
_TABLE, _STRUCTURES = "summary.parquet", "optimade.jsonl.gz"


def build(
    shards: Sequence[Path],
    terms: Terms,
    out: Path,
    *,
    previous: Manifest | None = None,
    archive: Path | None = None,
    tables_dir: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Manifest:
    """Make the folder of a release: data, table, documents and the manifest; nothing is signed yet.

    Memory is bounded by a block of rows and 32 bytes for each entry. The folder appears when it is complete.

    Parameters
    ----------
    shards
        Files of the dataset, in their order.
    terms
        Terms of the release; all must be there (`matcompute.publish.gates` says what is missing).
    out
        Folder to make.
    previous
        Manifest of the version before; None for the first.
    archive
        AiiDA archive (``verdi archive create``) of the processes that made the data; goes into ``provenance/``.
    tables_dir
        A node's own mapping tables.
    progress
        Called with (what is done, bytes or entries done, in all).

    Raises
    ------
    PublishError
        If the folder exists, two files have one name, a term is missing, the archive is none, or the version before
        is one of another dataset.
    """
    terms = terms.following(previous)
    if out.exists():
        raise PublishError(f"{out} exists", hint="name another folder, or remove this one")
    names = [path.name for path in shards]
    if len(set(names)) != len(names):
        raise PublishError("two of the files have the same name", hint="give each shard a name of its own")
    if previous is not None and previous.dataset_id != terms.dataset_id:
        raise PublishError(
            f"version {previous.version} is one of {previous.dataset_id}, not {terms.dataset_id}"
        )
    if archive is not None:
        _require_archive(archive)
    for name in ("title", "domain", "licence", "node"):
        if not getattr(terms, name):
            raise PublishError(
                f"there is no {name}", hint=f"give it with --{name}, or write it into the dataset"
            )
    origin(shards)  # who has a malformed ORCID iD is told before anything is copied
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        manifest = _fill(
            list(shards), terms, partial, previous, archive, tables_dir, progress or (lambda *_: None)
        )
        (partial / MANIFEST).write_bytes(manifest.to_bytes())
        sync_tree(partial)
        rename_folder(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return manifest


def shards_of(folder: Path, manifest: Manifest) -> list[Path]:
    """Return the dataset files of the folder of a release."""
    return [folder / file.path for file in manifest.files if file.role == "data"]


def _take(source: Path, folder: Path) -> tuple[Path, str]:
    """Copy a file into a folder; return where it is and its SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / source.name
    with target.open("wb") as out:
        return target, copy(source, out)


def _fill(
    shards: list[Path],
    terms: Terms,
    folder: Path,
    previous: Manifest | None,
    archive: Path | None,
    tables_dir: Path | None,
    progress: Callable[[str, int, int], None],
) -> Manifest:
    files: list[File] = []
    total, done = sum(path.stat().st_size for path in shards), 0
    for path in shards:
        target, digest = _take(path, folder / "data")
        done += path.stat().st_size
        progress("copying", done, total)
        files.append(_file(folder, target, "application/x-hdf5", "data", digest))
    if archive is not None:
        target, digest = _take(archive, folder / "provenance")
        files.append(_file(folder, target, "application/zip", "provenance", digest))
    # From here on only the copies are read: what is described is what is released.
    copies = [folder / "data" / path.name for path in shards]
    summary = summarize_release(copies, on_progress=lambda n, all_: progress("summarizing", n, all_))
    table = folder / _TABLE
    write_summary_table(
        copies,
        table,
        dataset_id=terms.dataset_id,
        on_progress=lambda n, all_: progress("tabulating", n, all_),
    )
    files.append(_file(folder, table, "application/vnd.apache.parquet", "summary"))
    version, created = (1 if previous is None else previous.version + 1), utc_now()
    software, contributors = origin(copies)
    facts = ReleaseFacts(
        dataset_id=terms.dataset_id,
        version=version,
        title=terms.title,
        description=terms.description,
        created=created,
        node=NodeFact(name=terms.node),
        domain=terms.domain,
        node_class=terms.node_class,
        grade=terms.grade,
        tier=terms.tier,
        licence=terms.licence,
        contributors=tuple(contributors),
        software=tuple(SoftwareFact(name=n, version=v) for n, v in sorted(software.items())),
        files=tuple(FileFact(**f.model_dump()) for f in files),
        methods=tuple(summary["methods"]),
        summary=summary,
        keywords=terms.keywords,
        identifiers=terms.identifiers,
        rights=terms.rights,
    )
    structures = folder / _STRUCTURES
    write_optimade(
        copies,
        structures,
        facts,
        tables_dir=tables_dir,
        on_progress=lambda n, all_: progress("writing structures", n, all_),
    )
    files.append(_file(folder, structures, "application/gzip", "structures"))
    files.append(_document(folder, *_PROCESSES, "provenance", _with(facts, files), tables_dir))
    facts = _with(facts, files)  # the documents list all files but themselves
    files += [
        _document(folder, name, path, "metadata", facts, tables_dir) for name, path in DOCUMENTS.items()
    ]
    return Manifest(
        dataset_id=terms.dataset_id,
        version=version,
        title=terms.title,
        created=created,
        node=terms.node,
        domain=terms.domain,
        node_class=terms.node_class,
        grade=terms.grade,
        tier=terms.tier,
        licence=terms.licence,
        counts=Counts(**{k: summary[k] for k in ("entries", "sites", "shards", "failed")}),
        files=tuple(sorted(files, key=lambda f: f.path)),
        previous=previous and Previous(version=previous.version, manifest_sha256=previous.sha256),
        software=dict(sorted(software.items())),
        structures_sha256=structures_digest(copies),
        keywords=terms.keywords,
        identifiers=terms.identifiers,
        rights=terms.rights,
    )


def _with(facts: ReleaseFacts, files: Sequence[File]) -> ReleaseFacts:
    return facts.model_copy(update={"files": tuple(FileFact(**f.model_dump()) for f in files)})


def _document(
    folder: Path, name: str, path: str, role: str, facts: ReleaseFacts, tables_dir: Path | None
) -> File:
    target = folder / path
    target.parent.mkdir(exist_ok=True)
    text = json.dumps(
        render(name, facts, tables_dir=tables_dir), indent=1, ensure_ascii=False, allow_nan=False
    )
    target.write_text(text + "\n", encoding="utf-8")
    media = "application/json" if name in ("cstm", "datacite") else "application/ld+json"
    return _file(folder, target, media, role)


def _require_archive(path: Path) -> None:
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise PublishError(f"{path} is not an AiiDA archive: {error}") from error
    if not {"metadata.json", "db.sqlite3"} <= names:
        raise PublishError(
            f"{path} is not an AiiDA archive: it has no metadata.json or no db.sqlite3",
            hint="make one with `matcompute verdi archive create`",
        )


def _file(folder: Path, path: Path, media_type: str, role: str, digest: str | None = None) -> File:
    relative = path.relative_to(folder).as_posix()
    size = path.stat().st_size
    return File(
        path=relative, size=size, sha256=digest or sha256_file(path), media_type=media_type, role=role
    )
