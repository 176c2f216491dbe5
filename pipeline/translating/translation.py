"""``lanit translate``: a trained model on images of any input, a file out for every image in, and tables with them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pyarrow as pa

from lanit.errors import LanitError, UsageError
from pipeline.clip.models import ClipModel
from pipeline.computing.devices import pick_device
from pipeline.computing.engines import Engine
from pipeline.computing.part_plan import PartPlan
from pipeline.computing.timing import Meter, usable_processors
from pipeline.decoding.frames import Frame
from pipeline.decoding.limits import MAX_PIXELS
from pipeline.files import sha256_file
from pipeline.inputs.catalogue import of_repeated, some_names
from pipeline.inputs.places import Input
from pipeline.models.bundle import find_bundle, load_bundle
from pipeline.models.translator import Translator, load_labeller
from pipeline.progress import Progress
from pipeline.translating.naming import Format, announce_results, naming_of, result_tags
from pipeline.translating.origins import given_names, open_origins
from pipeline.translating.pictures import import_av
from pipeline.translating.recipe import Look, Recipe, Resolver
from pipeline.translating.requests import TranslateRequest, Words, parse_domains, parse_names, parse_references
from pipeline.translating.results import KIND, LABELS_NAME, SCHEMA_VERSION, TABLE_NAME, Tables
from pipeline.translating.source_images import SourceImage
from pipeline.translating.summary import recognised, write_grid
from pipeline.translating.translating_steps import Reader, TranslateJob, local_engine
from pipeline.translating.translations_folder import TranslationsFolder
from pipeline.translating.worklist import Worklist

if TYPE_CHECKING:
    from pipeline.computing.ray_cluster import Workforce

__all__ = [
    "TABLE_NAME", "TranslateOptions", "TranslateReport", "TranslateRequest", "parse_domains", "parse_names",
    "parse_references", "translate",
]  # fmt: skip


_GRID_ROWS = 16


@dataclass(frozen=True)
class TranslateOptions:
    """How to translate; what is made of an image does not depend on it, but for the format and the frame.

    batch_size: images at once. workers: threads that read and write; none for one per processor. part_images: what a
    killed run may lose. max_pixels: larger images are refused. format: of the results; ``same`` keeps the names of
    JPEG, PNG, WebP, BMP and TIFF files and makes others PNG. margins: whether CLIP looks at the results, for the
    tables; before: at the sources too, as it does all the same where a request needs their labels. overwrite: replace
    earlier results of another run. image_column: of tables. frame: of files that have several, of references too; none
    for the one that the file names, else the first. Raises UsageError for values that make no sense.
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
    frame: Frame | None = None

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
    of the requested labels that the ``reader`` sees in the results: CLIP, or the model's guiding network. mixes: what
    stood in for phrases that are no domain.
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
    reader: str
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
    workforce: Workforce | None = None,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> TranslateReport:
    """Translate the images of ``source``, one or several inputs or image files, into the folder ``out``.

    ``out`` gets a result for every image under its name, ``translations.csv`` and ``.parquet`` with a row for each, and
    ``labels.csv`` with the labels asked for, as ``lanit label --labels`` reads them. An image that cannot be read
    becomes a row with an error. An interrupted run is continued by the same call, and one that is finished takes up
    what is new. clip: spec of the CLIP that reads labels, the model's by default. workforce: a Ray cluster that does
    the work. tell: called with what a person should know before the work begins, such as what stands in for a phrase.
    Raises LanitError where nothing can be read, nothing is near a phrase, CLIP is not the one that the model was
    trained with, or ``out`` holds anything else; nothing is then written.
    """
    options = options or TranslateOptions()
    texts = [source] if isinstance(source, str | Path) else list(source)
    origins = open_origins(texts, out, options.image_column)
    if request.film == "mp4" and request.interpolate is not None:
        import_av()
    bundle = find_bundle(model)
    translator = Translator(load_bundle(bundle), pick_device("cpu" if workforce else device))
    prepared = _prepare(origins, out, bundle, translator, request, options, clip, workforce, tell)
    meter = Meter(progress)
    counts = _fill(prepared, meter)
    report = _report(prepared, counts, meter, str(model), grid)
    if grid is not None:
        write_grid(grid, counts.shown, out, prepared.reader)
    return report


