"""``lanit translate``: a trained model on files, one picture out for every picture in, and a table beside them."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lanit.errors import LanitError, UsageError
from pipeline.decoding.images import ImageError, decode_rgb, list_images
from pipeline.devices import pick_device
from pipeline.files import storable, write_bytes
from pipeline.store.image_cache import fit_square
from pipeline.training.checkpoints import load_bundle
from pipeline.translating.grids import labelled_grid, to_float, to_uint8, write_png
from pipeline.translating.translator import Translator, load_labeller

_BATCH = 32
_GRID_ROWS = 16
TABLE_NAME = "translations.csv"


@dataclass(frozen=True)
class TranslateRequest:
    """What to make of each image.

    to: the domains of the result with their weights, instead of the image's own. add, remove: domains to change in
    the image's own labels, which CLIP reads. reference: an image whose style to take for every domain in which the
    source does not keep its own, and whose labels where no domain is named. seed: of the latent styles; one latent
    serves all images, so order and batches do not matter.
    """

    to: tuple[tuple[str, float], ...] = ()
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    reference: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.to and (self.add or self.remove):
            raise UsageError(
                "--to names all domains of the result, --add and --remove change the image's own",
                "Use one or the other.",
            )
        both = set(self.add) & set(self.remove)
        if both:
            raise UsageError(f"'{both.pop()}' is both added and removed", "Name it once.")
        if not (self.to or self.add or self.remove or self.reference):
            raise UsageError(
                "nothing to translate to", 'Name domains, such as --to "smiling", or give --reference IMG.'
            )


@dataclass(frozen=True)
class TranslateReport:
    """found = ok + failed."""

    out: str
    model: str
    found: int
    ok: int
    failed: int
    table: str
    grid: str | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def parse_domains(text: str) -> tuple[tuple[str, float], ...]:
    """``"smiling, eyeglasses=0.5"`` to names and weights; raises UsageError for a weight that is none."""
    found = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, weight = part.partition("=")
        try:
            value = float(weight) if weight else 1.0
        except ValueError:
            value = -1.0
        if not 0 < value < float("inf"):
            raise UsageError(f"'{part}' has no positive weight", "Write, for example, smiling=0.5.")
        found.append((name.strip(), value))
    return tuple(found)


def parse_names(text: str) -> tuple[str, ...]:
    """``"smiling, bangs"`` to names; raises UsageError for a weight, which an edit does not take."""
    for name, weight in (found := parse_domains(text)):
        if weight != 1:
            raise UsageError(f"'{name}={weight:g}': domains are added and removed in full", "Weights go with --to.")
    return tuple(name for name, _ in found)


class _Recipe:
    """A request resolved against a model: domains known, reference read, CLIP loaded where labels must be read."""

    def __init__(self, translator: Translator, request: TranslateRequest, clip: str | None) -> None:
        self.translator = translator
        self.seed = request.seed
        self.edits = bool(request.add or request.remove)
        self.to = translator.weights(request.to)
        self.add = translator.weights([(name, 1.0) for name in request.add]) > 0
        self.remove = translator.weights([(name, 1.0) for name in request.remove]) > 0
        self.reference = None
        if request.reference is not None:
            image = _read(request.reference, translator.bundle.options.image_size)
            self.reference = to_float(image[None]).to(translator.device)
        self.clip = None
        if self.edits or not request.to:
            self.clip = load_labeller(translator.bundle, clip, translator.device)
            if self.reference is not None and not self.edits:
                self.to = translator.labels(self.reference, self.clip)[0].float()

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Results (B×3×S×S) of images (B×3×S×S), and the weights of their domains (B×N)."""
        latents = self.translator.latents(self.seed, len(images))
        if self.edits and self.clip is not None:
            own = self.translator.labels(images, self.clip)
            return self.translator.edit(images, own, self.add, self.remove, latents, self.reference)
        target = self.to.expand(len(images), -1)
        kept = torch.zeros_like(target, dtype=torch.bool)
        return self.translator.translate(images, target, kept, latents, self.reference), target


