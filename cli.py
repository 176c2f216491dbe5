"""The command line: each command reads its options, calls the library and prints what it returns.

Nothing heavy is imported at the top: ``lanit --help`` must not wait for torch.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect as inspect_module  # a command has its name
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeVar

import typer
from typer.core import TyperGroup

from lanit.errors import LanitError, UsageError, disk_hint
from lanit.rules import SPELLINGS
from pipeline.clip.presets import PRESETS
from pipeline.commands import DEFAULT_STORE, STORE_VARIABLE, store_above
from pipeline.decoding.frames import parse_frame
from pipeline.decoding.limits import MAX_PIXELS
from pipeline.exports.layouts import LAYOUTS
from pipeline.showing.terminal_text import brief, visible
from pipeline.showing.volume import volume

if TYPE_CHECKING:
    from pipeline.labelling.label_sources import LabelRequest
    from pipeline.progress import Progress
    from pipeline.store.store import Store


class _Report(Protocol):
    """What a command found or did."""

    def to_json(self) -> dict[str, Any]: ...


_CONTINUED = ("embed", "import", "train", "export", "translate", "evaluate", "sample-faces")
"""Commands that go on where they were interrupted."""


_NOW = {
    ("label", "--k"): "Write it into the rule: --rule top-3",
    ("label", "--threshold"): "Write it into the rule: --rule fixed=0.25",
    ("embed", "--mode"): "Leave it out to go on, or start anew with --overwrite",
    ("export-model", "--force"): "It is called --overwrite",
    ("pull", "--force"): "It is called --overwrite",
}
"""Of each option of an earlier version, what to type now."""


@contextmanager
def _one_line_errors(ctx: Any) -> Iterator[None]:
    """The one place that turns an exception into a line on stderr and an exit code. LANIT_DEBUG=1 adds the traceback.

    ctx: the context of the whole call, which knows the command where one was found.
    """
    try:
        yield
    except LanitError as error:
        _fail(f"{brief(error.message)}. {error.hint}" if error.hint else brief(error.message), error.exit_code, error)
    except typer.TyperException as error:
        message = " ".join(error.format_message().split()).rstrip(".").replace("Value error, ", "")
        command = " ".join(["lanit", *filter(None, [ctx.invoked_subcommand])])
        now = _NOW.get((ctx.invoked_subcommand, getattr(error, "option_name", "")))
        _fail(f"{brief(message)}. {now or f'Try: {command} --help'}", error.exit_code, error)
    except KeyboardInterrupt as error:
        goal = " to continue" if ctx.invoked_subcommand in _CONTINUED else ""
        _fail(f"interrupted; run the same command again{goal}", 130, error)
    except EOFError as error:  # of a damaged file; Typer would take it for the end of what is typed, and say "Aborted!"
        command = " ".join(["lanit", *filter(None, [ctx.invoked_subcommand]), "…"])
        _fail(f"a file is cut short ({error}). LANIT_DEBUG=1 {command} shows which", 1, error)
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader of a pipe went away: Typer ends quietly
            raise
        name = f": {error.filename}" if error.filename else ""
        _fail(f"{error.strerror or error}{name}. {disk_hint(error)}", 1, error)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's; torch may not be imported here
            raise
        _fail("the GPU is out of memory. Try a smaller --batch-size or --size, or --device cpu.", 1, error)


def _fail(message: str, code: int, error: BaseException) -> None:
    if os.environ.get("LANIT_DEBUG", "0") not in ("", "0"):
        traceback.print_exception(error)
    typer.echo(f"error: {visible(message)}", err=True)
    raise typer.Exit(code)


def _check_encoding(arguments: list[str]) -> None:
    """Names that are not UTF-8 are refused here, of every option: tables, indexes and pages could not hold them."""
    for argument in arguments:
        if not _is_utf8(argument):
            raise UsageError(f"{visible(argument)} is not valid UTF-8", "Rename it, or give another name.")
    if arguments and not {"-h", "--help", "--version"} & {*arguments} and not _is_utf8(str(Path.cwd())):
        raise UsageError(f"the name of {visible(str(Path.cwd()))}, where you are, is not valid UTF-8", "Type: cd ~")


def _is_utf8(text: str) -> bool:
    return text == text.encode("utf-8", "replace").decode()


class _Group(TyperGroup):
    """Errors of options, of commands and of the library read alike, in a terminal and under CliRunner."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _one_line_errors(ctx):
            _check_encoding(args)
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with _one_line_errors(ctx):
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Group, rich_markup_mode=None, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip

DEFAULT_CLIP = "ViT-B-32/openai"
TRAIN_PRESETS = (
    "paper", "256", "256-few", "128", "128-few", "64", "64-few", "32", "32-few", "small-32", "small-64",
    "photos-64", "photos-64-few", "cyclegan", "discogan", "dualgan", "stargan", "unit", "distancegan", "selfreg", "dtn",
    "smoothing", "pix2pix", "bicyclegan",
)  # fmt: skip
"""Those of :mod:`pipeline.training.train_options`, which is too heavy for a shell that waits."""


def _store_of(ctx: typer.Context, store: Path) -> Path:
    """The store that was named, else the one here or in a folder above."""
    source = ctx.get_parameter_source("store")
    if ctx.resilient_parsing or source is None or source.name != "DEFAULT":
        return store
    return store_above(store)


def _complete_clip(incomplete: str) -> list[str]:
    return [name for name in (*PRESETS, "sample") if name.startswith(incomplete)]


def _complete_preset(incomplete: str) -> list[str]:
    return [name for name in TRAIN_PRESETS if name.startswith(incomplete)]


def _complete_prompts(incomplete: str) -> list[str]:
    from pipeline.prompts.prompt_sets import built_in_names

    return [name for name in built_in_names() if name.startswith(incomplete)]


def _complete_domain(ctx: typer.Context, incomplete: str) -> list[str]:
    """The phrases of the newest labels of the store; none where there are none."""
    from pipeline.store.store import Store

    try:
        domains = Store.open(store_above(ctx.params.get("store") or DEFAULT_STORE)).revision_file().domains
    except LanitError:
        return []
    return [domain for domain in domains if domain.startswith(incomplete)]


StoreOption = Annotated[
    Path, typer.Option("--store", envvar=STORE_VARIABLE, callback=_store_of, help="Folder of the store.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout instead of tables.")]
