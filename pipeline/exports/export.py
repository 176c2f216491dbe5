"""``lanit export``: a store, its labels and its images, in the layouts that other tools read."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lanit.errors import LanitError, UsageError
from pipeline.exports.destination import MISSING_NAME, Destination, Reached
from pipeline.exports.folders import Folders, domain_groups, pair_groups
from pipeline.exports.layouts import ExportRequest, Target, layout_of
from pipeline.exports.selection import Chunk, Missing, Selection
from pipeline.files import sha256_bytes
from pipeline.store.label_revisions import RevisionFile
from pipeline.store.store import Store
from pipeline.store.store_images import StoreImages

_FORMAT = 2  # of what we write: another number, and an earlier export is another one
_EXAMPLES = 5


@dataclass(frozen=True)
class ExportReport:
    """images = exported + missing + left_out + failed.

    missing: could not be read again, or changed since, listed in the file ``missing_list``; left_out: without a label,
    or on neither side of a pair; failed: to embed. groups: exported images of each label or folder. files: of images or
    tables. read_by: what reads them, as it is typed. created: whether anything was written; warnings: the first few of
    what was missing.
    """

    to: str
    out: str
    revision: int | None
    images: int
    exported: int
    missing: int
    left_out: int
    failed: int
    files: int
    groups: dict[str, int]
    missing_list: str | None
    read_by: str
    created: bool
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def export(
    store: Store,
    out: Path,
    request: ExportRequest,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ExportReport:
    """Write the embedded images of ``store`` to the folder ``out``, which appears once it is whole.

    An interrupted export is continued; one that is already there is left as it is. overwrite: replace another export.
    Raises LanitError where there is nothing to export, the labels are not those of the images that the store now holds,
    or ``out`` holds something else.
    """
    if request.to == "csv" and out.suffix.lower() == ".csv":
        raise UsageError(f"--out {out} would be a folder", f"Give its name, such as {out.with_suffix('')}.")
    if "files" in layout_of(request.to).TAKES:
        _check_outside(store, out)
    selection = select(store, request)
    advance = (lambda done: progress(done, len(selection))) if progress else (lambda done: None)
    target = layout_of(request.to)(selection, request, advance)
    destination = Destination(out, _identity(selection, request), target.writes)
    with destination.held():
        marker = destination.earlier(overwrite)
        if marker is not None:
            return _report(selection, request, out, marker["result"], created=False)
        with destination.unfinished() as reached:
            examples = _fill(destination, target, selection, reached)
            groups = dict(zip(selection.groups, reached.counts, strict=True))
            result: dict[str, Any] = {"exported": reached.exported, "missing": reached.missing}
            result |= {"files": reached.files, "groups": groups}
            if not reached.exported:
                reason = examples[0] if examples else "they could not be read"
                remedy = StoreImages(store, selection.rows[:1]).remedy(0)
                raise LanitError(f"none of the {len(selection):,} images can be exported: {reason}", remedy)
            destination.commit(target.finish(destination.folder, groups, reached.exported), result)
    report = _report(selection, request, out, result, created=True)
    return replace(report, warnings=(*destination.notes, *examples))


def _check_outside(store: Store, out: Path) -> None:
    """Raise LanitError where ``lanit embed`` would find the exported images among their originals."""
    for entry in store.manifest.sources:
        if Path(entry.source) in (out.resolve(), *out.resolve().parents):
            message = f"--out {out} lies in {entry.source}, where lanit embed would find every image again"
            raise LanitError(message, "Give a folder outside of it.")


def select(store: Store, request: ExportRequest) -> Selection:
    """The images that a request is about. Raises LanitError where there are none, or no labels that it needs."""
    labels = _labels(store, request)
    active = _active(labels, store.ok)
    groups, members = labels.domains if labels is not None else (), active
    chosen = np.full(store.ok, not request.only_labelled) | active.any(axis=1)
    if request.to == "folders":
        if request.pairs:
            groups, members = pair_groups(groups, active, request.pairs)
        else:
            groups, members = domain_groups(groups, active, only_labelled=request.only_labelled)
        chosen &= members.any(axis=1)
    if not chosen.any():
        what = "has a label" if store.ok else "is in the store"
        raise LanitError(f"nothing to export: no image {what}", "See: lanit inspect-labels" if store.ok else "")
    return Selection(store, labels, active, np.flatnonzero(chosen), groups, members)


def _active(labels: RevisionFile | None, count: int) -> np.ndarray:
    """Labels of the ``count`` images, bool (n×N); (n×0) without a revision."""
    active = np.zeros((count, len(labels.domains) if labels is not None else 0), bool)
    for block in labels.blocks(active=True) if labels is not None else ():
        active[block.start : block.start + block.rows] = block.active
    return active


def _labels(store: Store, request: ExportRequest) -> RevisionFile | None:
    """None where there are none and none are needed."""
    needed = layout_of(request.to).NEEDS_LABELS or request.only_labelled or request.revision is not None
    if not needed and not store.revisions():
        return None
    labels = store.revision_file(request.revision)
    store.check_current(labels)
    return labels


def _identity(selection: Selection, request: ExportRequest) -> dict[str, Any]:
    """What decides every byte. Parts of the store are named by their content, so their names stand for the images; the
    header of a revision stands for its labels."""
    labels = selection.labels
    return {
        "format": _FORMAT,
        "request": asdict(request) | {"pairs": list(request.pairs), "revision": labels.number if labels else None},
        "parts_sha256": sha256_bytes(selection.store.parts_array().tobytes()),
        "domains": list(selection.domains),
        "labels_sha256": labels.header_sha256 if labels else None,
    }


def _fill(destination: Destination, target: Target, selection: Selection, reached: Reached) -> list[str]:
    """Write what is still to be written. Returns a line for each of the first few images that were missing."""
    reached.counts = reached.counts or (0,) * len(selection.groups)
    examples: list[str] = []
    for chunk in target.chunks(destination.folder, reached.stop, reached.files):
        counts, exported = _count(selection, reached.stop, chunk)
        reached.counts = tuple(int(count) for count in np.add(reached.counts, counts))
        reached.stop = chunk.stop
        reached.files += len(chunk.files)
        reached.exported += exported
        reached.missing += len(chunk.missing)
        examples += [_line(one) for one in chunk.missing[: _EXAMPLES - len(examples)]]
        destination.note(reached, chunk.files, chunk.missing)
    return examples


def _count(selection: Selection, start: int, chunk: Chunk) -> tuple[np.ndarray, int]:
    """Exported images of each group, int64 (G), and in all, in a chunk that begins at ``start``."""
    rows = np.setdiff1d(selection.rows[start : chunk.stop], [one.record.row for one in chunk.missing])
    return selection.members[rows].sum(axis=0), len(rows)


def _line(one: Missing) -> str:
    return f"missing: {one.record.source}/{one.record.path}: {one.reason}"


def _report(
    selection: Selection, request: ExportRequest, out: Path, result: dict[str, Any], *, created: bool
) -> ExportReport:
    store = selection.store
    template = Folders.READ_PAIRS_BY if request.pairs else layout_of(request.to).READ_BY
    return ExportReport(
        to=request.to,
        out=str(out),
        revision=selection.labels.number if selection.labels is not None else None,
        images=store.rows,
        exported=result["exported"],
        missing=result["missing"],
        left_out=store.ok - len(selection),
        failed=store.rows - store.ok,
        files=result["files"],
        groups=result["groups"],
        missing_list=str(out / MISSING_NAME) if result["missing"] else None,
        read_by=template.format(out=out, shell=shlex.quote(str(out)), last=max(result["files"] - 1, 0)),
        created=created,
        warnings=(),
    )
