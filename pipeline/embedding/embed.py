"""Stage embed: images of any input to the store's images table, resumable, one row for every image."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from lanit.errors import LanitError, UsageError
from pipeline.computing.timing import Tick, usable_processors
from pipeline.decoding.limits import MAX_PIXELS
from pipeline.embedding.engine import Engine, LocalEngine, RowReader
from pipeline.embedding.parts import PartWriter, Row
from pipeline.embedding.stored_inputs import StoredInputs
from pipeline.inputs.opening import open_inputs
from pipeline.inputs.places import Input
from pipeline.store.index import build_index, index_state
from pipeline.store.schemas import SourceEntry, Storage
from pipeline.store.store import Store
from pipeline.store.store_folder import lock_store, read_manifest

if TYPE_CHECKING:
    from pipeline.clip.models import ClipModel

Mode = Literal["resume", "overwrite"]
Decode = Literal["cpu", "gpu"]
Progress = Callable[[int, int, str], None]
"""Called with (images done, images in all, where the time goes) as the run goes on."""
EngineMaker = Callable[[RowReader, Tick], Engine]

DEFAULT_STORAGE: Storage = "float32"
_SLOW_LOADER = 0.2  # share of the run spent waiting for images from which on more workers are worth trying
_SHARES_AFTER = 5.0  # seconds


@dataclass(frozen=True)
class EmbedOptions:
    """How to embed.

    batch_size: images encoded at once. workers: threads that decode; none for one per processor.
    mode: ``resume`` keeps what is there, ``overwrite`` starts the images table afresh.
    retry_failed: read images again that failed before and have not changed since.
    max_failures: stop at more failed images than this; none for never. max_pixels: larger images are refused.
    storage: type of the embeddings on disk; none for the store's own, float32 in a new one.
    decode: ``cpu``, or ``gpu`` for JPEG by nvJPEG on the model's device, whose pixels differ by a few levels.
    image_column: of tables that have several. part_rows: rows of a part; none for what suits the size of the table.
    forget: inputs of the store whose rows are to go, as typed or as the store has them; patterns too.
    Raises UsageError for values that make no sense.
    """

    batch_size: int = 64
    workers: int | None = None
    mode: Mode = "resume"
    retry_failed: bool = False
    max_failures: int | None = None
    max_pixels: int = MAX_PIXELS
    storage: Storage | None = None
    image_column: str | None = None
    decode: Decode = "cpu"
    part_rows: int | None = None
    forget: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        least = {"batch_size": 1, "workers": 1, "part_rows": 1, "max_pixels": 1, "max_failures": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise UsageError(f"--{name.replace('_', '-')} is at least {low}, not {value}", "Leave it out.")
        if self.mode not in get_args(Mode):
            raise UsageError(f"--mode is resume or overwrite, not {self.mode}", "Leave it out.")
        if self.forget and self.mode == "overwrite":
            raise UsageError("--mode overwrite forgets every other input anyway", "Leave out --forget.")


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
    seconds: of the whole run, loading the model left out. index: what became of it. more_workers: whether decoding was
    the limit and there are processors to spare.
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


@dataclass
class _Counts:
    found: int = 0
    ok: int = 0
    failed: int = 0
    failed_before: int = 0
    skipped: int = 0
    kept: int = 0
    repeated: int = 0
    dropped: int = 0
    first_failure: str = ""
    warnings: list[str] = field(default_factory=list)

    def add(self, row: Row) -> None:
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
            self.first_failure = self.first_failure or f"{row.path}: {row.error_message}"


def embed(
    inputs: Sequence[str | Path],
    store: Path,
    clip: ClipModel,
    options: EmbedOptions | None = None,
    *,
    progress: Progress | None = None,
    engine: EngineMaker | None = None,
) -> EmbedReport:
    """Embed every image of ``inputs`` (:func:`pipeline.inputs.opening.open_inputs`) into the store, and index it.

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
    origins = open_inputs(inputs, options.image_column)
    workers = options.workers or usable_processors()
    store, anew = store.resolve(), options.mode == "overwrite"
    with lock_store(store):
        storage = options.storage or stored_type(store, anew)
        writer = PartWriter(store, clip.fingerprint, storage, [origin.source for origin in origins], overwrite=anew)
        try:
            run = _Run(writer, origins, clip, options, workers, progress)
            run.fill(engine)
        finally:
            writer.close()
        index = _index(Store.open(store), run.counts.warnings)
    return run.report(index)


def stored_type(store: Path, anew: bool) -> Storage:
    """The type of the embeddings that a store holds, the default where there is none.

    anew: whether the store is to be overwritten, and so need not be understood.
    """
    try:
        manifest = read_manifest(store)
    except LanitError:
        if not anew:
            raise
        manifest = None
    return manifest.storage if manifest else DEFAULT_STORAGE