@dataclass(frozen=True)
class _Prepared:
    """A run, of which all that can be refused was, before anything is written. mixes: what stands in for phrases that
    are no domain."""

    origins: list[Input]
    translator: Translator
    request: TranslateRequest
    options: TranslateOptions
    recipe: Recipe
    mixes: dict[str, Words]
    folder: TranslationsFolder
    reader: Reader
    engine: Engine[SourceImage]


@dataclass
class _Counts:
    """What became of the images; see :class:`TranslateReport`. made: images translated now. seen, wanted: labels asked
    for that are seen in the results, and all where anything looked. shown: images and results for the grid."""

    found: int = 0
    failed: int = 0
    results: int = 0
    done_before: int = 0
    made: int = 0
    seen: int = 0
    wanted: int = 0
    first_failure: str = ""
    shown: list[tuple[SourceImage, list[str]]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, part: Sequence[SourceImage], table: pa.Table, translator: Translator) -> None:
        """table: the rows of a part."""
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
        self.made += sum(image.to_do for image in part)
        self.done_before += sum(image.done is not None and (image.source, image.path) not in bad for image in part)
        for image in part:
            if len(self.shown) < _GRID_ROWS and (image.source, image.path) in outputs:
                self.shown.append((image, outputs[image.source, image.path]))
        seen, wanted = recognised(table, translator)
        self.seen, self.wanted = self.seen + seen, self.wanted + wanted


def _prepare(
    origins: list[Input],
    out: Path,
    bundle: Path,
    translator: Translator,
    request: TranslateRequest,
    options: TranslateOptions,
    clip_spec: str | None,
    workforce: Workforce | None,
    tell: Callable[[str], None],
) -> _Prepared:
    load = partial(load_labeller, translator.bundle, clip_spec, translator.device)
    resolver = Resolver(translator, load, tell, options.max_pixels, options.frame)
    recipe = resolver.resolve(request)
    clip = _labeller(resolver, recipe, options.margins, clip_spec, tell)
    sha256 = sha256_file(bundle / "model.safetensors")
    identity = {
        "schema_version": SCHEMA_VERSION, "kind": KIND, "request": resolver.identity(request),
        "model": sha256, "format": options.format,
        "clip": None if clip is None else clip.fingerprint.to_json(), "look": options.look,
        "sources": [name for origin in origins for name in given_names(origin)],
        "image_column": options.image_column,
    } | ({} if options.frame is None else {"frame": options.frame})  # fmt: skip
    folder = TranslationsFolder(out, identity, translator.domains)
    folder.check(options.overwrite)
    processors = workforce.processors if workforce else usable_processors()
    job = TranslateJob(
        model=str(bundle.resolve()),
        model_sha256=sha256,
        recipe=recipe,
        clip=clip_spec,
        look=options.look,
        fingerprint=None if clip is None else clip.fingerprint,
        sources=tuple((origin.source, origin.image_column) for origin in origins),
        out=str(out.resolve() if workforce else out),
        tags=result_tags(recipe),
        batch_size=options.batch_size,
        max_pixels=options.max_pixels,
        frame=options.frame,
        threads=options.workers or processors,
        processors=processors,
        device="cuda" if workforce and workforce.gpu else str(translator.device),
    )
    reader = Reader.of(job, {origin.source: origin for origin in origins}, translator.bundle.options.image_size)
    if workforce is None:
        engine: Engine[SourceImage] = local_engine(job, translator, clip, reader)
    else:
        from pipeline.translating.ray_translate import ray_engine

        engine = ray_engine(job, workforce)
    return _Prepared(origins, translator, request, options, recipe, resolver.mixes, folder, reader, engine)