def translate(
    source: Path,
    out: Path,
    model: str | Path,
    request: TranslateRequest,
    *,
    grid: Path | None = None,
    device: str = "auto",
    clip: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TranslateReport:
    """Translate an image or a folder of them into ``out``, which gets one PNG per image and ``translations.csv``.

    clip: spec of the CLIP that reads the images' own labels, the model's by default. Raises LanitError where nothing
    can be read, a domain is unknown, or CLIP is not the one that the model was trained with; nothing is then written.
    """
    translator = Translator(load_bundle(model), pick_device(device))
    recipe = _Recipe(translator, request, clip)
    files = _files(source, out)
    outputs = _output_names([name for name, _ in files])
    rows: list[dict[str, str]] = []
    shown: list[np.ndarray] = []
    for batch in _batches(files, translator.bundle.options.image_size):
        good = [image for _, image, _ in batch if image is not None]
        results: Iterator[tuple[np.ndarray, np.ndarray, Tensor]] = iter(())
        if good:
            made, targets = recipe(to_float(np.stack(good)).to(translator.device))
            results = iter(zip(good, to_uint8(made), targets, strict=True))
        for name, image, error in batch:
            row = {"path": storable(name), "output": "", "status": "failed", "error_message": error, "target": ""}
            if image is not None:
                original, result, target = next(results)
                row |= {
                    "output": storable(outputs[name]),
                    "status": "ok",
                    "target": _describe(target, translator.domains),
                }
                write_png(out / outputs[name], result)
                shown += [np.stack([original, result])] if len(shown) < _GRID_ROWS else []
            rows.append(row)
        if progress:
            progress(len(rows), len(files))
    ok = sum(row["status"] == "ok" for row in rows)
    if not ok:
        reason = rows[0]["error_message"]
        raise LanitError(f"none of the {len(files)} images in {source} can be read: {reason}", "Give another folder.")
    _write_table(out / TABLE_NAME, rows)
    if grid is not None:
        write_png(grid, labelled_grid(shown, ["source", "translation"], max(translator.bundle.options.image_size, 96)))
    return TranslateReport(
        out=str(out),
        model=str(model),
        found=len(files),
        ok=ok,
        failed=len(files) - ok,
        table=str(out / TABLE_NAME),
        grid=str(grid) if grid else None,
    )


def _files(source: Path, out: Path) -> list[tuple[str, Path]]:
    """Names relative to the folder, and paths. A single file is itself."""
    folder = source.parent if source.is_file() else source
    if out.resolve() == folder.resolve():
        raise LanitError(f"--out {out} is the folder of the originals", "Give another folder for the translations.")
    if source.is_file():
        return [(source.name, source)]
    results = out.resolve()  # of an earlier run, where it lies below the source
    names = [name for name in list_images(source).paths if results not in (source / name).resolve().parents]
    if not names:
        raise LanitError(f"there is no image in {source}", "Give a folder with images, or one image.")
    return [(name, source / name) for name in names]


def _read(path: Path, size: int) -> np.ndarray:
    try:
        return fit_square(decode_rgb(path), size)
    except ImageError as error:
        raise LanitError(f"cannot read the reference {path}: {error}", "Give another image.") from error


def _batches(files: list[tuple[str, Path]], size: int) -> Iterator[list[tuple[str, np.ndarray | None, str]]]:
    remaining = iter(files)
    while chunk := list(islice(remaining, _BATCH)):
        batch: list[tuple[str, np.ndarray | None, str]] = []
        for name, path in chunk:
            try:
                batch.append((name, fit_square(decode_rgb(path), size), ""))
            except ImageError as error:
                batch.append((name, None, str(error)))
        yield batch


def _output_names(names: Sequence[str]) -> dict[str, str]:
    """The inputs' names as PNG; with the suffix kept inside where two outputs would meet."""
    stems = {name: str(PurePosixPath(name).with_suffix("")) for name in names}
    twins = Counter(stems.values())
    alone = {name: twins[stem] == 1 and stem not in stems for name, stem in stems.items()}
    return {name: f"{stem}.png" if alone[name] else f"{name}.png" for name, stem in stems.items()}


def _describe(target: Tensor, domains: Sequence[str]) -> str:
    named = [(name, value) for name, value in zip(domains, target.tolist(), strict=True) if value > 0]
    return ", ".join(name if value == 1 else f"{name}={value:g}" for name, value in named)


def _write_table(path: Path, rows: list[dict[str, str]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())
