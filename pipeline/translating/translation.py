"""``lanit translate``: a trained model on images of any input, a file out for every image in, and tables with them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import pyarrow as pa

from lanit.errors import LanitError, UsageError
from pipeline.clip.models import ClipModel
from pipeline.computing.devices import pick_device
from pipeline.computing.timing import Tick, usable_processors
from pipeline.decoding.limits import MAX_PIXELS
from pipeline.files import sha256_file
from pipeline.inputs.places import Input
from pipeline.models.bundle import find_bundle, load_bundle
from pipeline.models.translator import Translator, load_labeller
from pipeline.translating.announcements import Announcements
from pipeline.translating.destination import Destination
from pipeline.translating.engine import Engine, Reader, Workshop, local_engine
from pipeline.translating.origins import given_names, open_origins, prefixes
from pipeline.translating.pictures import JPEG_SUFFIXES, KEPT_SUFFIXES, PictureWriter, import_av
from pipeline.translating.recipe import Kitchen, Look, Recipe, Resolver
from pipeline.translating.requests import TranslateRequest, parse_domains, parse_names, parse_references
from pipeline.translating.results import KIND, LABELS_NAME, SCHEMA_VERSION, TABLE_NAME, Row, Tables
from pipeline.translating.summary import recognised, write_grid
from pipeline.translating.worklist import Item, Naming, Plan, Worklist, tagged

if TYPE_CHECKING:
    from pipeline.computing.ray_cluster import Workforce

__all__ = [
    "TABLE_NAME", "TranslateOptions", "TranslateReport", "TranslateRequest", "parse_domains", "parse_names",
    "parse_references", "translate",
]  # fmt: skip

Format = Literal["same", "png", "jpeg"]
Progress = Callable[[int, int, str], None]
"""Called with (images done, images in all, where the time goes)."""

_GRID_ROWS = 16
_SHARES_AFTER = 5.0  # seconds


@dataclass(frozen=True)
class TranslateOptions:
    """How to translate; what is made of an image does not depend on it, but for the format.

    batch_size: images at once. workers: threads that read and write; none for one per processor. part_images: what a
    killed run may lose. max_pixels: larger images are refused. format: of the results; ``same`` keeps the names of
    JPEG, PNG, WebP, BMP and TIFF files and makes others PNG. margins: whether CLIP looks at the results, for the
    tables; before: at the sources too, as it does all the same where a request needs their labels. overwrite: replace
    earlier results of another run. image_column: of tables. Raises UsageError for values that make no sense.
    """

    batch_size: int = 32
    workers: int | None = None
    part_images: int = 256
    max_pixels: int = MAX_PIXELS
    format: Format = "same"
    margins: bool = True
    before: bool = False
    overwrite: bool = False
    image_column: str | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "workers", "part_images", "max_pixels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} is at least 1, not {value}", "Leave it out.")
        if self.format not in get_args(Format):
            raise UsageError(f"--format is same, png or jpeg, not {self.format}", "Leave it out.")
        if self.before and not self.margins:
            raise UsageError("--before and --no-margins contradict each other", "Leave one out.")

    @property
    def look(self) -> Look:
        """What CLIP is to look at."""
        return "both" if self.before else "results" if self.margins else "needed"


@dataclass(frozen=True)
class TranslateReport:
    """What a run did: found = ok + failed.

    ok: images whose results are all there, done_before of them from an earlier run. results: files. recognised: share
    of the requested labels that CLIP sees in the results; mixes: what stood in for phrases that are no domain.
    waiting, model, writing: shares of ``seconds``; seconds: of the run, loading the model left out; images_per_second:
    of the images translated now.
    """

    out: str
    model: str
    sources: tuple[str, ...]
    device: str
    found: int
    ok: int
    failed: int
    done_before: int
    results: int
    recognised: float | None
    mixes: dict[str, str]
    seconds: float
    images_per_second: float
    waiting: float
    model_share: float
    writing: float
    table: str
    labels: str
    grid: str | None
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def translate(
    source: str | Path | Sequence[str | Path],
    out: Path,
    model: str | Path,
    request: TranslateRequest,
    options: TranslateOptions | None = None,
    *,
    grid: Path | None = None,
    device: str = "auto",
    clip: str | None = None,
    force: Workforce | None = None,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> TranslateReport:
    """Translate the images of ``source``, one or several inputs or image files, into the folder ``out``.

    ``out`` gets a result for every image under its name, ``translations.csv`` and ``.parquet`` with a row for each, and
    ``labels.csv`` with the labels asked for, as ``lanit label --labels`` reads them. An image that cannot be read
    becomes a row with an error. An interrupted run is continued by the same call, and one that is finished takes up
    what is new. clip: spec of the CLIP that reads labels, the model's by default. force: a Ray cluster that does the
    work. tell: called with what a person should know before the work begins, such as what stands in for a phrase.
    Raises LanitError where nothing can be read, nothing is near a phrase, CLIP is not the one that the model was
    trained with, or ``out`` holds anything else; nothing is then written.
    """
    options = options or TranslateOptions()
    texts = [source] if isinstance(source, str | Path) else list(source)
    origins = open_origins(texts, out, options.image_column)
    if request.film == "mp4" and request.interpolate is not None:
        import_av()
    bundle = find_bundle(model)
    translator = Translator(load_bundle(bundle), pick_device("cpu" if force else device))
    run = _Run(origins, out, model, bundle, request, options, translator, clip, tell)
    run.prepare()
    run.fill(force, progress)
    if grid is not None:
        write_grid(grid, run.shown, out, run.reader())
    return run.report(grid)


class _Run:
    def __init__(
        self, origins: list[Input], out: Path, model: str | Path, bundle: Path, request: TranslateRequest,
        options: TranslateOptions, translator: Translator, clip: str | None, tell: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.origins, self.out, self.model, self.bundle, self.request, self.options = (
            origins, out, model, bundle, request, options
        )  # fmt: skip
        self.translator, self.clip_spec, self.tell = translator, clip, tell
        self.warnings: list[str] = []
        self.found = self.failed = self.results = self.done_before = self.done = self.settled = 0
        self.seen = self.wanted = 0
        self.first_failure = ""
        self.shown: list[tuple[Item, list[str]]] = []

    def prepare(self) -> None:
        """Everything that can be refused before anything is written."""
        load = partial(load_labeller, self.translator.bundle, self.clip_spec, self.translator.device)
        resolver = Resolver(self.translator, load, self.tell, self.options.max_pixels)
        self.recipe = resolver.resolve(self.request)
        self.mixes = resolver.mixes
        self.clip = self._clip(resolver)
        self.destination = Destination(self.out, self._identity(resolver), self.translator.domains)
        self.destination.check(self.options.overwrite)

    def _clip(self, resolver: Resolver) -> ClipModel | None:
        """What looks at images; none where it is not wanted, or not to be had and not needed."""
        if self.recipe.edits or (self.clip_spec is not None and self.options.margins):
            return resolver.clip()
        if not self.options.margins:
            return None
        try:
            return resolver.clip()
        except LanitError as error:
            self.tell(f"the tables will lack labels and margins, since no CLIP can be had: {error.message}")
            return None

    def _identity(self, resolver: Resolver) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION, "kind": KIND, "request": resolver.identity(self.request),
            "model": sha256_file(self.bundle / "model.safetensors"), "format": self.options.format,
            "clip": None if self.clip is None else self.clip.fingerprint.to_json(), "look": self.options.look,
            "sources": [name for origin in self.origins for name in given_names(origin)],
            "image_column": self.options.image_column,
        }  # fmt: skip

    def fill(self, force: Workforce | None, progress: Progress | None) -> None:
        """List the inputs, translate every image that is not done, and write the tables."""
        self.started = time.monotonic()
        destination = self.destination
        with destination.opened(self.options.overwrite):
            worklist = Worklist(destination.scratch)
            try:
                plan, earlier = self._plan(worklist)
                engine = self._engine(force, plan, partial(self._tick, progress))
                self.engine = engine
                if progress is not None:
                    progress(self.settled, self.total, "")
                with contextlib.closing(engine.tasks(plan)) as made:
                    for part in plan:
                        rows = self._complete(part, next(made) if any(item.to_do for item in part) else [])
                        self._count(part, destination.add(part, rows, earlier))
            finally:
                worklist.close()
            if self.found == self.failed:
                destination.discard()
                names = " and ".join(origin.source for origin in self.origins[:3])
                raise LanitError(
                    f"none of the {self.found} images in {names} can be read ({self.first_failure})",
                    "Give another folder.",
                )
            destination.commit()
        self.seconds = time.monotonic() - self.started

    def _plan(self, worklist: Worklist) -> tuple[Plan, Tables]:
        repeated = 0
        for origin in self.origins:
            repeated += worklist.find(origin)[1]
        if repeated:
            self.warnings.append(f"{repeated} names came twice: a file counts once, a tar's or table's image each")
        if not worklist.name(naming(self.options.format, self.request, self.recipe, self.origins)):
            names = " and ".join(origin.source for origin in self.origins[:3])
            raise LanitError(f"there are no images in {names}", "Give a folder with images, or one image.")
        tables = self.destination.begin(worklist, self.options.overwrite)
        worklist.ready()
        several = self.request.steps if self.recipe.frames is not None else self.recipe.results
        announce = partial(announce_results, self.destination.announced, result_tags(self.recipe))
        plan = Plan(worklist.images(), max(1, self.options.part_images // several), announce)
        self.total, self.settled = worklist.counts()
        return plan, tables

    def _engine(self, force: Workforce | None, plan: Plan, tick: Tick) -> Engine:
        options, destination = self.options, self.destination
        tags = result_tags(self.recipe)
        if force is not None:
            from pipeline.translating.ray_translate import RayEngine, TranslateJob

            job = TranslateJob(
                model=str(self.bundle.resolve()),
                model_sha256=destination.identity["model"],
                recipe=self.recipe,
                clip=self.clip_spec,
                look=options.look,
                fingerprint=None if self.clip is None else self.clip.fingerprint,
                sources=tuple((origin.source, origin.image_column) for origin in self.origins),
                out=str(self.out.resolve()),
                tags=tags,
                batch_size=options.batch_size,
                max_pixels=options.max_pixels,
                threads=options.workers or force.processors,
                processors=force.processors,
                device="cuda" if force.gpu else "cpu",
            )
            return RayEngine(job, force, tick)
        kitchen = Kitchen(self.translator, self.recipe, self.clip, options.look)
        writer = PictureWriter(self.out, destination.scratch)
        workers = options.workers or usable_processors()
        return local_engine(Workshop(kitchen, self.reader(), writer, tags), options.batch_size, workers, tick)

    def reader(self) -> Reader:
        inputs = {origin.source: origin for origin in self.origins}
        return Reader(inputs, self.translator.bundle.options.image_size, self.options.max_pixels)

    def _complete(self, part: Sequence[Item], rows: list[Row]) -> list[Row]:
        """Rows of the part in its order: those made now, and those of images whose name no table can hold."""
        if not any(item.badly_named and item.done is None for item in part):
            return rows
        of_item: dict[Item, list[Row]] = {}
        for row in rows:
            of_item.setdefault(row.item, []).append(row)
        for item in part:
            if item.badly_named and item.done is None:
                of_item[item] = [Row(item)]
                of_item[item][0].fail("its name is not valid UTF-8")
                self.settled += 1
        return [row for item in part if item in of_item for row in of_item[item]]

    def _count(self, part: Sequence[Item], table: pa.Table) -> None:
        bad = {}
        outputs: dict[tuple[str, str], list[str]] = {}
        columns = (table[name].to_pylist() for name in ("source", "path", "status", "output", "error_message"))
        for source, path, status, output, error in zip(*columns, strict=True):
            if status == "ok":
                outputs.setdefault((source, path), []).append(output)
            else:
                bad[source, path] = error
                self.first_failure = self.first_failure or f"{path}: {error}"
        self.found += len(part)
        self.failed += len(bad)
        self.results += sum(map(len, outputs.values()))
        self.done_before += sum(item.done is not None and (item.source, item.path) not in bad for item in part)
        for item in part:
            if len(self.shown) < _GRID_ROWS and (item.source, item.path) in outputs:
                self.shown.append((item, outputs[item.source, item.path]))
        seen, wanted = recognised(table, self.translator)
        self.seen, self.wanted = self.seen + seen, self.wanted + wanted

    def _tick(self, progress: Progress | None, images: int) -> None:
        self.settled += images
        self.done += images
        if progress is not None:
            progress(self.settled, self.total, self._shares())

    def _shares(self) -> str:
        seconds, timing = time.monotonic() - self.started, self.engine.timing
        if seconds < _SHARES_AFTER:
            return ""
        shares = {"decode": timing.waiting, "model": timing.model, "write": timing.writing}
        return " ".join(f"{name} {value / seconds:.0%}" for name, value in shares.items())

    def report(self, grid: Path | None) -> TranslateReport:
        timing = self.engine.timing
        own = [warning for origin in self.origins for warning in origin.warnings]
        mixes = {phrase: ", ".join(f"{name}={weight:g}" for name, weight in mix) for phrase, mix in self.mixes.items()}
        return TranslateReport(
            out=str(self.out),
            model=str(self.model),
            sources=tuple(origin.source for origin in self.origins),
            device=self.engine.device,
            found=self.found,
            ok=self.found - self.failed,
            failed=self.failed,
            done_before=self.done_before,
            results=self.results,
            recognised=self.seen / self.wanted if self.wanted else None,
            mixes=mixes,
            seconds=self.seconds,
            images_per_second=self.done / self.seconds,
            waiting=timing.waiting / self.seconds,
            model_share=timing.model / self.seconds,
            writing=timing.writing / self.seconds,
            table=str(self.out / TABLE_NAME),
            labels=str(self.out / LABELS_NAME),
            grid=str(grid) if grid else None,
            warnings=(*own, *self.engine.notes, *self.destination.notes, *self.warnings),
        )


def naming(format: Format, request: TranslateRequest, recipe: Recipe, origins: Sequence[Input]) -> Naming:
    """How the results of a request are called."""
    kept, suffix = KEPT_SUFFIXES, ".png"
    if recipe.frames is not None and request.film != "strip":
        kept, suffix = frozenset({f".{request.film}"}), f".{request.film}"
    elif format != "same":
        kept = JPEG_SUFFIXES if format == "jpeg" else frozenset({".png"})
        suffix = ".jpg" if format == "jpeg" else ".png"
    return Naming(kept, suffix, result_tags(recipe), prefixes(origins))


def announce_results(announced: Announcements, tags: Sequence[str], items: Sequence[Item]) -> None:
    """Write down the names of the results of ``items`` before they are made."""
    announced.add([tagged(item.output, tag) for item in items for tag in tags])


def result_tags(recipe: Recipe) -> tuple[str, ...]:
    """What tells the results of one image apart: nothing where there is one, else ``-style1`` and on."""
    count = recipe.results
    return ("",) if count == 1 else tuple(f"-style{number}" for number in range(1, count + 1))
