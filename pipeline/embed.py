"""Stage embed: a folder of images to the store's images table, resumable, one row for every file."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from lanit.errors import LanitError, UsageError
from lanit.preprocessing import ClipPreprocessing
from pipeline.embed_parts import PART_ROWS, KnownRow, PartWriter, Row, image_id
from pipeline.files import sha256_bytes, storable
from pipeline.images import ImageError, ImageListing, decode_rgb, list_some_images, read_image_bytes
from pipeline.index import build_index, index_state
from pipeline.store import Store, lock_store

if TYPE_CHECKING:
    from pipeline.clip_models import ClipModel

Mode = Literal["resume", "overwrite"]
Progress = Callable[[int, int], None]
"""Called with (images done, images in all) as the run goes on."""

_LOOKAHEAD = 8  # images decoded ahead beyond two batches, where the batches are tiny


@dataclass(frozen=True)
class EmbedReport:
    """What a run did: found = ok + failed + skipped.

    found: image files in the folder. ok: embedded now. failed: rows with an error message. skipped: already embedded,
    content unchanged (moved and renamed files included). dropped: rows of files that are gone. ignored: files that are
    not images by name. kept: rows of other folders in the same store. stored: images with an embedding after the run.
    waiting, model: shares of ``seconds`` spent waiting for decoded images, and in CLIP. index: what became of it.
    """

    store: str
    source: str
    device: str
    found: int
    ok: int
    failed: int
    skipped: int
    dropped: int
    ignored: int
    kept: int
    stored: int
    seconds: float
    images_per_second: float
    waiting: float
    model: float
    index: str
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class _Counts:
    done: int = 0
    ok: int = 0
    failed: int = 0
    skipped: int = 0
    kept: int = 0
    waiting: float = 0.0
    model: float = 0.0
    first_failure: str = ""
    warnings: list[str] = field(default_factory=list)


def embed(
    source: Path,
    store: Path,
    clip: ClipModel,
    *,
    batch_size: int = 64,
    workers: int = 2,
    mode: Mode = "resume",
    progress: Progress | None = None,
    part_rows: int = PART_ROWS,
) -> EmbedReport:
    """Embed every image below ``source`` into the store at ``store``, then build its index.

    ``resume`` adds new files, drops deleted ones and keeps what is unchanged; rows of other folders stay, as long as
    those folders exist. ``overwrite`` starts the images table afresh. The old table stays in force until the new one
    is complete, and an interrupted run goes on where it stopped. A file that cannot be decoded becomes a row with
    status ``failed``. Equal inputs give equal bytes, interrupted or not.
    Raises LanitError for a missing or empty folder, where no image can be decoded, for a store of another model, and
    for a store that another process is writing; the store is then as it was.
    """
    if batch_size < 1 or workers < 1 or part_rows < 1 or mode not in get_args(Mode):
        raise UsageError("--batch-size and --workers are at least 1, --mode is resume or overwrite", "Leave them out.")
    started = time.monotonic()
    listing = _list(source)
    source, store = source.resolve(), store.resolve()
    existed = store.exists()
    try:
        with lock_store(store):
            writer = PartWriter.open(store, clip, source, overwrite=mode == "overwrite")
            counts, dropped = _fill(writer, listing, clip, batch_size, workers, part_rows, progress)
            index = _index(Store.open(store), counts.warnings)
    finally:
        _remove_if_bare(store, existed)
    seconds = time.monotonic() - started
    counts.warnings.extend(f"the folder {folder} cannot be listed" for folder in listing.unreadable)
    return EmbedReport(
        store=str(store),
        source=str(source),
        device=str(clip.device),
        found=len(listing.paths),
        ok=counts.ok,
        failed=counts.failed,
        skipped=counts.skipped,
        dropped=dropped,
        ignored=listing.ignored,
        kept=counts.kept,
        stored=Store.open(store).ok,
        seconds=seconds,
        images_per_second=counts.ok / seconds,
        waiting=counts.waiting / seconds,
        model=counts.model / seconds,
        index=index,
        warnings=(*writer.warnings, *counts.warnings),
    )


def _list(source: Path) -> ImageListing:
    listing = list_some_images(source)
    if str(source.resolve()) != storable(str(source.resolve())):
        raise LanitError("the name of the folder is not valid UTF-8", "Rename it.")
    return listing


def _fill(
    writer: PartWriter,
    listing: ImageListing,
    clip: ClipModel,
    batch_size: int,
    workers: int,
    part_rows: int,
    progress: Progress | None,
) -> tuple[_Counts, int]:
    """Write every part and commit. Returns the counts, and how many rows of the old table are gone."""
    places = sorted([*((str(writer.source), path) for path in listing.paths), *writer.kept_places()])
    counts = _Counts()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        run = _Run(writer, clip, batch_size, pool, counts, progress, len(listing.paths))
        try:
            for start in range(0, len(places), part_rows):
                writer.add(run.rows(places[start : start + part_rows]))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if counts.ok + counts.skipped == 0:
        writer.discard()
        raise LanitError(
            f"none of the {len(listing.paths)} images in {writer.source} can be decoded ({counts.first_failure})",
            "Check the files; the store is as it was.",
        )
    return counts, writer.commit()


@dataclass
class _Run:
    """Turns places into rows: threads read, hash and decode ahead of the model, a bounded number of images."""

    writer: PartWriter
    clip: ClipModel
    batch_size: int
    pool: ThreadPoolExecutor
    counts: _Counts
    progress: Progress | None
    total: int

    def rows(self, places: Sequence[tuple[str, str]]) -> list[Row]:
        """One row per place. Batches end with the part, so that a resumed run forms the same ones."""
        rows: list[Row] = []
        batch: list[tuple[Row, Tensor]] = []
        for row, pixels in self._read(places):
            rows.append(row)
            if pixels is not None:
                batch.append((row, pixels))
            if len(batch) == self.batch_size:
                self._encode(batch)
                batch = []
        if batch:
            self._encode(batch)
        return rows

    def _read(self, places: Sequence[tuple[str, str]]) -> Iterator[tuple[Row, Tensor | None]]:
        ahead: deque[Future[tuple[Row, Tensor | None]]] = deque()
        upcoming = iter(places)
        for place in upcoming:
            ahead.append(self._submit(place))
            if len(ahead) < 2 * self.batch_size + _LOOKAHEAD:
                continue
            yield self._collect(ahead.popleft())
        while ahead:
            yield self._collect(ahead.popleft())

    def _submit(self, place: tuple[str, str]) -> Future[tuple[Row, Tensor | None]]:
        return self.pool.submit(read_place, *place, self.writer.find, self.clip.preprocessing, self.writer.source)

    def _collect(self, future: Future[tuple[Row, Tensor | None]]) -> tuple[Row, Tensor | None]:
        began = time.monotonic()
        row, pixels = future.result()
        counts = self.counts
        counts.waiting += time.monotonic() - began
        if row.source != str(self.writer.source):
            counts.kept += 1
            return row, pixels
        counts.done += 1
        if row.known is not None:
            counts.skipped += 1
        elif pixels is None:
            counts.failed += 1
            counts.first_failure = counts.first_failure or f"{row.path}: {row.error_message}"
        if self.progress is not None:
            self.progress(counts.done, self.total)
        return row, pixels

    def _encode(self, batch: list[tuple[Row, Tensor]]) -> None:
        """Fill in the embeddings of a batch."""
        began = time.monotonic()
        with torch.inference_mode():
            pixels = torch.stack([pixels for _, pixels in batch]).to(self.clip.device)
            embeddings = self.clip.encode_preprocessed(pixels).cpu().numpy()
        self.counts.model += time.monotonic() - began
        for (row, _), embedding in zip(batch, embeddings, strict=True):
            if np.isfinite(embedding).all():
                row.embedding, row.status = embedding, "ok"
                self.counts.ok += 1
            else:
                row.fail("its embedding is not finite")
                self.counts.failed += 1


def read_place(
    source: str,
    path: str,
    find: Callable[[str, str | None], KnownRow | None],
    preprocessing: ClipPreprocessing,
    current: Path,
) -> tuple[Row, Tensor | None]:
    """A row, with pixels to embed (float32 3×s×s) where its content is new. Runs in a thread; never raises."""
    name = image_id(source, path)
    if source != str(current):
        return Row(name, path, source, known=find(name, None)), None
    row = Row(name, path, source)
    try:
        if path != storable(path):
            raise ImageError("its name is not valid UTF-8")
        data = read_image_bytes(current / path)
        row.bytes, row.sha256 = len(data), sha256_bytes(data)
        row.known = find(name, row.sha256)
        if row.known is not None:
            return row, None
        image = decode_rgb(data)
        pixels = prepare(image, preprocessing)
    except (ImageError, MemoryError, RuntimeError) as error:  # torch says RuntimeError where memory runs out
        row.path = storable(path)
        row.fail(error.reason if isinstance(error, ImageError) else f"it cannot be resized ({error})")
        return row, None
    row.height, row.width = image.shape[:2]
    return row, pixels


def prepare(image: np.ndarray, preprocessing: ClipPreprocessing) -> Tensor:
    """CLIP input, float32 (3×s×s), of a decoded image, uint8 (H×W×3).

    One colour at a time: a photograph of 50 megapixels then needs 0.2 GB as floats and not 0.6. The result is the same.
    """
    colours = [
        preprocessing.resize(torch.from_numpy(image[None, None, :, :, colour]).float().div_(127.5).sub_(1))
        for colour in range(3)
    ]
    return preprocessing.normalise(torch.cat(colours, dim=1))[0]


def _index(store: Store, warnings: list[str]) -> str:
    try:
        if index_state(store) == "current":
            return "unchanged"
        build_index(store)
    except LanitError as error:
        warnings.append(f"no index was built: {error}")
        return "skipped"
    return "built"


def _remove_if_bare(store: Path, existed: bool) -> None:
    """After a run that wrote nothing, take away the folder it made for its lock."""
    if existed or not store.is_dir() or any(path.name != ".lock" for path in store.iterdir()):
        return
    (store / ".lock").unlink(missing_ok=True)
    store.rmdir()
