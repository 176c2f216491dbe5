"""The command line: each command reads its options, calls the library and prints what it returns.

Nothing heavy is imported at the top: ``lanit --help`` must not wait for torch.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from lanit.errors import LanitError

if TYPE_CHECKING:
    from pipeline.store import Store


@contextmanager
def _one_line_errors(ctx: Any) -> Iterator[None]:
    """The one place that turns an exception into a line on stderr and an exit code. LANIT_DEBUG=1 adds the traceback.

    ctx: the context of the whole call, which knows the command where one was found.
    """
    try:
        yield
    except LanitError as error:
        _fail(str(error), error.exit_code, error)
    except typer.TyperException as error:
        message = " ".join(error.format_message().split()).rstrip(".").replace("Value error, ", "")
        command = " ".join(["lanit", *filter(None, [ctx.invoked_subcommand])])
        _fail(f"{message}. Try: {command} --help", error.exit_code, error)
    except KeyboardInterrupt as error:
        goal = " to continue" if ctx.invoked_subcommand in ("embed", "train") else ""
        _fail(f"interrupted; run the same command again{goal}", 130, error)
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader of a pipe went away: Typer ends quietly
            raise
        name = f": {error.filename}" if error.filename else ""
        _fail(f"{error.strerror or error}{name}. Check the disk and its permissions.", 1, error)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's; torch may not be imported here
            raise
        _fail("the GPU is out of memory. Try a smaller --batch-size or --size, or --device cpu.", 1, error)


def _fail(message: str, code: int, error: BaseException) -> None:
    if os.environ.get("LANIT_DEBUG", "0") not in ("", "0"):
        traceback.print_exception(error)
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(code)


class _Group(TyperGroup):
    """Errors of options, of commands and of the library read alike, in a terminal and under CliRunner."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _one_line_errors(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with _one_line_errors(ctx):
            return super().invoke(ctx)


