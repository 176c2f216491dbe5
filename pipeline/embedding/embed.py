"""Stage embed: images of any input to the store's images table, resumable, one row for every image."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lanit.errors import LanitError, UsageError, excerpt
from pipeline.computing.engines import Engine
from pipeline.computing.part_plan import PartPlan
from pipeline.computing.timing import Meter, usable_processors
from pipeline.decoding.frames import Frame
from pipeline.decoding.limits import MAX_PIXELS
from pipeline.embedding.embedding_steps import RowReader, local_engine
from pipeline.embedding.image_rows import ImageRow, RowCatalogue
from pipeline.embedding.parts import PartWriter, TableSettings
from pipeline.embedding.stored_inputs import StoredInputs
from pipeline.inputs.catalogue import of_repeated, some_names
from pipeline.inputs.opening import open_inputs
from pipeline.inputs.places import Input
from pipeline.progress import Progress
from pipeline.store.index import index_state
from pipeline.store.schemas import SourceEntry, StoredType
from pipeline.store.store import Store
from pipeline.store.store_clip import warn_of_strangers
from pipeline.store.store_folder import lock_store, read_manifest

if TYPE_CHECKING:
    from pipeline.clip.models import ClipModel

Decode = Literal["cpu", "gpu"]
EngineMaker = Callable[[RowReader, RowCatalogue, StoredType], Engine[ImageRow]]

DEFAULT_STORAGE: StoredType = "float32"
_SLOW_LOADER = 0.2  # share of the run spent waiting for images from which on more workers are worth trying


@dataclass(frozen=True)
class EmbedOptions:
    """How to embed.

    batch_size: images encoded at once. workers: threads that decode; none for one per processor.
    overwrite: start the images table afresh, and keep nothing of what is there.
    retry_failed: read images again that failed before and have not changed since.
    max_failures: stop at more failed images than this; none for never. max_pixels: larger images are refused.
    storage: type of the embeddings on disk; none for the store's own, float32 in a new one.
    frame: of files that have several; none for the store's own, in a new one for the representative, else the first.
    decode: ``cpu``, or ``gpu`` for JPEG by nvJPEG on the model's device, whose pixels differ by a few levels.
    image_column: of tables that have several. part_rows: rows of a part; none for what suits the size of the table.
    forget: inputs of the store whose rows are to go, as typed or as the store has them; patterns too.
    Raises UsageError for values that make no sense.
    """

    batch_size: int = 64
    workers: int | None = None
    overwrite: bool = False
    retry_failed: bool = False
    max_failures: int | None = None
    max_pixels: int = MAX_PIXELS
    storage: StoredType | None = None
    image_column: str | None = None
    frame: Frame | None = None
    decode: Decode = "cpu"
    part_rows: int | None = None
    forget: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        least = {"batch_size": 1, "workers": 1, "part_rows": 1, "max_pixels": 1, "max_failures": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise UsageError(f"--{name.replace('_', '-')} is at least {low}, not {value}", "Leave it out.")
        if self.forget and self.overwrite:
            raise UsageError("--overwrite forgets every other input anyway", "Leave out --forget.")


@dataclass(frozen=True)
class EmbedReport:
    """What a run did: found = ok + failed + skipped.

    found: images in the inputs. ok: embedded now. failed: rows with an error message, failed_before of them from an
    earlier run and not tried again. skipped: already embedded, unchanged (moved and renamed files included).
    repeated: names that came twice. dropped: rows of images that are gone or of inputs to forget. ignored: files that
    are not images by name. kept: rows that stay as they were, of other inputs in the same store and of what could not
    be listed; away: those of them whose input or folder cannot be found or listed now. stored: images with an
    embedding after the run.
    waiting, model, writing: shares of ``seconds`` spent waiting for decoded images, in CLIP, and writing parts.
    seconds: of the whole run, loading the model left out. index: ``unchanged``, or ``left`` to what needs one first.
    more_workers: whether decoding was the limit and there are processors to spare.
    """

    store: str
    sources: tuple[str, ...]
    device: str
    found: int
    ok: int
    failed: int
    failed_before: int
    skipped: int
    repeated: int
    dropped: int
    ignored: int
    kept: int
    away: int
    stored: int
    seconds: float
    images_per_second: float
    waiting: float
    model: float
    writing: float
    workers: int
    more_workers: bool
    index: str
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def embed(
    inputs: Sequence[str | Path],
    store: Path,
    clip: ClipModel,
    options: EmbedOptions | None = None,
    *,
    progress: Progress | None = None,
    engine: EngineMaker | None = None,
) -> EmbedReport:
    """Embed every image of ``inputs`` (:func:`pipeline.inputs.opening.open_inputs`) into the store.

    New images are added, those gone from the inputs dropped, changed ones embedded again; an image that moved is known
    by its content. What cannot be listed is not gone: rows stay that lie in a folder that cannot be listed now, behind
    the place where a tar is cut short, or in an input that this run does not read, be it there or not, until
    ``options.forget`` names it. The old table stays in force until the new one is complete, and an interrupted run goes
    on where it stopped, to the same bytes. An image that cannot be decoded becomes a row with status ``failed``.
    engine: how to compute; none for this machine alone.
    Raises LanitError for an input that is missing, or empty as an unmounted disk is, where no image can be decoded,
    after ``max_failures``, for a store of another model or type, and for one that another process is writing; the store
    is then as it was.
    """
    options = options or EmbedOptions()
    return embed_opened(open_inputs(inputs, options.image_column), store, clip, options, progress, engine)


def embed_opened(
    origins: list[Input],
    store: Path,
    clip: ClipModel,
    options: EmbedOptions,
    progress: Progress | None = None,
    engine: EngineMaker | None = None,
) -> EmbedReport:
    """As :func:`embed`, of inputs that are open."""
    store, anew = store.resolve(), options.overwrite
    with lock_store(store):
        settings = _settings(store, options)
        writer = PartWriter(store, clip.fingerprint, settings, [origin.source for origin in origins], overwrite=anew)
        began = time.monotonic()
        try:
            prepared = _prepare(writer, origins, clip, options, engine)
            meter = Meter(progress, prepared.rows, remark=partial(_advice, prepared.engine), began=began)
            counts = _fill(prepared, writer, options.max_failures, meter)
            _commit(prepared, writer, clip, counts)
        finally:
            writer.close()
        made = Store.open(store)
        counts.warnings += warn_of_strangers(made, clip)
    return _report(prepared, writer, counts, meter, "unchanged" if index_state(made) == "current" else "left")


def _settings(store: Path, options: EmbedOptions) -> TableSettings:
    """What the table is to be made with: as asked for, else as the store has it.

    A store that is to be overwritten need not be understood, and which frame it read is left behind.
    """
    try:
        manifest = read_manifest(store)
    except LanitError:
        if not options.overwrite:
            raise
        manifest = None
    storage = options.storage or (manifest.storage if manifest else DEFAULT_STORAGE)
    own_frame = manifest.frame if manifest and not options.overwrite else None
    return TableSettings(storage, own_frame if options.frame is None else options.frame)


@dataclass(frozen=True)
class _Prepared:
    """What a run is to do. stored: inputs that the store knows. found, repeated: images of the inputs, and names that
    came twice. rows: of the table to be, and parts: the same; engine: what embeds those that are new."""

    origins: list[Input]
    stored: StoredInputs
    found: int
    repeated: int
    rows: int
    parts: PartPlan[ImageRow]
    engine: Engine[ImageRow]


@dataclass
class _Counts:
    """What became of the rows; see :class:`EmbedReport`."""

    ok: int = 0
    failed: int = 0
    failed_before: int = 0
    skipped: int = 0
    kept: int = 0
    dropped: int = 0
    first_failure: str = ""
    warnings: list[str] = field(default_factory=list)

    def add(self, row: ImageRow) -> None:
        if row.kept:
            self.kept += 1
        elif row.as_is and row.known is not None and not row.known.ok:
            self.failed += 1
            self.failed_before += 1
        elif row.known is not None:
            self.skipped += 1
        elif row.status == "ok":
            self.ok += 1
        else:
            self.failed += 1
            self.first_failure = self.first_failure or f"{excerpt(row.path)}: {row.error_message}"


def _prepare(
    writer: PartWriter, origins: list[Input], clip: ClipModel, options: EmbedOptions, make: EngineMaker | None
) -> _Prepared:
    """List the inputs, those of a damaged part too, which are added to ``origins``. Raises what :func:`embed` does."""
    stored = StoredInputs(writer, origins, options.forget)
    stored.settle()
    listed = [stored.find(origin) for origin in origins]
    found, repeated = sum(found for found, _ in listed), sum(repeated for _, repeated in listed)
    if not found:
        writer.discard()
        raise _nothing_found(origins)
    writer.catalogue.ready()
    inputs = {origin.source: origin for origin in origins}
    decode = options.decode == "cpu"
    reader = RowReader(
        inputs, clip.preprocessing, writer.catalogue.by_content, options.max_pixels, decode, writer.settings.frame
    )
    workers = options.workers or usable_processors()
    engine = (
        make(reader, writer.catalogue, writer.settings.storage)
        if make
        else local_engine(clip, reader, options.batch_size, workers)
    )
    parts = writer.plan(stored.kept_sources, options.retry_failed, options.part_rows)
    rows = writer.catalogue.count(stored.kept_sources)
    return _Prepared(origins, stored, found, repeated, rows, parts, engine)


def _fill(prepared: _Prepared, writer: PartWriter, max_failures: int | None, meter: Meter) -> _Counts:
    """Embed what is new and write every part. Raises LanitError after more than ``max_failures``, none for never."""
    counts = _Counts()
    with contextlib.closing(prepared.engine.parts(prepared.parts, meter)) as parts:
        for part in parts:
            began = time.monotonic()
            for row in part:
                counts.add(row)
            writer.add(part)
            meter.timing.writing += time.monotonic() - began
            meter.tick(sum(not row.to_do for row in part))
            failed = counts.failed - counts.failed_before
            if max_failures is not None and failed > max_failures:
                raise LanitError(
                    f"{failed} images failed, more than --max-failures {max_failures} ({counts.first_failure})",
                    "Mend them, or raise it; the same command then goes on.",
                )
    return counts


def _commit(prepared: _Prepared, writer: PartWriter, clip: ClipModel, counts: _Counts) -> None:
    """Put the table in force. Raises LanitError where no image has an embedding; the store is then as it was."""
    if counts.ok + counts.skipped == 0:
        writer.discard()
        first = counts.first_failure or "all failed in an earlier run: add --retry-failed"
        raise LanitError(
            f"none of the {prepared.found} images in {some_names(prepared.origins)} can be decoded ({first})",
            "Check the files; the store is as it was.",
        )
    entries = {entry.source: entry for entry in prepared.stored.kept}
    entries |= {origin.source: SourceEntry(origin.source, origin.image_column) for origin in prepared.origins}
    counts.dropped = writer.catalogue.dropped(prepared.stored.kept_sources)
    writer.commit(clip.spec, clip.architecture, [entries[source] for source in sorted(entries)])


def _report(prepared: _Prepared, writer: PartWriter, counts: _Counts, meter: Meter, index: str) -> EmbedReport:
    origins, engine, timing, seconds = prepared.origins, prepared.engine, meter.timing, meter.seconds
    warnings = [f"{damage}; its images are embedded again" for damage in writer.damages]
    warnings += [warning for origin in origins for warning in origin.warnings]
    warnings += [*prepared.stored.warnings, *engine.notes, *counts.warnings]
    if counts.failed_before:
        warnings.append(f"{counts.failed_before} images failed before: --retry-failed tries them again")
    warnings += of_repeated(prepared.repeated)
    return EmbedReport(
        store=str(writer.root),
        sources=tuple(origin.source for origin in origins),
        device=engine.device,
        found=prepared.found,
        ok=counts.ok,
        failed=counts.failed,
        failed_before=counts.failed_before,
        skipped=counts.skipped,
        repeated=prepared.repeated,
        dropped=counts.dropped,
        ignored=sum(origin.ignored for origin in origins),
        kept=counts.kept,
        away=prepared.stored.away,
        stored=Store.open(writer.root).ok,
        seconds=seconds,
        images_per_second=counts.ok / seconds,
        waiting=timing.waiting / seconds,
        model=timing.model / seconds,
        writing=timing.writing / seconds,
        workers=engine.workers,
        more_workers=_loader_is_slow(engine, meter),
        index=index,
        warnings=tuple(warnings),
    )


def _advice(engine: Engine[ImageRow], meter: Meter) -> str:
    slow = _loader_is_slow(engine, meter)
    return f"; the loader is the limit: try --workers {engine.processors}" if slow else ""


def _loader_is_slow(engine: Engine[ImageRow], meter: Meter) -> bool:
    return meter.timing.waiting > _SLOW_LOADER * meter.seconds and engine.workers < engine.processors


def _nothing_found(origins: Sequence[Input]) -> LanitError:
    from pipeline.decoding.images import IMAGE_SUFFIXES

    ignored = sum(origin.ignored for origin in origins)
    others = f", only {ignored} other files" if ignored else ""
    hint = f"Names of images end in {' '.join(sorted(IMAGE_SUFFIXES))}."
    return LanitError(f"there are no images in {some_names(origins)}{others}", hint)