@dataclass
class _Run:
    writer: PartWriter
    origins: list[Input]
    clip: ClipModel
    options: EmbedOptions
    workers: int
    progress: Progress | None

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        self.counts = _Counts()
        self.stored = StoredInputs(self.writer, self.origins, self.options.forget)
        self.settled = self.rows = 0

    def fill(self, make: EngineMaker | None) -> None:
        """List the inputs, write every part and commit."""
        counts, writer, stored = self.counts, self.writer, self.stored
        stored.settle()
        kept = [entry.source for entry in stored.kept]
        for origin in self.origins:
            found, repeated = stored.find(origin)
            counts.found += found
            counts.repeated += repeated
        if not counts.found:
            writer.discard()
            raise self._nothing_found()
        writer.catalogue.ready()
        reader = RowReader(
            {origin.source: origin for origin in self.origins},
            self.clip.preprocessing,
            writer.catalogue,
            self.options.max_pixels,
            decode=self.options.decode == "cpu",
        )
        self.engine: Engine = (
            make(reader, self._tick)
            if make
            else LocalEngine(self.clip, reader, self.options.batch_size, self.workers, self._tick)
        )
        self.rows = writer.catalogue.count(kept)
        parts = writer.plan(kept, self.options.retry_failed, self.options.part_rows)
        for part in self.engine.rows(parts):
            self._write(part)
        if counts.ok + counts.skipped == 0:
            writer.discard()
            names = " and ".join(origin.source for origin in self.origins[:3])
            first = counts.first_failure or "all failed in an earlier run: add --retry-failed"
            raise LanitError(
                f"none of the {counts.found} images in {names} can be decoded ({first})",
                "Check the files; the store is as it was.",
            )
        counts.dropped = writer.catalogue.dropped(kept)
        entries = {entry.source: entry for entry in stored.kept}
        entries |= {origin.source: SourceEntry(origin.source, origin.image_column) for origin in self.origins}
        writer.commit(self.clip.spec, self.clip.architecture, [entries[source] for source in sorted(entries)])

    def report(self, index: str) -> EmbedReport:
        counts, timing = self.counts, self.engine.timing
        seconds = time.monotonic() - self.started
        if counts.failed_before:
            counts.warnings.append(f"{counts.failed_before} images failed before: --retry-failed tries them again")
        if counts.repeated:
            counts.warnings.append(
                f"{counts.repeated} names came twice: a file counts once, a tar's or table's image each"
            )
        damages = [f"{damage}; its images are embedded again" for damage in self.writer.damages]
        own = [warning for origin in self.origins for warning in origin.warnings]
        return EmbedReport(
            store=str(self.writer.root),
            sources=tuple(origin.source for origin in self.origins),
            device=self.engine.device,
            found=counts.found,
            ok=counts.ok,
            failed=counts.failed,
            failed_before=counts.failed_before,
            skipped=counts.skipped,
            repeated=counts.repeated,
            dropped=counts.dropped,
            ignored=sum(origin.ignored for origin in self.origins),
            kept=counts.kept,
            away=self.stored.away,
            stored=Store.open(self.writer.root).ok,
            seconds=seconds,
            images_per_second=counts.ok / seconds,
            waiting=timing.waiting / seconds,
            model=timing.model / seconds,
            writing=timing.writing / seconds,
            workers=self.engine.workers,
            more_workers=self._loader_is_slow(seconds),
            index=index,
            warnings=(*damages, *own, *self.stored.warnings, *self.engine.notes, *counts.warnings),
        )

    def _write(self, part: list[Row]) -> None:
        began = time.monotonic()
        for row in part:
            self.counts.add(row)
        self.writer.add(part)
        timing = self.engine.timing
        timing.writing += time.monotonic() - began
        most = self.options.max_failures
        failed = self.counts.failed - self.counts.failed_before
        if most is not None and failed > most:
            raise LanitError(
                f"{failed} images failed, more than --max-failures {most} ({self.counts.first_failure})",
                "Mend them, or raise it; the same command then goes on.",
            )

    def _tick(self, rows: int) -> None:
        self.settled += rows
        if self.progress is not None:
            self.progress(self.settled, self.rows, self._shares())

    def _shares(self) -> str:
        seconds, timing = time.monotonic() - self.started, self.engine.timing
        if seconds < _SHARES_AFTER:
            return ""
        shares = {"decode": timing.waiting, "model": timing.model, "write": timing.writing}
        text = " ".join(f"{name} {value / seconds:.0%}" for name, value in shares.items())
        slow = self._loader_is_slow(seconds)
        return f"{text}; the loader is the limit: try --workers {self.engine.processors}" if slow else text

    def _loader_is_slow(self, seconds: float) -> bool:
        engine = self.engine
        return engine.timing.waiting > _SLOW_LOADER * seconds and engine.workers < engine.processors

    def _nothing_found(self) -> LanitError:
        from pipeline.decoding.images import IMAGE_SUFFIXES

        ignored = sum(origin.ignored for origin in self.origins)
        others = f", only {ignored} other files" if ignored else ""
        names = " and ".join(origin.source for origin in self.origins[:3])
        hint = f"Names of images end in {' '.join(sorted(IMAGE_SUFFIXES))}."
        return LanitError(f"there are no images in {names}{others}", hint)


def _index(store: Store, warnings: list[str]) -> str:
    try:
        if index_state(store) == "current":
            return "unchanged"
        build_index(store)
    except LanitError as error:
        warnings.append(f"no index was built: {error}")
        return "skipped"
    return "built"