PageOption = Annotated[Path | None, typer.Option("--html", metavar="PAGE", help="Also write a page to look at.")]
ClipOption = Annotated[
    str | None,
    typer.Option("--clip", autocompletion=_complete_clip, help="CLIP to use, if not the one the store was made with."),
]
ModelClipOption = Annotated[
    str | None, typer.Option("--clip", help="Where to find the model's CLIP, if not where it was.")
]
ArchOption = Annotated[str | None, typer.Option("--clip-arch", help="open_clip architecture of a --clip weights file.")]
ModelOption = Annotated[str, typer.Option(help="A run, a model folder, owner/name on the hub, or sample.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:1; auto is CUDA where there is a GPU.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
EngineOption = Annotated[Literal["local", "ray"], typer.Option(help="Work here, or on a Ray cluster.")]
AddressOption = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="Ray cluster, or auto.  [default: auto, else a new one]")
]
ActorsOption = Annotated[int | None, typer.Option(min=1, help="Ray processes.  [default: one a GPU, else one a node]")]
RevisionOption = Annotated[int | None, typer.Option(help="Label revision.  [default: the newest]")]
BatchOption = Annotated[int, typer.Option("--batch-size", min=1, help="Images worked on at once.")]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Threads that read and write images.  [default: one a processor]")
]
PixelsOption = Annotated[int, typer.Option("--max-pixels", min=1, help="Refuse larger images.")]
_FRAME: dict[str, Any] = {"metavar": "N|middle", "parser": parse_frame}
_OF_SEVERAL = "Of files of several, such as DICOM; counted from 1."
StoredFrameOption = Annotated[
    Any, typer.Option(**_FRAME, help=f"{_OF_SEVERAL}  [default: the store's, else the file's]")
]
FrameOption = Annotated[Any, typer.Option(**_FRAME, help=f"{_OF_SEVERAL}  [default: the file's]")]
ColumnOption = Annotated[str | None, typer.Option("--image-column", help="Of a table with several columns of images.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
NewFolderOption = Annotated[Path, typer.Option("--out", "-o", help="New folder, which appears once it is whole.")]


@app.callback(invoke_without_command=True)
def _lanit(
    ctx: typer.Context, version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False
) -> None:
    """Multi-label image translation, learned from photographs without labels and a list of words.

    \b
    On your own photographs:
      lanit embed photos/
      lanit label --prompts prompts.txt --noun face
      lanit inspect-labels
      lanit train --out runs/first
      lanit translate photo.jpg --model runs/first --to "smiling" --out out/

    \b
    On the sample world, with nothing at hand:
      lanit demo

    The store is manifests, here or in a folder above, unless --store or LANIT_STORE names another. Of every command,
    -q leaves remarks and progress out, and -v logs what is done. LANIT_DEBUG=1 shows the traceback of an error.
    """
    if version:
        from importlib.metadata import PackageNotFoundError
        from importlib.metadata import version as installed

        try:
            typer.echo(f"lanit {installed('lanit')}")
        except PackageNotFoundError:
            typer.echo("lanit (not installed: run from its source)")
    elif ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@app.command(short_help="Embed images with CLIP: folders, tars, zips, tables, URLs.")
def embed(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Folders, .tar, .zip, .parquet, .csv, images, URLs; owner/name; - reads a list.",
        ),
    ],
    clip: Annotated[
        str | None,
        typer.Option(
            autocompletion=_complete_clip,
            help="A name of lanit models, sample, NAME/TAG, OWNER/NAME, file, folder.  [default: the store's, else "
            f"{DEFAULT_CLIP}]",
        ),
    ] = None,
    clip_arch: ArchOption = None,
    overwrite: OverwriteOption = False,
    forget: Annotated[
        list[str] | None,
        typer.Option(metavar="INPUT", help="Drop what the store has of another input; may be repeated."),
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try images again that failed before.")] = False,
    max_failures: Annotated[int | None, typer.Option(min=0, help="Stop where more images fail.")] = None,
    max_pixels: PixelsOption = MAX_PIXELS,
    image_column: ColumnOption = None,
    frame: StoredFrameOption = None,
    batch_size: BatchOption = 64,
    workers: WorkersOption = None,
    decode: Annotated[
        Literal["cpu", "gpu"], typer.Option(help="Where; gpu: JPEG by nvJPEG, with --device cuda.")
    ] = "cpu",
    precision: Annotated[
        Literal["fp32", "bf16"] | None, typer.Option(help="Of CLIP's image tower.  [default: the store's, else fp32]")
    ] = None,
    storage: Annotated[
        Literal["float32", "float16"] | None,
        typer.Option(help="Of embeddings on disk.  [default: the store's, else float32]"),
    ] = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    actors: ActorsOption = None,
    device: DeviceOption = "auto",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Embed every image of the inputs with CLIP, into a store of Parquet files.

    Running it again goes on where it was interrupted and embeds what is new or changed; moved files are recognised.
    What the store has of other inputs stays, even if they are away, until --forget names them, or --overwrite begins
    anew. An image that does not decode is kept as a row with its error. Tars and zips may be named by a pattern in
    quotes, tables hold paths of images or images themselves, and owner/name is a data set of the Hugging Face hub.

    \b
    Example:
      lanit embed photos/
      lanit embed faces/ --clip sample --store faces-store
      lanit embed "shards/{00000..00099}.tar" scans.parquet photos.zip s3://bucket/photos/ --workers 16
      lanit embed s3://bucket/photos/ --engine ray --address auto
    """
    from pipeline.inputs.listed import listed_inputs
    from pipeline.inputs.opening import open_inputs, understood
    from pipeline.showing import console
    from pipeline.store.clip_to_come import announce_clip
    from pipeline.store.store_folder import claim_store

    origins = open_inputs(listed_inputs(inputs), image_column)  # a mistyped name should not wait for a model to load
    console.notes(understood(origins))
    claim_store(store)
    announce_clip(store, clip, anew=overwrite)
    from pipeline.embedding.embed import EmbedOptions, embed_opened
    from pipeline.embedding.terminal_tables import show_embed, tell_model
    from pipeline.settings import engine_maker, workforce_of
    from pipeline.store.store_clip import clip_to_embed

    options = EmbedOptions(
        batch_size=batch_size, workers=workers, overwrite=overwrite, retry_failed=retry_failed,
        max_failures=max_failures, max_pixels=max_pixels, storage=storage, image_column=image_column, decode=decode,
        frame=frame, forget=tuple(forget or ()),
    )  # fmt: skip
    with workforce_of(engine, address, actors, device) as force:
        model = clip_to_embed(store, clip, clip_arch, precision, "cpu" if force else device, anew=overwrite)
        tell_model(model, force, store)
        make = engine_maker(force, model, options)
        with console.progress("embedding") as advance:
            report = embed_opened(origins, store, model, options, progress=advance, engine=make)
    _answer(report, show_embed, as_json, warnings=report.warnings)


@app.command("import", short_help="Take over embeddings that you already have.")
def import_(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="A folder of clip-retrieval, a .parquet, a .lance folder, or an .npy."),
    ],
    clip: Annotated[str, typer.Option(help="The CLIP that made them, as lanit embed takes it.")],
    images: Annotated[
        list[str] | None, typer.Argument(metavar="[IMAGES]...", help="Their images, as lanit embed takes them.")
    ] = None,
    clip_arch: ArchOption = None,
    paths: Annotated[
        str | None, typer.Option(metavar="FILE", help="Of an .npy: a table or text with the image of each row.")
    ] = None,
    embedding_column: Annotated[
        str | None, typer.Option("--embedding-column", help="Of a table with several columns of embeddings.")
    ] = None,
    image_column: Annotated[
        str | None, typer.Option("--image-column", help="Of a table: the column that names the images.")
    ] = None,
    overwrite: OverwriteOption = False,
    max_pixels: PixelsOption = MAX_PIXELS,
    frame: StoredFrameOption = None,
    batch_size: BatchOption = 64,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the images that are embedded again.")] = 0,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Take over embeddings that you already have, into a store as lanit embed makes it.

    200 of their images are embedded again, and the import is refused where one is below a cosine of 0.999 to what was
    given. Embeddings are paired with IMAGES by name: relative to a folder, or of a tar also as WebDataset's keys;
    without IMAGES a table names its own. Images without an embedding are embedded. Every image is read once, for its
    size and digest. lanit embed IMAGES later finds them unchanged.

    \b
    Example:
      lanit import laion/ "shards/{00000..00099}.tar" --clip ViT-B-32/openai
      lanit import photos.parquet --embedding-column clip --clip ViT-L-14/openai
      lanit import vectors.npy photos/ --paths paths.txt --clip ViT-B-32/openai
    """
    from pipeline.importing.import_vectors import ImportRequest, import_vectors
    from pipeline.showing import console
    from pipeline.store.clip_to_come import announce_clip
    from pipeline.store.store_folder import claim_store

    request = ImportRequest(source, tuple(images or ()), paths, embedding_column, image_column, seed)
    request.vectors()  # a mistyped name should not wait for a model to load
    claim_store(store)
    announce_clip(store, clip)
    from pipeline.embedding.embed import EmbedOptions
    from pipeline.importing.terminal_tables import show_import
    from pipeline.store.store_clip import clip_to_embed

    options = EmbedOptions(
        batch_size=batch_size, workers=workers, overwrite=overwrite, max_pixels=max_pixels, frame=frame
    )
    model = clip_to_embed(store, clip, clip_arch, None, device, anew=overwrite)
    with console.progress("importing") as advance:
        report = import_vectors(request, store, model, options, advance)
    _answer(report, show_import, as_json, warnings=report.warnings)


@app.command(short_help="Label the images by a list of phrases.")
def label(
    phrases: Annotated[
        list[str] | None,
        typer.Argument(metavar="PHRASE...", help="What to label by; - reads a prompt file from standard input."),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME",
            autocompletion=_complete_prompts,
            help="Prompt file, a set such as celeba-hq-10, or a run that learned prompts; - is standard input.",
        ),
    ] = None,
    noun: Annotated[str | None, typer.Option(help="What the images show, such as face: gives nine templates.")] = None,
    rule: Annotated[
        str | None,
        typer.Option(metavar="RULE", help=f"How similarities become labels: {SPELLINGS}, given.  [default: adaptive]"),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|folders", help="Labels by people, kept for every later revision too: a table of any kind."
        ),
    ] = None,
    from_folders: Annotated[
        bool, typer.Option("--from-folders", help="No prompts: label images by the folders they lie in.")
    ] = False,
    from_table: Annotated[
        Path | None, typer.Option(metavar="FILE", help="No prompts: label images by a table, annotations or a tar's.")
    ] = None,
    fill: Annotated[
        bool,
        typer.Option("--fill", help="Learn the labels that are not known from those that are, starting at the words."),
    ] = False,
    keep: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="SHARE", help="Of what is known, take that of a share of the images alone."),
    ] = None,
    clusters: Annotated[
        int | None,
        typer.Option(min=2, metavar="K", help="No prompts: K groups of look-alikes, one label for each image."),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(metavar="HOW", help="How to find clusters: k-means or mutual-information.  [default: k-means]"),
    ] = None,
    words: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Words to name clusters by; - reads them.  [default: built in]"),
    ] = None,
    without_people: Annotated[
        bool, typer.Option("--without-people", help="Leave the labels that people gave out of this revision.")
    ] = False,
    forget_people: Annotated[
        bool, typer.Option("--forget-people", help="Label nothing; forget every label that people gave.")
    ] = False,
    choose_template: Annotated[
        bool, typer.Option("--choose-template", help="Take other templates where labels are clearly more stable.")
    ] = False,
    choose_offsets: Annotated[
        bool,
        typer.Option("--choose-offsets", help="Give phrases offsets where labels are far more stable."),
    ] = False,
    learn_prompts: Annotated[
        bool,
        typer.Option(
            "--learn-prompts", help="Learn prompts from two crops of some images, if that is more stable. Experimental."
        ),
    ] = False,
    offsets_from_people: Annotated[
        bool, typer.Option("--offsets-from-people", help="Fit the offsets of phrases to the labels that people gave.")
    ] = False,
    views: Annotated[
        bool | None,
        typer.Option(
            "--views/--without-views",
            help="Embed two crops of some images, which tell how stable labels are.  [default: if it takes a minute]",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report what would change, and write nothing.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of --clusters and --keep.")] = 0,
    engine: EngineOption = "local",
    address: AddressOption = None,
    actors: ActorsOption = None,
    clip: ClipOption = None,
    clip_arch: ArchOption = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Label the embedded images by a list of phrases, as a new label revision.

    Phrases are given one by one, or in a prompt file, which has one a line; '#' starts a comment; 'noun: face',
    'template: a face with {}.' and 'base: a face.' say how phrases become sentences; 'smiling | offset=0.01' raises
    the bar of a phrase. The adaptive rule labels an image with a phrase where naming it describes the image better
    than not naming it. A table of labels (CSV, TSV, JSON Lines or a list, Parquet) names images in a column such as
    path or file_name, and has for each phrase a column of 1, 0 or nothing ("?" takes an earlier label back), or names
    classes in one called label; COCO, Label Studio's JSON, CVAT's XML and WebDataset tars will do too. One line says
    what it was taken for. Labels by people stay with the store and replace any other in later revisions too, of the
    same phrases, under every rule; the newest counts. Nothing is embedded again. Prompts that lanit train learned are
    given by their prompts.safetensors or its run. --fill learns labels that are not known from those that are, from a
    head on the embeddings that begins at the words. Clusters need no phrases: each group of look-alikes is named by the
    word that tells most of what sets it apart.

    \b
    Example:
      lanit label smiling "wearing hat" --noun face
      lanit label --prompts prompts.txt --noun face
      lanit label --prompts better.txt --dry-run
      lanit label --prompts prompts.txt --rule top-3
      lanit label --prompts prompts.txt --labels checked.csv
      lanit label --prompts runs/first
      lanit label --prompts prompts.txt --offsets-from-people
      lanit label --from-folders
      lanit label --from-table some.csv --fill
      lanit label --clusters 10 --noun face
    """
    from pipeline.labelling.label_sources import LabelRequest, cluster_source, label_source
    from pipeline.showing import console
    from pipeline.stability.views import Stabilise

    request = LabelRequest(
        phrases=tuple(phrases or ()), prompts=prompts, noun=noun, rule=rule, labels=labels, from_folders=from_folders,
        from_table=from_table, clusters=clusters, by=by, words=words, people=not without_people,
        offsets_from_people=offsets_from_people, fill=fill, keep=keep, seed=seed,
        stabilise=Stabilise(views=views, template=choose_template, offsets=choose_offsets, learn=learn_prompts),
    )  # fmt: skip
    if forget_people:
        return _forget_people(request, _open_store(store), dry_run, as_json)
    request.check()
    opened = _open_store(store)
    source = label_source(opened, request)
    from pipeline.inspection.label_report import label_and_report
    from pipeline.inspection.terminal_tables import show_label
    from pipeline.prompts.terminal_tables import warn_of_words
    from pipeline.settings import decider_of, workforce_of
    from pipeline.store.store_clip import clip_of

    model = clip_of(opened, clip, clip_arch, tell=console.note)
    prompt_set, how = source or cluster_source(opened, request, model)
    with workforce_of(engine, address, actors, "cpu") as force, console.progress("labelling") as advance:
        report = label_and_report(
            opened, model, prompt_set, replace(how, decide=decider_of(force, console.warn)), advance, dry_run=dry_run,
            stabilise=request.stabilise,
        )  # fmt: skip
    warn_of_words(report.unknown_words)
    _answer(report, show_label, as_json, warnings=report.warnings)


@app.command("inspect-labels", short_help="Report on labels; score them given truth.")
def inspect(
    revision: RevisionOption = None,
    truth: Annotated[
        str | None,
        typer.Option(metavar="FILE|folders", help="A table of labels as label --from-table takes it; or folders."),
    ] = None,
    rules: Annotated[
        str | None,
        typer.Option(metavar="RULES", help="Rules to set side by side, as label --rule takes them, by commas."),
    ] = None,
    compare: Annotated[
        tuple[int, int] | None, typer.Option(metavar="A B", help="Two revisions: which labels flipped, on what images.")
    ] = None,
    flips: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="With --compare: write every flip as CSV.")
    ] = None,
    augment: Annotated[
        int, typer.Option(min=0, metavar="N", help="Count labels that flip when N images are mirrored and cropped.")
    ] = 0,
    duplicates: Annotated[bool, typer.Option("--duplicates", help="Count near-duplicates and leakage.")] = False,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Exit with 1 below it: coverage, labels, smallest; with --truth f1, micro-f1, precision, recall, ap.",
        ),
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option(help="Ambiguous below this |margin|.  [default: 0.1 of the margins' standard deviation]"),
    ] = None,
    html: PageOption = None,
    seed: SeedOption = 0,
    clip: ClipOption = None,
    clip_arch: ArchOption = None,
    device: DeviceOption = "auto",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Report on a label revision: shares, margins, coverage, what goes together; warnings with the next thing to try.

    With --truth also scores, and what is mistaken for what. With folders, the folder that an image lies in names its
    domain.

    \b
    Example:
      lanit inspect-labels
      lanit inspect-labels --revision 1 --truth faces/truth.csv --json
      lanit inspect-labels --rules adaptive,top-2,fixed=0.25 --truth folders
      lanit inspect-labels --compare 1 2 --csv flips.csv
      lanit inspect-labels --html labels.html
      lanit inspect-labels --fail-under coverage=0.9 --fail-under smallest=100
    """
    from pipeline.inspection.inspect_labels import InspectOptions, inspect_store
    from pipeline.inspection.limits import check_limits, parse_limits
    from pipeline.inspection.terminal_tables import show_inspection
    from pipeline.showing import console

    limits = parse_limits(fail_under or [], scored=truth is not None)
    _check_page(html)
    options = InspectOptions(
        revision=revision, truth=truth, rules=rules, compare=compare, flips=flips, augment=augment,
        duplicates=duplicates, epsilon=epsilon, seed=seed, clip=clip, clip_architecture=clip_arch, device=device,
    )  # fmt: skip
    opened = _open_store(store)
    with console.progress("looking at images") as advance:
        report = inspect_store(opened, options, advance)

    def page(advance: Progress) -> str:
        from pipeline.inspection.page import label_page  # with Pillow, which the plain report does without

        return label_page(report, opened, seed=seed, progress=advance)

    _answer(report, show_inspection, as_json, html=html, page=page)
    check_limits(report.statistics, limits)


@app.command("suggest-prompts", short_help="Suggest words that the prompts lack.")
def suggest(
    revision: RevisionOption = None,
    vocabulary: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Words to choose from, one a line; - reads them.  [default: built in]"),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Words to suggest, at most.")] = 10,
    clusters: Annotated[int, typer.Option(min=1, help="Groups of images without a label, at most.")] = 8,
    html: PageOption = None,
    seed: SeedOption = 0,
    clip: ClipOption = None,
    clip_arch: ArchOption = None,
    device: DeviceOption = "auto",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Suggest words for what the prompts of a label revision leave unsaid, each with images that show it.

    A word scores by how far it beats the base prompt and what the present prompts lead to expect, over all images,
    those without a label first. Those are also shown in groups of look-alikes. No image is embedded again.

    \b
    Example:
      lanit suggest-prompts
      lanit suggest-prompts --html suggestions.html
      lanit suggest-prompts --vocabulary my-words.txt --top 20
    """
    from pipeline.showing import console

    _check_page(html)
    opened = _open_store(store)
    from pipeline.store.store_clip import clip_of
    from pipeline.suggestion.suggest import SuggestOptions, suggest_prompts
    from pipeline.suggestion.terminal_tables import show_suggestions
    from pipeline.words.vocabulary import read_vocabulary

    words = read_vocabulary(vocabulary)
    model = clip_of(opened, clip, clip_arch, device, tell=console.note)
    options = SuggestOptions(top=top, clusters=clusters, seed=seed)
    with console.progress("reading words", "words") as advance:
        report = suggest_prompts(opened, model, words, revision, options, advance)

    def page(advance: Progress) -> str:
        from pipeline.suggestion.suggest_page import suggestions_page

        return suggestions_page(report, opened)

    _answer(report, show_suggestions, as_json, html=html, page=page)


@app.command(short_help="Find images by words or by an example.")
def search(
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="Words, as a caption would have them.")] = None,
    image: Annotated[Path | None, typer.Option(metavar="FILE", help="An example instead of words.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Images to show.")] = 20,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            metavar="DOMAIN",
            autocompletion=_complete_domain,
            help="Only images with this label, of the newest; may be repeated.",
        ),
    ] = None,
    html: PageOption = None,
    clip: ClipOption = None,
    clip_arch: ArchOption = None,
    device: DeviceOption = "auto",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Find the images nearest to a text, or to an image, by the embeddings of the store.

    \b
    Example:
      lanit search "a striped cat"
      lanit search "a photo of a cat" --label "black fur" --top 50 --html cats.html
      lanit search --image example.jpg
    """
    from pipeline.showing import console

    _check_page(html)
    opened = _open_store(store)
    from pipeline.prompts.terminal_tables import warn_of_words
    from pipeline.searching.search import check_query
    from pipeline.searching.search import search as search_store
    from pipeline.searching.terminal_tables import show_search
    from pipeline.store.store_clip import clip_of

    check_query(text, image)
    device = "cpu" if device == "auto" and image is None else device  # one text is read before a GPU is up
    model = clip_of(opened, clip, clip_arch, device, precision=opened.fingerprint.precision, tell=console.note)
    report = search_store(opened, model, text=text, image=image, top=top, labels=labels or (), tell=console.note)
    warn_of_words(report.unknown_words)

    def page(advance: Progress) -> str:
        from pipeline.searching.gallery import search_page  # with Pillow and torch, which the plain report does without

        return search_page(report, opened)

    _answer(report, show_search, as_json, html=html, page=page)


@app.command(short_help="Find near-duplicates, and images two folders share.")
def duplicates(
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Cosine from which on two images look alike, and are compared.  [default: 0.9; the sample CLIP's 0.7]"
        ),
    ] = None,
    between: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="A B", help="Only images of B that are in A too: folders, tars or beginnings of paths."),
    ] = None,
    every_pair: Annotated[
        bool, typer.Option("--every-pair", help="Compare each image with each, however long that takes.")
    ] = False,
    html: PageOption = None,
    table: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Also write all groups as CSV.")] = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Find groups of images of the same content or the same picture; or what two folders share.

    The embeddings tell which images look alike; these are opened, and their pixels decide. Found are pictures resized,
    encoded anew, mirrored, or cropped by a twentieth of a side. In a group each image is the same as each other one.
    A higher --threshold opens fewer images; at 1 nothing but equal images is found. Nothing is deleted.

    \b
    Example:
      lanit duplicates --html duplicates.html
      lanit duplicates --threshold 0.95 --csv duplicates.csv
      lanit duplicates --between photos/train photos/val
    """
    from pipeline.showing import console

    _check_page(html)
    opened = _open_store(store)
    from pipeline.searching.duplicates import find_duplicates, write_duplicates
    from pipeline.searching.gallery import duplicates_page
    from pipeline.searching.terminal_tables import show_duplicates

    with console.progress("comparing") as advance:
        report = find_duplicates(opened, threshold, between, every_pair=every_pair, progress=advance)
    if table is not None:
        write_duplicates(report, table)
        console.note(f"all groups: {table}")
    _answer(
        report, show_duplicates, as_json, warnings=report.warnings, html=html,
        page=lambda _: duplicates_page(report, opened),
    )  # fmt: skip


@app.command(short_help="List CLIPs worth using, for --clip.")
def models(device: DeviceOption = "auto", as_json: JsonOption = False) -> None:
    """List CLIPs worth using, by the names that --clip takes, with what is known of them and how fast they are here.

    Images a second are estimated: from what the image tower has to compute for one, and from how fast this machine
    computed a moment ago. Decoding large photographs may take longer than that. Any other CLIP that open_clip has works
    too: NAME/TAG, a repository of the Hugging Face hub, a folder or a file.

    \b
    Example:
      lanit models
      lanit embed photos/ --clip good
    """
    from pipeline.clip.model_list import list_models
    from pipeline.prompts.terminal_tables import show_models

    _answer(list_models(device), show_models, as_json)


@app.command(short_help="Build the index of the embeddings, or another kind.")
def index(
    kind: Annotated[
        Literal["auto", "flat", "ivf", "pq"], typer.Option(help="flat: exact; ivf: lists; pq: lists of short codes.")
    ] = "auto",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Build the FAISS index of the embeddings where it does not fit them, or one of another kind.

    lanit search and other commands build it when they first need it; this is for doing so before, or another kind.

    auto compares every image up to a million, and above that the nearest of some thousand lists (ivf). pq keeps a
    code of each embedding, a sixteenth of its size; lanit search then reads the embeddings of the best. The store
    keeps to the kind asked for.

    \b
    Example:
      lanit index
      lanit index --kind pq
    """
    opened = _open_store(store)
    from pipeline.searching.terminal_tables import show_index
    from pipeline.store.index import rebuild_index

    _answer(rebuild_index(opened, kind), show_index, as_json)