def _labeller(
    resolver: Resolver, recipe: Recipe, margins: bool, clip_spec: str | None, tell: Callable[[str], None]
) -> ClipModel | None:
    """The CLIP that looks at images; none where it is not wanted, or not to be had and not needed."""
    if resolver.translator.guide is not None:
        return None
    if recipe.edits or (clip_spec is not None and margins):
        return resolver.clip()
    if not margins:
        return None
    try:
        return resolver.clip()
    except LanitError as error:
        tell(f"the tables will lack labels and margins, since no CLIP can be had: {error.message}")
        return None


def _fill(prepared: _Prepared, meter: Meter) -> _Counts:
    """List the inputs, translate every image that is not done, and write the tables."""
    counts, folder = _Counts(), prepared.folder
    with folder.opened(prepared.options.overwrite):
        worklist = Worklist(folder.scratch)
        try:
            plan, earlier = _plan(prepared, worklist, counts.warnings)
            meter.total, meter.done = worklist.counts()
            meter.tick(0)
            with contextlib.closing(prepared.engine.parts(plan, meter)) as parts:
                for part in parts:
                    counts.add(part, folder.add(part, earlier), prepared.translator)
                    if badly_named := sum(image.badly_named and image.done is None for image in part):
                        meter.tick(badly_named)
        finally:
            worklist.close()
        if counts.found == counts.failed:
            folder.discard()
            names = some_names(prepared.origins)
            message = f"none of the {counts.found} images in {names} can be read ({counts.first_failure})"
            raise LanitError(message, "Give another folder.")
        folder.commit()
    return counts


def _plan(prepared: _Prepared, worklist: Worklist, warnings: list[str]) -> tuple[PartPlan[SourceImage], Tables]:
    """What there is to do, and the tables that have the rest. Raises LanitError where there are no images."""
    options, recipe, origins = prepared.options, prepared.recipe, prepared.origins
    warnings += of_repeated(sum(worklist.find(origin)[1] for origin in origins))
    if not worklist.name(naming_of(options.format, prepared.request, recipe, origins)):
        message = f"there are no images in {some_names(origins)}"
        raise LanitError(message, "Give a folder with images, or one image.")
    earlier = prepared.folder.begin(worklist, options.overwrite)
    worklist.ready()
    several = prepared.request.steps if recipe.frames is not None else recipe.results
    announce = partial(announce_results, prepared.folder.announced, result_tags(recipe))
    return PartPlan(worklist.images(), max(1, options.part_images // several), announce), earlier


def _report(prepared: _Prepared, counts: _Counts, meter: Meter, model: str, grid: Path | None) -> TranslateReport:
    out, engine, timing, seconds = prepared.folder.out, prepared.engine, meter.timing, meter.seconds
    own = [warning for origin in prepared.origins for warning in origin.warnings]
    return TranslateReport(
        out=str(out),
        model=model,
        sources=tuple(origin.source for origin in prepared.origins),
        device=engine.device,
        found=counts.found,
        ok=counts.found - counts.failed,
        failed=counts.failed,
        done_before=counts.done_before,
        results=counts.results,
        recognised=counts.seen / counts.wanted if counts.wanted else None,
        reader=prepared.translator.reader,
        mixes={name: ", ".join(f"{one}={weight:g}" for one, weight in mix) for name, mix in prepared.mixes.items()},
        seconds=seconds,
        images_per_second=counts.made / seconds,
        waiting=timing.waiting / seconds,
        model_share=timing.model / seconds,
        writing=timing.writing / seconds,
        table=str(out / TABLE_NAME),
        labels=str(out / LABELS_NAME),
        grid=str(grid) if grid else None,
        warnings=(*own, *engine.notes, *prepared.folder.notes, *counts.warnings),
    )
