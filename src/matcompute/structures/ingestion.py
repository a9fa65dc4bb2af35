"""From sources to a campaign's structures: screened, each once, with the references that the hull needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from matcompute.dataset import Quality
from matcompute.errors import InputError
from matcompute.structures.base import Reject, SourceBlock, SourceFile, SourceTable
from matcompute.structures.references import elemental_references
from matcompute.structures.report import IngestReport
from matcompute.structures.screening import screen
from matcompute.structures.spec import StructuresSpec, iter_structures
from matcompute_kernels.elements import MAX_Z, SYMBOLS
from matcompute_kernels.structure_hash import entry_ids, structure_hash

if TYPE_CHECKING:
    from matcompute.dataset import DatasetWriter, Metadata

__all__ = ["ingest"]


def ingest(
    specs: Sequence[StructuresSpec],
    base_dir: Path,
    out: Path | None = None,
    *,
    campaign_file: Path | None = None,
    references: Iterable[str] | Literal["auto"] | None = None,
    metadata: Metadata | None = None,
    files: Sequence[Sequence[SourceFile]] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> IngestReport:
    """Read, screen and dedupe structures, and write them as a dataset v1.

    The same sources give the same entries, ids and order, each time.

    Parameters
    ----------
    specs
        Items of the campaign file.
    base_dir
        Folder that relative paths start from.
    out
        Dataset to write; None only counts.
    campaign_file
        Source of generated structures.
    references
        Elements of which a pure structure is needed; those that lack one get their ground-state crystal, flagged
        ``Quality.ELEMENTAL_REFERENCE``. ``"auto"``: every element that occurs.
    metadata
        Of the dataset.
    files
        The files of each item if they were collected before, under the names to record.
    on_progress
        Called with the number of structures read so far.

    Raises
    ------
    InputError
        If a source file is missing, or no structure is left.
    """
    run = _Ingest()
    with ExitStack() as stack:
        writer: DatasetWriter | None = None
        if out is not None:
            from matcompute.dataset import DatasetWriter, Metadata

            writer = stack.enter_context(DatasetWriter(out, metadata or Metadata(), overwrite=True))
        run.writer = writer
        for block in iter_structures(
            specs, base_dir, campaign_file=campaign_file, table=run.table, files=files
        ):
            run.take(block)
            if on_progress is not None:
                on_progress(run.report.n_read)
        if run.report.n_kept == 0:
            causes = ", ".join(f"{len(found)} {cause}" for cause, found in run.report.by_cause().items())
            raise InputError(
                f"no structure is left of {run.report.n_read} read" + (f" ({causes})" if causes else ""),
                hint="`matcompute campaign plan --json` lists what was kept out, by source and line",
            )
        wanted = run.report.elements if references == "auto" else set(references or ())
        run.add_references(set(wanted) - run.report.unary)
        run.finish()
    return run.report


class _Ingest:
    """State of one ingest."""

    def __init__(self) -> None:
        self.report = IngestReport()
        self.table = SourceTable()
        self.writer: DatasetWriter | None = None
        #: hash → (source row, line) of the structure that was kept
        self.seen: dict[bytes, tuple[int, int]] = {}
        self.kept_of_source: Counter[int] = Counter()
        self.sources_written: dict[int, int] = {}

    def name(self, row: int) -> str:
        return self.table.files[row].name

    def take(self, block: SourceBlock) -> None:
        report = self.report
        report.n_read += len(block) + len(block.rejects)
        report.rejects += block.rejects
        if not len(block):
            return
        verdict = screen(block.batch)
        for index in np.flatnonzero(~verdict.good).tolist():
            report.rejects.append(
                Reject(
                    verdict.cause(index),
                    self.name(int(block.source_index[index])),
                    int(block.source_line[index]),
                    verdict.reason(index),
                    self._label(block, index),
                )
            )
        if not verdict.good.all():
            block = block[verdict.good]
        hashes = structure_hash(block.batch)
        keep = np.ones(len(block), dtype=bool)
        for row, digest in enumerate(hashes.tolist()):
            place = (int(block.source_index[row]), int(block.source_line[row]))
            first = self.seen.setdefault(digest, place)
            if first is place:
                continue
            keep[row] = False
            report.n_duplicates += 1
            same = f"{self.name(first[0])}:{first[1]}"
            report.rejects.append(
                Reject(
                    "duplicate",
                    self.name(place[0]),
                    place[1],
                    f"the same as {same}",
                    self._label(block, row),
                )
            )
        if not keep.all():
            block, hashes = block[keep], hashes[keep]
        if len(block):
            self.keep(block, hashes)

    @staticmethod
    def _label(block: SourceBlock, index: int) -> str:
        if block.label[index]:
            return block.label[index]
        one = block.batch[index]
        return one.formulas()[0] if len(one.numbers) else ""

    def keep(self, block: SourceBlock, hashes: np.ndarray) -> None:
        report, batch = self.report, block.batch
        report.n_kept += len(block)
        sizes, counts = np.unique(batch.n_sites, return_counts=True)
        report.n_sites.update(dict(zip(sizes.tolist(), counts.tolist(), strict=True)))
        rows, counts = np.unique(block.source_index, return_counts=True)
        self.kept_of_source.update(dict(zip(rows.tolist(), counts.tolist(), strict=True)))
        present = np.zeros((len(batch), MAX_Z + 1), dtype=bool)
        present[np.repeat(np.arange(len(batch)), batch.n_sites), batch.numbers] = True
        for z in np.flatnonzero(present.any(axis=0)):
            report.elements[SYMBOLS[z]] += int(present[:, z].sum())
        alone = present[present.sum(axis=1) == 1]
        report.unary.update(SYMBOLS[z] for z in np.flatnonzero(alone.any(axis=0)))
        _, first, counts = np.unique(
            np.packbits(present, axis=1), axis=0, return_index=True, return_counts=True
        )
        for index, count in sorted(zip(first.tolist(), counts.tolist(), strict=True)):
            system = tuple(np.flatnonzero(present[index]).tolist())
            known = report.systems.get(system)
            if known is not None:
                report.systems[system] = (known[0] + count, known[1])
            else:
                place = (self._label(block, index), self.name(int(block.source_index[index])))
                report.systems[system] = (count, (*place, int(block.source_line[index])))
        self.write(block, hashes)

    def add_references(self, symbols: set[str]) -> None:
        if not symbols:
            return
        batch, known, unknown = elemental_references(symbols)
        self.report.references, self.report.unknown_references = known, unknown
        sizes, counts = np.unique(batch.n_sites, return_counts=True)
        self.report.n_sites_references.update(dict(zip(sizes.tolist(), counts.tolist(), strict=True)))
        self.report.n_sites.update(self.report.n_sites_references)
        if not len(batch):
            return
        rows = [
            self.table.add(SourceFile(f"elemental reference: {r.symbol}: {r.origin}", Path())) for r in known
        ]
        block = SourceBlock(
            batch,
            np.array(rows, dtype=np.int32),
            np.zeros(len(batch), dtype=np.int64),
            [r.symbol for r in known],
            [],
            int(Quality.ELEMENTAL_REFERENCE),
        )
        self.kept_of_source.update(dict.fromkeys(rows, 1))
        self.write(block, structure_hash(batch))

    def write(self, block: SourceBlock, hashes: np.ndarray) -> None:
        if self.writer is None:
            return
        from matcompute.dataset import Source

        for row in np.unique(block.source_index).tolist():
            if row not in self.sources_written:
                source = Source(self.name(row), self.table.sha256(row))
                self.sources_written[row] = self.writer.add_source(source)
        lookup = np.zeros(len(self.table.files), dtype=np.int32)
        for row, written in self.sources_written.items():
            lookup[row] = written
        self.writer.append(
            block.batch,
            ids=entry_ids(block.batch, hashes),
            structure_hash=hashes,
            entry={
                "source_index": lookup[block.source_index],
                "source_line": block.source_line.astype(np.int64),
                "quality": np.full(len(block), block.quality, dtype=np.uint32),
                "label": list(block.label),
            },
        )

    def finish(self) -> None:
        self.report.sources = [
            {"name": file.name, "sha256": self.table.sha256(row), "kept": self.kept_of_source[row]}
            for row, file in enumerate(self.table.files)
        ]