@app.command(short_help="Note which images are to become which, for paired training.")
def pair(
    given: Annotated[
        list[str], typer.Argument(metavar="FROM TO | FILE", help="Two folders of equal names, or a table.")
    ],
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Note which images of a store are to become which: pairs, for lanit train --preset pix2pix or bicyclegan.

    FROM and TO are folders of the store, as lanit label --from-folders names them; files of equal names, suffixes
    apart, are pairs. FILE is a table with columns image_path and target_path, relative to it or absolute; its images
    are embedded before, by their folder. lanit evaluate tells how near translations come to the partners.

    \b
    Example:
      lanit embed sketches/ photos/
      lanit pair sketches photos
      lanit label --from-folders
      lanit train --out runs/drawn --preset pix2pix
      lanit pair pairs.csv
    """
    opened = _open_store(store)
    from pipeline.labelling.pairs import pair as pair_images
    from pipeline.labelling.terminal_tables import show_pairs

    _answer(pair_images(opened, given), show_pairs, as_json)


@app.command(short_help="Train a translator on the labels, or continue a run.")
def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run; an interrupted run there is continued.")],
    preset: Annotated[
        str,
        typer.Option(
            autocompletion=_complete_preset,
            help="Options to start from: paper; 256, 128, 64, 32; for few images 256-few, 128-few, 64-few, 32-few; "
            "for a CPU small-64, small-32, photos-64, photos-64-few; systems as below. Several with commas: "
            "small-64,cyclegan.",
        ),
    ] = "paper",
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Options to start from instead: a run's config.json, or TOML of your own."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="How to learn: stargan is LANIT's, from labels; tunit and style-aware need none; content and one-shot "
            "learn one word.  [default: stargan]"
        ),
    ] = None,
    clusters: Annotated[int | None, typer.Option(help="How many tunit and style-aware find.  [default: 10]")] = None,
    present: Annotated[
        str | None, typer.Option(metavar="WORD", help="For --method content and one-shot: the word that it learns.")
    ] = None,
    example: Annotated[
        Path | None, typer.Option("--from", metavar="IMAGE", help="For --method one-shot: the one image.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Image side, pixels, a power of two from 32 on.")] = None,
    steps: Annotated[int | None, typer.Option(help="Iterations in all.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Minutes of training after which to stop.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images in a step.")] = None,
    rate: Annotated[float | None, typer.Option("--learning-rate", help="Of Adam, for the networks.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same result.  [default: 0]")] = None,
    log_every: Annotated[int | None, typer.Option(help="Steps between lines of metrics.")] = None,
    sample_every: Annotated[int | None, typer.Option(help="Steps between sample grids.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any other option; may be repeated.")
    ] = None,
    log: Annotated[
        Literal["tensorboard", "trackio", "wandb"] | None,
        typer.Option(help="Tell this of every line and grid too; each is an extra of its name."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the resolved options as JSON and stop.")] = False,
    revision: RevisionOption = None,
    clip: ClipOption = None,
    clip_arch: ArchOption = None,
    device: DeviceOption = "auto",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Train a translator between the labelled domains; the same command continues an interrupted run.

    The run folder holds its options, metrics (JSON lines), sample grids, checkpoints, and in model/ what
    lanit translate needs; best/ is the model of the best evaluation.

    \b
    What you have                what to take
    words                        lanit label smiling …; no preset: LANIT
    a few labels, and words      lanit label --from-table some.csv --fill; no preset
    all labels                   lanit label --from-table all.csv, or --from-folders; --set domain=0: StarGAN v2
    two folders, unpaired        lanit embed A B, lanit label --from-folders; stargan, cyclegan, discogan, dualgan,
                                 unit, distancegan, selfreg, dtn; smoothing (several styles)
    pairs                        and lanit pair A B; pix2pix, bicyclegan (several styles)
    no words, no labels          nothing: --method tunit --clusters 10 finds groups; style-aware, by prototypes
    Presets of systems do that system's job with lanit's networks: docs/METHODS.md.

    \b
    Example:
      lanit train --out runs/faces
      lanit train --out runs/hats --preset small-64,cyclegan
      lanit train --out runs/small --preset small-64 --minutes 30
      lanit train --out runs/faces --set domain=1.0 --set prompts_from=1
      lanit train --out runs/kinds --method tunit --clusters 10
      lanit train --out runs/glasses --method content --present eyeglasses
      lanit train --out runs/faces --log tensorboard
      lanit train --out runs/again --config runs/faces/config.json --seed 1
      torchrun --nproc-per-node 4 --no-python lanit train --out runs/faces
    """
    from pipeline.models.run_folder import check_run_folder
    from pipeline.settings import merge_settings, train_on
    from pipeline.showing import console
    from pipeline.training.processes import launched_rank
    from pipeline.training.terminal_tables import show_train
    from pipeline.training.train_config import resolved_options
    from pipeline.training.train_options import all_settings

    named: dict[str, float | str | None] = {
        "size": size, "steps": steps, "minutes": minutes, "batch_size": batch_size, "learning_rate": rate, "seed": seed,
        "log_every": log_every, "sample_every": sample_every, "method": method, "clusters": clusters,
        "present": present, "example": None if example is None else str(example),
    }  # fmt: skip
    options = resolved_options(config, preset, merge_settings(all_settings(), settings or [], named))
    if dry_run:
        return console.print_json(options.to_json())
    if not (rank := launched_rank()):  # of several processes the first speaks, and looks after the folder
        check_run_folder(out)  # before hours of decoding
    with console.silent(when=rank > 0):
        report = train_on(_open_store(store), out, options, clip, clip_arch, revision, device, log)
        _answer(report, show_train, as_json)
    if report.interrupted:
        raise typer.Exit(130) if rank else KeyboardInterrupt


@app.command(short_help="Show training runs side by side.")
def runs(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="[FOLDER]...", help="Runs, or folders of runs.  [default: runs]")
    ] = None,
    html: PageOption = None,
    watch: Annotated[
        float | None, typer.Option(min=1, metavar="SECONDS", help="With --html: write the page again and again.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show training runs side by side: how far they are, how fast, their best, and the options in which they differ.

    The page has their curves and their grids of translations over time. With --watch it is written again every so many
    seconds, and reloads itself, until Ctrl-C.

    \b
    Example:
      lanit runs
      lanit runs runs/first runs/second
      lanit runs runs/first --html first.html --watch 30
    """
    from pipeline.runs.run_list import list_runs
    from pipeline.runs.terminal_tables import show_runs

    if watch is not None and html is None:
        raise UsageError("--watch writes a page again and again", "Add --html runs.html, or leave it out.")
    _check_page(html)
    named = folders or [Path("runs")]
    found = list_runs(named)

    def page(advance: Progress) -> str:
        from pipeline.runs.page import runs_page

        return runs_page(found, reload=watch)

    _answer(found, show_runs, as_json, warnings=found.warnings, html=html, page=page)
    if watch is not None and html is not None:
        from pipeline.runs.page import keep_writing

        keep_writing(named, html, watch)


@app.command(short_help="Translate images to phrases or to a reference's style.")
def translate(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Images, folders, .tar, tables, or URLs; - reads a list.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for a file per image, and the tables.")],
    model: ModelOption,
    to: Annotated[str, typer.Option(help="Domains of the result, with weights: 'smiling, bangs=0.5'.")] = "",
    add: Annotated[str, typer.Option(help="Domains to add to each image's own labels.")] = "",
    remove: Annotated[str, typer.Option(help="Domains to take from each image's own labels.")] = "",
    reference: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[DOMAINS=]IMG|FOLDER",
            help="Whose style to take, of a folder the mean; for some domains only: 'bangs=b.jpg'. May be repeated.",
        ),
    ] = None,
    styles: Annotated[int, typer.Option(help="Results of each image, in as many styles.")] = 1,
    interpolate: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="A B", help="The way from A to B: domains as for --to, or images, or folders."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Pictures on that way, both ends included.  [default: 8]")] = None,
    film: Annotated[
        Literal["strip", "gif", "mp4"] | None,
        typer.Option("--as", help="How to store them; mp4 needs the extra video.  [default: strip]"),
    ] = None,
    format: Annotated[
        Literal["same", "png", "jpeg"], typer.Option(help="Of results; same: JPEG of JPEG, and so on.")
    ] = "same",
    margins: Annotated[
        bool, typer.Option("--margins/--no-margins", help="Whether CLIP looks at the results, for the tables.")
    ] = True,
    before: Annotated[bool, typer.Option("--before", help="CLIP looks at the originals too, for the tables.")] = False,
    overwrite: OverwriteOption = False,
    grid: Annotated[Path | None, typer.Option(help="PNG with sources beside translations.")] = None,
    seed: SeedOption = 0,
    batch_size: BatchOption = 32,
    workers: WorkersOption = None,
    max_pixels: PixelsOption = MAX_PIXELS,
    frame: FrameOption = None,
    image_column: ColumnOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    actors: ActorsOption = None,
    clip: ModelClipOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Translate images to other domains with a trained model: one file per image, same name, and tables.

    --to gives all domains of the result. --add and --remove change the labels that CLIP reads in each image. A phrase
    that is no domain stands for the domains nearest to it by CLIP, which are shown first, or is refused. A result is
    the middle square of its image, at the size that the model was trained for. The same command continues an
    interrupted run.

    \b
    Example:
      lanit translate photos/ --model runs/faces --to "smiling, eyeglasses" --out translated/
      lanit translate face.png --model sample --add "wearing hat" --remove bangs --out translated/
      lanit translate shards.tar --model runs/faces --to "smiling, bangs" --reference bangs=styles/ --out translated/
      lanit translate photos/ --model runs/faces --to smiling --styles 3 --out translated/ --grid grid.png
      lanit translate photos/ --model sample --interpolate "black hair" "blond hair, smiling" --as gif --out way/
    """
    from pipeline.inputs.listed import listed_inputs
    from pipeline.settings import workforce_of
    from pipeline.showing import console
    from pipeline.translating.requests import (
        TranslateRequest,
        interpolation_options,
        parse_domains,
        parse_names,
        parse_references,
    )
    from pipeline.translating.terminal_tables import show_translate
    from pipeline.translating.translation import TranslateOptions
    from pipeline.translating.translation import translate as translate_images

    whole, single = parse_references(reference or [])
    points, stored = interpolation_options(interpolate is not None, steps, film)
    request = TranslateRequest(
        to=parse_domains(to), add=parse_names(add), remove=parse_names(remove), reference=whole, references=single,
        seed=seed, styles=styles, interpolate=interpolate, steps=points, film=stored,
    )  # fmt: skip
    options = TranslateOptions(
        batch_size=batch_size, workers=workers, max_pixels=max_pixels, format=format, margins=margins, before=before,
        overwrite=overwrite, image_column=image_column, frame=frame,
    )  # fmt: skip
    with workforce_of(engine, address, actors, device) as force, console.progress("translating") as advance:
        report = translate_images(
            listed_inputs(inputs), out, model, request, options, grid=grid, device=device, clip=clip, workforce=force,
            progress=advance, tell=console.warn,
        )  # fmt: skip
    _answer(report, show_translate, as_json, warnings=report.warnings)


@app.command(short_help="A page to try a model on: drop a picture, tick words.")
def play(
    model: ModelOption = "sample",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where the page is served; 0 is any free port.")] = 7860,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets the whole network in.")] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Another name that browsers reach the page by; repeatable.")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(help="Store the model learned from: pictures to pick, and a warning of others unlike them."),
    ] = None,
    clip: ModelClipOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Serve a page to try a model on: drop a picture, see its labels, tick words or weigh them, see it redrawn.

    The page also takes the style of another picture, and draws several styles side by side. It needs the extra
    play, works without a network, sends nothing anywhere, and forgets the pictures when it ends.

    It answers to localhost, to its own addresses and to --host only, and opens nothing but what was dropped on it.
    Names that it has in a network or behind a proxy are given by --allow-host.

    \b
    Example:
      lanit play
      lanit play --model runs/first --store manifests --port 8000
      lanit play --host 0.0.0.0 --allow-host lab.example.org
    """
    from pipeline.play.server import PlayOptions
    from pipeline.play.server import play as serve
    from pipeline.serving.listening import is_local
    from pipeline.showing import console

    if not is_local(host):
        console.warn(f"whoever reaches {host} can use the page, and there is no password")
    names = tuple(allow_host or ())
    options = PlayOptions(model=model, host=host, port=port, allow_hosts=names, store=store, clip=clip, device=device)
    serve(options, lambda address: console.served(address, as_json=as_json))


@app.command(short_help="See every image, press a key, and the labels get better.")
def review(
    store: StoreOption = DEFAULT_STORE,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Prompt file that phrases tried on the page are added to.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where the page is served; 0 is any free port.")] = 7861,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets the whole network in.")] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Another name that browsers reach the page by; repeatable.")
    ] = None,
    clip: ClipOption = None,
    clip_arch: ArchOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve a page with every image of a store and its labels: look, press a key, go on to the next.

    What is pressed is a label by a person: on the disk before the page shows it, and kept by every later labelling.
    The page says what to look at first, how good each phrase is by a random sample of its own, with intervals, and
    which threshold the answers suggest; one press makes that a revision. It searches by words and by images, tries new
    phrases, and draws a map. Keys do it all ("?" lists them); so do mouse and touch. It needs
    the extra review, works without a network and sends nothing anywhere.

    It answers to localhost, to its own addresses and to --host only, as lanit play does.

    \b
    Example:
      lanit review
      lanit review --store manifests --prompts prompts.txt
      lanit review --host 0.0.0.0 --allow-host lab.example.org
    """
    from pipeline.review.server import ReviewOptions
    from pipeline.review.server import review as serve
    from pipeline.serving.listening import is_local
    from pipeline.showing import console

    if not is_local(host):
        console.warn(f"whoever reaches {host} can see the images and change their labels, and there is no password")
    options = ReviewOptions(store=store, host=host, port=port, allow_hosts=tuple(allow_host or ()), prompts=prompts,
                            clip=clip, clip_architecture=clip_arch)  # fmt: skip
    serve(options, lambda address: console.served(address, as_json=as_json))