app = typer.Typer(cls=_Group, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

StoreOption = Annotated[Path, typer.Option("--store", help="Folder of the store.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout instead of tables.")]
ClipOption = Annotated[str | None, typer.Option("--clip", help="CLIP to use, if not the one the store was made with.")]
ArchOption = Annotated[str | None, typer.Option("--clip-arch", help="open_clip architecture of a --clip weights file.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:1; auto is CUDA where there is a GPU.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
RevisionOption = Annotated[int | None, typer.Option(help="Label revision; the newest by default.")]
RuleName = Literal["adaptive", "top-k", "fixed", "argmax"]
DEFAULT_STORE = Path("manifests")
DEFAULT_CLIP = "ViT-B-32/openai"


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

    LANIT_DEBUG=1 shows the traceback of an error.
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


@app.command(short_help="Embed a folder of images with CLIP.")
def embed(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of images, read with all its subfolders.")],
    clip: Annotated[str, typer.Option(help="sample, NAME/TAG, weights file, folder, hf-hub:ORG/NAME.")] = DEFAULT_CLIP,
    clip_arch: ArchOption = None,
    mode: Annotated[Literal["resume", "overwrite"], typer.Option(help="Keep what is there, or start anew.")] = "resume",
    batch_size: Annotated[int, typer.Option(min=1, help="Images encoded at once.")] = 64,
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode images.")] = 2,
    device: DeviceOption = "auto",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Embed every image of a folder with CLIP, into a store of Parquet files and a FAISS index.

    Running it again embeds what is new or changed. An image that does not decode is kept as a row with its error.

    \b
    Example:
      lanit embed photos/
      lanit embed faces/ --clip sample --store faces-store
    """
    from pipeline import console
    from pipeline.images import list_some_images

    found = len(list_some_images(source).paths)  # a mistyped or empty folder should not wait for a model to load
    from pipeline.clip_models import load_clip
    from pipeline.embed import embed as embed_folder
    from pipeline.report_tables import show_embed
    from pipeline.training_run import pick_device

    model = load_clip(clip, pick_device(device), clip_arch)
    console.note(f"{found:,} images in {source}; CLIP {model.spec} on {model.device}; store {store}")
    with console.progress("embedding") as advance:
        report = embed_folder(source, store, model, batch_size=batch_size, workers=workers, mode=mode, progress=advance)
    for warning in report.warnings:
        console.warn(warning)
    if as_json:
        console.print_json(report.to_json())
    else:
        show_embed(report)


@app.command(short_help="Label the images by a list of phrases.")
def label(
    prompts: Annotated[str, typer.Option(metavar="FILE|NAME", help="Prompt file, or a set such as celeba-hq-10.")],
    noun: Annotated[str | None, typer.Option(help="What the images show, such as face: gives nine templates.")] = None,
    rule: Annotated[RuleName, typer.Option(help="How similarities become labels.")] = "adaptive",
    k: Annotated[int | None, typer.Option(help="Labels per image, for --rule top-k.  [default: 2]")] = None,
    threshold: Annotated[float | None, typer.Option(help="Cosine, for --rule fixed.  [default: 0.25]")] = None,
    clip: ClipOption = None,
    clip_arch: ArchOption = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Label the embedded images by a list of phrases, as a new label revision.

    A prompt file has one phrase a line; '#' starts a comment; 'noun: face', 'template: a face with {}.' and
    'base: a face.' say how phrases become sentences. The adaptive rule labels an image with a phrase where naming it
    describes the image better than not naming it. Nothing is embedded again.

    \b
    Example:
      lanit label --prompts prompts.txt --noun face
      lanit label --prompts celeba-hq-10
      lanit label --prompts prompts.txt --rule top-k --k 3
    """
    from pipeline import console
    from pipeline.prompt_sets import read_prompt_set

    prompt_set = read_prompt_set(prompts, noun)
    opened = _open_store(store)
    from pipeline.label import label as label_store
    from pipeline.report_tables import show_label, warn_of_words
    from pipeline.settings import clip_of, make_rule

    chosen = make_rule(rule, k, threshold)
    model = clip_of(opened, clip, clip_arch)
    with console.progress("labelling") as advance:
        report = label_store(opened, model, prompt_set, chosen, advance)
    warn_of_words(report.unknown_words)
    if as_json:
        console.print_json(report.to_json())
    else:
        show_label(report)


@app.command("inspect-labels", short_help="Report on labels; score them given truth.")
def inspect(
    revision: RevisionOption = None,
    truth: Annotated[
        Path | None, typer.Option(help="CSV or Parquet: column path (or image_id), one of 0/1 per domain.")
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option(help="Ambiguous below this |margin|.  [default: 0.1 of the margins' standard deviation]"),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Report on a label revision: shares, margins, coverage, prompts that never or always fire; scores given truth.

    \b
    Example:
      lanit inspect-labels
      lanit inspect-labels --revision 1 --truth faces/truth.csv --json
    """
    from pipeline import console
    from pipeline.inspect_labels import inspect_labels, read_truth
    from pipeline.label_table import show_statistics

    labels = _open_store(store).labels(revision)
    known = read_truth(truth, labels.domains) if truth is not None else None
    statistics = inspect_labels(labels, epsilon=epsilon, truth=known)
    if as_json:
        console.print_json(statistics.to_json())
    else:
        show_statistics(statistics)


@app.command(short_help="Train a translator on the labels, or continue a run.")
def train(
    out: Annotated[Path, typer.Option(help="Folder of the run; an interrupted run there is continued.")],
    preset: Annotated[str, typer.Option(help="Options to start from: paper, small-64, small-32.")] = "paper",
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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the resolved options as JSON and stop.")] = False,
    revision: Annotated[int | None, typer.Option(help="Labels; the newest of lanit label by default.")] = None,
    clip: ClipOption = None,
    clip_arch: ArchOption = None,
    device: DeviceOption = "auto",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Train a translator between the labelled domains; the same command continues an interrupted run.

    The run folder holds its options, metrics (JSON lines), sample grids, checkpoints, and in model/ what
    lanit translate needs.

    \b
    Example:
      lanit train --out runs/faces
      lanit train --out runs/small --preset small-64 --minutes 30
      lanit train --out runs/faces --set domain=1.0 --set prompts_from=1
    """
    from pipeline import console
    from pipeline.image_cache import open_image_cache
    from pipeline.inspect_labels import inspect_labels
    from pipeline.report_tables import show_coverage, show_options, show_train
    from pipeline.settings import clip_of, merge_settings
    from pipeline.train_options import TrainOptions, options_from
    from pipeline.training import train as train_run
    from pipeline.training_run import labels_to_train, pick_device

    named = {"size": size, "steps": steps, "minutes": minutes, "batch_size": batch_size, "learning_rate": rate}
    named |= {"log_every": log_every, "sample_every": sample_every, "seed": seed}
    options = options_from(preset, merge_settings(TrainOptions, settings or [], named))
    if dry_run:
        console.print_json(options.to_json())
        return
    opened = _open_store(store)
    chosen = str(pick_device(device))
    model = clip_of(opened, clip, clip_arch, chosen)
    show_options(f"run {out} on {chosen}", options.to_json(), chosen)
    show_coverage(inspect_labels(labels_to_train(opened, revision)))
    with console.progress("decoding at training size") as advance:
        open_image_cache(opened, options.size, advance)
    with console.progress("training", "steps") as advance:
        report = train_run(opened, out, options, model, revision=revision, device=chosen, progress=advance)
    if as_json:
        console.print_json(report.to_json())
    else:
        show_train(report)
    if report.interrupted:
        raise KeyboardInterrupt


@app.command(short_help="Translate images to phrases or to a reference's style.")
def translate(
    source: Annotated[Path, typer.Argument(metavar="IN", help="An image, or a folder with its subfolders.")],
    out: Annotated[Path, typer.Option(help="Folder for one PNG per image and translations.csv.")],
    model: Annotated[str, typer.Option(help="Folder of a run, or sample.")],
    to: Annotated[str, typer.Option(help="Domains of the result, with weights: 'smiling, bangs=0.5'.")] = "",
    add: Annotated[str, typer.Option(help="Domains to add to each image's own labels.")] = "",
    remove: Annotated[str, typer.Option(help="Domains to take from each image's own labels.")] = "",
    reference: Annotated[Path | None, typer.Option(help="Image whose style to take.")] = None,
    grid: Annotated[Path | None, typer.Option(help="PNG with sources beside translations.")] = None,
    seed: SeedOption = 0,
    clip: Annotated[str | None, typer.Option(help="Where to find the model's CLIP, if not where it was.")] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Translate images to other domains with a trained model: one file per image, same name, and a table.

    --to gives all domains of the result. --add and --remove change the labels that CLIP reads in each image.
    A result is the middle square of its image, at the size that the model was trained for.

    \b
    Example:
      lanit translate photos/ --model runs/faces --to "smiling, eyeglasses" --out translated/
      lanit translate face.png --model sample --add "wearing hat" --remove bangs --out translated/
      lanit translate photos/ --model runs/faces --reference style.jpg --out translated/ --grid grid.png
    """
    from pipeline import console
    from pipeline.report_tables import show_translate
    from pipeline.translation import TranslateRequest, parse_domains, parse_names
    from pipeline.translation import translate as translate_images

    request = TranslateRequest(parse_domains(to), parse_names(add), parse_names(remove), reference, seed)
    with console.progress("translating") as advance:
        report = translate_images(source, out, model, request, grid=grid, device=device, clip=clip, progress=advance)
    if as_json:
        console.print_json(report.to_json())
    else:
        show_translate(report)


@app.command(short_help="All of it on the sample world, ending in a page.")
def demo(
    minutes: Annotated[float, typer.Option(help="Minutes of training, on whatever machine this is.")] = 6.0,
    out: Annotated[Path, typer.Option(help="Folder for all of it; an earlier demo is replaced.")] = Path("demo"),
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
) -> None:
    """Draw faces, embed, label, inspect, train from scratch for some minutes, translate: ends with a page to open.

    \b
    Example:
      lanit demo
      lanit demo --minutes 1 --out quick-demo
    """
    from pipeline.demo import run_demo

    run_demo(minutes, out, seed, device=device)


@app.command("sample-faces", short_help="Draw faces of the sample world, with truth.")
def sample_faces(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder.")],
    count: Annotated[int, typer.Option(help="Faces to draw.")] = 2000,
    size: Annotated[int, typer.Option(help="Width and height, pixels.")] = 64,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Draw faces of the sample world into a folder, with their truth in truth.csv.

    \b
    Example:
      lanit sample-faces faces/ --count 2000
      lanit embed faces/ --clip sample
      lanit label --prompts sample-faces
      lanit inspect-labels --truth faces/truth.csv
    """
    from pipeline import console
    from pipeline.sample_world.dataset import write_faces

    truth = write_faces(out, count, seed, size)
    if as_json:
        console.print_json({"out": str(out), "count": count, "size": size, "seed": seed, "truth": str(truth)})
    else:
        console.say(f"{count:,} faces of {size} px in {out}, their truth in {truth}")


def _open_store(folder: Path) -> Store:
    from pipeline.store import Store

    return Store.open(folder)


def main() -> None:
    """Entry point of the ``lanit`` command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no reason to stop
    app(prog_name="lanit")


if __name__ == "__main__":
    main()