@app.command(short_help="Let language models ask a store, over MCP.")
def mcp(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Runs whose evaluations may be read.")
    ] = None,
    clip: ClipOption = None,
    clip_arch: ArchOption = None,
    device: DeviceOption = "auto",
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Serve three tools over the Model Context Protocol, on standard input and output: search, inspect_labels, and
    evaluation, which tells what lanit evaluate last found of a run. They answer what the commands print with --json.

    They read this store and these runs and nothing else, and write nothing. It needs the extra mcp.

    \b
    Example:
      lanit mcp
      lanit mcp runs/first runs/second --store manifests
    """
    from pipeline.agents.server import serve
    from pipeline.agents.tools import AgentOptions

    serve(AgentOptions(runs=tuple(runs or ()), store=store, clip=clip, clip_architecture=clip_arch, device=device))


@app.command(short_help="Measure trained models, or two folders of images.")
def evaluate(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Folders of runs, side by side; or sample.")
    ] = None,
    real: Annotated[
        str | None, typer.Option(metavar="DIR", help="Instead of runs: the real images; with --fake.")
    ] = None,
    fake: Annotated[str | None, typer.Option(metavar="DIR", help="Images to compare with them.")] = None,
    styles: Annotated[int, typer.Option(min=1, help="Translations of each source to each domain.")] = 10,
    sources: Annotated[int, typer.Option(min=0, help="Images to translate, drawn; 0 for all.")] = 500,
    guide: Annotated[
        Literal["latent", "reference", "both"], typer.Option(help="Where styles come from: random codes, images.")
    ] = "both",
    real_images: Annotated[int, typer.Option(min=0, help="Real images of a domain at most, drawn; 0 for all.")] = 10000,
    bootstrap: Annotated[int, typer.Option(min=0, help="Samples for the intervals; 0 for none.")] = 100,
    features: Annotated[Literal["clip", "inception", "dinov2"], typer.Option(help="What distances are of.")] = "clip",
    match_size: Annotated[
        bool, typer.Option("--match-size", help="Embed the real images at the model's size too.")
    ] = False,
    inception_weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="torch-fidelity's.  [default: torch's cache]")
    ] = None,
    dinov2_weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="timm's or the authors'.  [default: torch's cache]")
    ] = None,
    lpips_weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="torchvision's AlexNet.  [default: torch's cache]")
    ] = None,
    judge: Annotated[
        str | None, typer.Option(metavar="CLIP", help="Another CLIP to judge by; sample-world for drawn faces.")
    ] = None,
    truth: Annotated[
        str | None, typer.Option(metavar="FILE|folders", help="Score the labels too; clusters by true class.")
    ] = None,
    revision: RevisionOption = None,
    tables: Annotated[bool, typer.Option("--all", help="Print all tables after the summary.")] = False,
    html: PageOption = None,
    batch_size: BatchOption = 64,
    seed: SeedOption = 0,
    clip: ModelClipOption = None,
    device: DeviceOption = "auto",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Measure trained models on the images of a store, or compare two folders of images.

    Drawn sources are translated to every domain that they lack and compared with the images that carry it: Fréchet
    distance (its mean over domains is the mFID), KID, CMMD, density and coverage; accuracy, whether the domain is
    recognised; kept, whether the others are recognised as in the source; how far is a translation from its source, how
    different are those of one source. Distances are of CLIP's features, which the store holds; Inception, DINOv2 and
    LPIPS need weights that you have as files. The same command goes on where it was interrupted. Two folders are
    compared as a whole, and by subfolders of the same name.

    \b
    Example:
      lanit evaluate runs/first
      lanit evaluate runs/a runs/b --html report.html
      lanit evaluate runs/first --store test-store --sources 0 --json
      lanit evaluate --real photos/ --fake translated/
    """
    of_runs = {"--judge": judge, "--truth": truth, "--revision": revision, "--lpips-weights": lpips_weights}
    _check_page(html)
    folders = _folders_to_compare(runs or [], real, fake, of_runs)
    from pipeline.computing.devices import pick_device
    from pipeline.evaluation.evaluate import Tools, evaluate_runs, extractor_of_folders
    from pipeline.evaluation.folders import evaluate_folders
    from pipeline.evaluation.options import EvaluationOptions
    from pipeline.evaluation.page import evaluation_page, folders_page
    from pipeline.evaluation.summary import show_folder_result, show_result
    from pipeline.showing import console

    options = EvaluationOptions(
        styles=styles, sources=sources, guide=guide, real=real_images, bootstrap=bootstrap, match_size=match_size,
        seed=seed, batch_size=batch_size,
    )  # fmt: skip
    tools = Tools(
        features=features, inception_weights=inception_weights, dinov2_weights=dinov2_weights,
        lpips_weights=lpips_weights, judge=judge, clip=clip, device=pick_device(device),
    )  # fmt: skip
    if folders is not None:
        with console.progress("reading") as advance:
            compared = evaluate_folders(*folders, extractor_of_folders(tools, store), options, progress=advance)
        return _answer(
            compared, lambda found: show_folder_result(found, tables=tables), as_json, warnings=compared.warnings,
            html=html, page=lambda _: folders_page(compared),
        )  # fmt: skip
    with console.progress("translating") as advance:
        result = evaluate_runs(
            runs or [], _open_store(store), options, tools, revision=revision, truth=truth,
            with_examples=html is not None, progress=advance, tell=console.warn,
        )  # fmt: skip
    _answer(
        result, lambda found: show_result(found, tables=tables), as_json, warnings=result.warnings, html=html,
        page=lambda _: evaluation_page(result),
    )  # fmt: skip


@app.command(short_help="Write the store for other tools: webdataset, datasets, ….")
def export(
    to: Annotated[str, typer.Option(metavar=f"[{'|'.join(LAYOUTS)}]", help="What to write.")],
    out: NewFolderOption,
    revision: RevisionOption = None,
    only_labelled: Annotated[bool, typer.Option("--only-labelled", help="Leave out images without a label.")] = False,
    files: Annotated[
        Literal["copy", "hardlink", "symlink"] | None,
        typer.Option(help="How images get into folders; from tars and tables always copied.  [default: copy]"),
    ] = None,
    pairs: Annotated[
        str, typer.Option(metavar="DOMAIN|A,B", help="trainA: without it, or A alone; trainB: with it, or B alone.")
    ] = "",
    margins: Annotated[bool, typer.Option("--margins", help="Columns of margins too, in csv.")] = False,
    embeddings: Annotated[
        bool, typer.Option("--embeddings", help="The embedding of each image too, in webdataset and huggingface.")
    ] = False,
    shard_size: Annotated[int | None, typer.Option(min=1, help="MB of a tar or Parquet file.  [default: 500]")] = None,
    overwrite: OverwriteOption = False,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Write embedded images with their labels in a layout that other tools read; image files are never encoded again.

    clip-retrieval: embeddings and metadata, for clip-retrieval index and autofaiss. webdataset: tars. huggingface: a
    folder for datasets.load_dataset. folders: one for each domain, for ImageFolder; an image is in that of each of its
    labels. csv: a column of 0 and 1 for each domain. coco, label-studio: images beside annotations.json or tasks.json.
    fiftyone: a FiftyOneImageClassificationDataset. lance: images with embeddings. embedding-atlas: the
    same, with a column for each label and margin. The same command continues an
    interrupted export.

    \b
    Example:
      lanit export --to webdataset --out shards/
      lanit export --to folders --out classes/ --only-labelled --files hardlink
      lanit export --to folders --out glasses/ --pairs "eyeglasses"
      lanit export --to csv --out table/ --margins
      lanit export --to label-studio --out review/
    """
    from pipeline.exports.layouts import ExportRequest, parse_pairs
    from pipeline.showing import console

    request = ExportRequest(
        to=to, revision=revision, only_labelled=only_labelled, files=files, pairs=parse_pairs(pairs), margins=margins,
        embeddings=embeddings, shard_mb=shard_size,
    )  # fmt: skip
    opened = _open_store(store)
    from pipeline.exports.export import export as export_store
    from pipeline.exports.terminal_tables import show_export

    with console.progress("exporting") as advance:
        report = export_store(opened, out, request, overwrite=overwrite, progress=advance)
    _answer(report, show_export, as_json, warnings=report.warnings)


@app.command("export-model", short_help="Write a trained model as a folder to share.")
def export_model(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run, a model folder, owner/name, or sample.")],
    out: NewFolderOption,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="The networks as ONNX too, compared with torch.  [needs the extra onnx]")
    ] = False,
    half: Annotated[bool, typer.Option("--half", help="Weights in float16: half the size.")] = False,
    licence: Annotated[
        str | None, typer.Option("--license", metavar="ID", help="For the card, such as apache-2.0.")
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(metavar="OWNER/NAME", help="For the card: what it learned from, on the hub; may be repeated."),
    ] = None,
    example: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="Pictures, or a folder, to show before and after; may be repeated."),
    ] = None,
    clip: ModelClipOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a trained model as a folder that lanit.load and every --model read: weights, prompts, domains, model card.

    --onnx adds the generator, the style encoder and the mapping network for use without torch; networks.json, which
    says what they take and how styles are mixed; and translate.html, a page that translates in a browser and needs no
    network. Card and page show the pictures that you name by --example, no others; of drawn faces, drawn ones.

    \b
    Example:
      lanit export-model runs/first --out first/
      lanit export-model runs/first/best --out first/ --half --onnx --overwrite
      lanit export-model runs/first --out first/ --license cc-by-4.0 --example a.jpg --example b.jpg
    """
    from pipeline.model_exports.export_model import export_model as export
    from pipeline.model_exports.terminal_tables import show_export_model
    from pipeline.showing import console

    report = export(
        model, out, onnx=onnx, half=half, license=licence, datasets=dataset or (), examples=example or (), clip=clip,
        overwrite=overwrite, note=console.note,
    )  # fmt: skip
    _answer(report, show_export_model, as_json)


@app.command(short_help="Send an exported model to the Hugging Face hub.")
def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What lanit export-model wrote.")],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="On the hub; made if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Only for you; a public repository is refused.")] = False,
    space: Annotated[bool, typer.Option("--space", help="Send the page of lanit play for it, as a Space.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="With --space: write it there to look at, and send nothing."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Send an exported model to the Hugging Face hub, as one commit. Log in before, with: hf auth login

    --space sends a page to try it on instead, with the model and lanit's source in it, as a Space.

    \b
    Example:
      lanit push first/ owner/first --private
      lanit push first/ owner/first-page --space --out page/
      lanit push first/ owner/first-page --space
    """
    from pipeline.clip.hub import parse_repository
    from pipeline.model_exports.sharing import push as push_model
    from pipeline.model_exports.terminal_tables import show_push

    report = push_model(folder, parse_repository(repository), private=private, space=space, out=out)
    _answer(report, show_push, as_json)


@app.command(short_help="Fetch an exported model from the Hugging Face hub.")
def pull(
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="On the hub; @REVISION may follow.")],
    out: NewFolderOption,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch an exported model from the Hugging Face hub into a folder. --model owner/name needs no pull.

    \b
    Example:
      lanit pull owner/first --out first/
    """
    from pipeline.clip.hub import parse_repository
    from pipeline.model_exports.sharing import pull as pull_model
    from pipeline.model_exports.terminal_tables import show_pull

    report = pull_model(parse_repository(repository), out, overwrite=overwrite)
    _answer(report, show_pull, as_json)


@app.command(short_help="All of it on the sample world, ending in a page.")
def demo(
    minutes: Annotated[float, typer.Option(help="Minutes of training, on whatever machine this is.")] = 6.0,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for all of it.")] = Path("demo"),
    overwrite: OverwriteOption = False,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Draw faces, embed, label, inspect, train from scratch for some minutes, translate: ends with a page to open.

    \b
    Example:
      lanit demo
      lanit demo --minutes 1 --out quick-demo --overwrite
    """
    from pipeline.sample_world.demo import run_demo
    from pipeline.showing import console

    with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):
        report = run_demo(minutes, out, seed, device=device, overwrite=overwrite)
    if as_json:
        console.print_json(report.to_json())


@app.command("sample-faces", short_help="Draw faces of the sample world, with truth.")
def sample_faces(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder.")],
    count: Annotated[int, typer.Option(help="Faces to draw.")] = 2000,
    size: Annotated[int, typer.Option(help="Width and height, pixels.")] = 64,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Draw faces of the sample world into a folder, with their truth in truth.csv. The same command completes what was
    interrupted.

    \b
    Example:
      lanit sample-faces faces/ --count 2000
      lanit embed faces/ --clip sample
      lanit label --prompts sample-faces
      lanit inspect-labels --truth faces/truth.csv
    """
    from pipeline.sample_world.dataset import write_faces
    from pipeline.showing import console

    truth = write_faces(out, count, seed, size, tell=console.note)
    if as_json:
        console.print_json({"out": str(out), "count": count, "size": size, "seed": seed, "truth": str(truth)})
    else:
        console.say(f"{count:,} faces of {size} px in {out}, their truth in {truth}")


@app.command(short_help="What this machine has, what is missing, what to type.")
def doctor(store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """Look at versions, devices, the cache of models, the network, extras and the store: what is missing for what, and
    what to type. Nothing is loaded, written or fetched. Exits with 1 where something is wrong.

    \b
    Example:
      lanit doctor
      lanit doctor --json
    """
    from pipeline.doctor.checks import examine
    from pipeline.doctor.terminal_tables import show_examination

    found = examine(store)
    _answer(found, show_examination, as_json)
    if found.problems:
        raise typer.Exit(1)


def _folders_to_compare(
    runs: list[str], real: str | None, fake: str | None, of_runs: Mapping[str, object]
) -> tuple[str, str] | None:
    """The folders of ``--real`` and ``--fake``; none where runs are named. of_runs: options that go with runs, given or
    none."""
    if real is None and fake is None:
        if not runs:
            raise UsageError(
                "nothing to evaluate",
                "Name a run, or sample: lanit evaluate sample. Or two folders, by --real and --fake.",
            )
        return None
    if real is None or fake is None:
        raise UsageError(
            "--real and --fake go together",
            f"Give both: --real {shlex.quote(real or 'DIR')} --fake {shlex.quote(fake or 'DIR')}",
        )
    others = [*runs, *(name for name, value in of_runs.items() if value is not None)]
    if others:
        raise UsageError(
            f"{others[0]} does not go with --real and --fake",
            f"Leave it out: --real {shlex.quote(real)} --fake {shlex.quote(fake)}",
        )
    return real, fake


def _forget_people(request: LabelRequest, store: Store, dry_run: bool, as_json: bool) -> None:
    """request: what else was asked for, which is to be nothing."""
    from pipeline.labelling.label_sources import LabelRequest
    from pipeline.labelling.people import forget_answers, read_people
    from pipeline.showing import console

    if request != LabelRequest():
        raise UsageError("--forget-people labels nothing", "Give it without the options that do.")
    count = read_people(store).kept if dry_run else forget_answers(store)
    if as_json:
        return console.print_json({"forgotten": count, "dry_run": dry_run})
    number, would_be = "an unknown number of" if count is None else f"{count:,}", "would be " if dry_run else ""
    console.say(f"{number} labels by people {would_be}forgotten; revisions keep those they show")


_R = TypeVar("_R", bound=_Report)


def _answer(
    report: _R,
    show: Callable[[_R], None],
    as_json: bool,
    *,
    warnings: Sequence[str] = (),
    html: Path | None = None,
    page: Callable[[Progress], str] = lambda advance: "",
) -> None:
    """Warnings on stderr, the page where ``--html`` asks for one, and on stdout the report: as one JSON object, or as
    ``show`` prints it. page: makes it, called with what tells how far its thumbnails are."""
    from pipeline.showing import console

    for warning in warnings:
        console.warn(warning)
    if html is not None:
        from pipeline.showing.pages import write_page

        with console.progress("thumbnails") as advance:
            text = page(advance)
        write_page(html, text)
        console.note(f"page: {html} ({len(text.encode()) / 1e6:.1f} MB)")
    if as_json:
        console.print_json(report.to_json())
    else:
        show(report)


def _check_page(path: Path | None) -> None:
    """Raise UsageError where ``--html`` names no page, before any work is done for it."""
    if path is not None:
        from pipeline.showing.pages import check_page

        check_page(path)


def _open_store(folder: Path) -> Store:
    from pipeline.store.store import Store

    return Store.open(folder)


def _with_volume(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` with the options -q and -v, which every command has."""
    extra = {
        "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no remarks; warnings stay.")],
        "verbose": Annotated[bool, typer.Option("--verbose", "-v", help="Log on stderr what is done.")],
    }

    @functools.wraps(command)
    def called(*args: Any, quiet: bool, verbose: bool, **named: Any) -> None:
        with volume(quiet=quiet, verbose=verbose):
            command(*args, **named)

    signature = inspect_module.signature(command, eval_str=True)
    added = [
        inspect_module.Parameter(name, inspect_module.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in extra.items()
    ]
    vars(called)["__signature__"] = signature.replace(parameters=[*signature.parameters.values(), *added])
    called.__annotations__ = {each.name: each.annotation for each in vars(called)["__signature__"].parameters.values()}
    return called


for registered in app.registered_commands:
    if registered.callback is not None:
        registered.callback = _with_volume(registered.callback)


def main() -> None:
    """Entry point of the ``lanit`` command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no reason to stop
    app(prog_name="lanit")


if __name__ == "__main__":
    main()
