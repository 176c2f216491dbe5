"""A request resolved against a model: words known, references read, latents drawn; and what it makes of a batch."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lanit.errors import LanitError, UsageError
from lanit.inference import (
    Target,
    draw_latents,
    drawn_codes,
    edited,
    interpolated,
    target_style,
    translate,
    translate_styles,
)
from pipeline.clip.models import ClipModel
from pipeline.decoding.frames import Frame
from pipeline.decoding.grids import to_bytes
from pipeline.decoding.limits import MAX_PIXELS
from pipeline.models.translator import Translator
from pipeline.translating.phrases import stand_in
from pipeline.translating.references import Reference, read_reference
from pipeline.translating.requests import TranslateRequest, Words, parse_domains

Look = Literal["needed", "results", "both"]
"""What CLIP looks at: the images where their own labels are needed, and no more; the results too; always both."""


@dataclass(frozen=True)
class Recipe:
    """What to make of any image; tensors on the CPU, so that other processes can be told.

    to: float32 (N), the domains of the result and their weights; none for the image's own, edited. add: float32 (N),
    weights of added domains, 0 for others; remove: bool (N). codes: float32 (K×(N+1)×D_s), for each of K results the
    style of every domain in which an image does not keep its own. frames: float32 (F×D_s), the styles of an
    interpolation, whose last is that of ``to``. requested: what to say of each image where it is the same for all.
    """

    to: Tensor | None
    add: Tensor
    remove: Tensor
    codes: Tensor
    frames: Tensor | None
    requested: str | None

    @property
    def edits(self) -> bool:
        """Whether CLIP must read the images' own labels."""
        return self.to is None

    @property
    def results(self) -> int:
        """Files of one image."""
        return 1 if self.frames is not None else len(self.codes)


@dataclass(frozen=True)
class Translations:
    """What became of B images. pictures: uint8 (K×F×B×S×S×3), F frames of K results, one each but for an
    interpolation. targets: float32 (B×N), the domains asked for. before: float32 (B×N), margins of the images, and
    after: float32 (K×B×N), of the results (an interpolation's last frame), none where no CLIP looked. On the device of
    the model, perhaps not computed yet."""

    pictures: Tensor
    targets: Tensor
    before: Tensor | None
    after: Tensor | None


class BatchTranslator:
    """A recipe at work on a model's device."""

    def __init__(self, translator: Translator, recipe: Recipe, clip: ClipModel | None, look: Look = "needed") -> None:
        self.translator, self.recipe = translator, recipe
        self._clip, reads = clip, translator.reads_labels(clip)
        self._at_images = reads and (recipe.edits or look == "both")
        self._at_results = reads and look != "needed"
        device = translator.device
        self._codes, self._add, self._remove = (t.to(device) for t in (recipe.codes, recipe.add, recipe.remove))
        self._to, self._frames = (None if t is None else t.to(device) for t in (recipe.to, recipe.frames))

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Translations:
        """images: uint8 (B×3×S×S), on the model's device."""
        networks, batch = self.translator.networks, images.float() / 127.5 - 1
        before = self.translator.margins(batch, self._clip) if self._at_images else None
        target = self._target(len(batch), before)
        if self._frames is not None:
            results = translate_styles(networks, batch, self._frames)
        else:
            results = translate(networks, batch, target, self._codes)
        looked = results[-1:] if self._frames is not None else results
        after = None
        if self._at_results:
            after = torch.stack([self.translator.margins(result, self._clip) for result in looked])
        pictures = to_bytes(results)
        pictures = pictures[None] if self._frames is not None else pictures[:, None]
        return Translations(pictures, target.weights, before, after)

    def _target(self, count: int, before: Tensor | None) -> Target:
        """What ``count`` images are to become."""
        if self._to is not None:
            return Target(self._to.expand(count, -1), None)
        if before is None:
            raise LanitError("no CLIP reads the images' own labels", "Use --to, which needs none.")
        own = self.translator.prompts.active(before)
        return edited(own, self._add, self._remove, self.translator.exclusive)


@dataclass
class Resolver:
    """Turns a request into a :class:`Recipe`.

    load: the CLIP that reads labels and phrases; called where it is needed and at most once. tell: called with what a
    person should know before any image is touched, such as what stands in for a phrase.
    """

    translator: Translator
    load: Callable[[], ClipModel]
    tell: Callable[[str], None]
    max_pixels: int = MAX_PIXELS
    frame: Frame | None = None
    mixes: dict[str, Words] = field(default_factory=dict)
    _clip: ClipModel | None = None
    _references: dict[tuple[Path, bool], Reference] = field(default_factory=dict)

    def clip(self) -> ClipModel:
        if self._clip is None:
            self._clip = self.load()
        return self._clip

    def label_reader(self) -> ClipModel | None:
        """The CLIP that reads labels; none where the model needs none for that."""
        return self.clip() if self.translator.guide is None else None

    def resolve(self, request: TranslateRequest) -> Recipe:
        """Raises LanitError for a word that nothing is near, and a reference that cannot be read."""
        translator, count = self.translator, len(self.translator.domains)
        translator.check_styles(request.styles)
        if not translator.networks.reads_styles and (request.reference or request.references):
            self.tell("this model has one style a domain: a reference tells which domains to take, not how they look")
        nothing = torch.zeros(count)
        if request.interpolate is not None:
            return self._interpolation(request, request.interpolate)
        if request.add or request.remove:
            to = None
            add = self.weights([(name, 1.0) for name in request.add])
            remove = (self.weights([(name, 1.0) for name in request.remove]) > 0) & (add == 0)
        else:
            add, remove = nothing, nothing > 0
            to = self.weights(request.to)
            if not request.to and request.reference is not None:
                labels = self._reference(request.reference, with_labels=True).labels
                to = to if labels is None else labels.float()
        self._check_references(request, add if to is None else to)
        codes = torch.stack([self._codes(latent, request) for latent in self._latents(request)])
        return Recipe(to, add, remove, codes, None, None if to is None else describe(to, translator.domains))

    def _check_references(self, request: TranslateRequest, wanted: Tensor) -> None:
        for name, path in request.references:
            if not bool(((self.weights([(name, 1.0)]) > 0) & (wanted > 0)).any()):
                raise UsageError(
                    f"--reference {path} is for '{name}', which is not asked for", f"Add it: --add {shlex.quote(name)}"
                )

    def weights(self, words: Sequence[tuple[str, float]]) -> Tensor:
        """Float32 (N) of names and weights, phrases replaced by what stands in for them."""
        values = torch.zeros(len(self.translator.domains))
        for name, weight in words:
            column = self.translator.column(name)
            if column is not None:
                values[column] = weight
                continue
            for domain, share in self._mix(name):
                found = self.translator.column(domain)
                if found is not None:
                    values[found] = max(float(values[found]), weight * share)
        return values

    def _mix(self, phrase: str) -> Words:
        if phrase not in self.mixes:
            try:
                clip = self.clip()
            except LanitError as error:
                reason = f", and no CLIP tells what is near it ({error.message})"
                raise self.translator.no_domain(phrase, reason) from error
            mix = stand_in(phrase, self.translator, clip)
            self.tell(str(mix))
            self.mixes[phrase] = mix.domains
        return self.mixes[phrase]

    @torch.inference_mode()
    def _latents(self, request: TranslateRequest) -> Tensor:
        """Style codes, float32 (K×(N+1)×D_s), of the latents of a request."""
        networks = self.translator.networks
        drawn = draw_latents(networks.latent_dim, request.seed, request.styles)
        return drawn_codes(networks, drawn.to(self.translator.device)).cpu()

    def _codes(self, codes: Tensor, request: TranslateRequest) -> Tensor:
        """Those of a latent, ((N+1)×D_s), or of references where a request has them."""
        if request.reference is not None:
            codes = self._reference(request.reference).codes
        codes = codes.clone()
        for name, path in request.references:
            for column in torch.nonzero(self.weights([(name, 1.0)])).flatten().tolist():
                codes[column] = self._reference(path).codes[column]
        return codes

    def _interpolation(self, request: TranslateRequest, ends: tuple[str, str]) -> Recipe:
        nothing = torch.zeros(len(self.translator.domains))
        drawn = self._codes(self._latents(request)[0], request)
        styles, weights, texts = [], [], []
        for end in ends:
            codes, to = drawn, nothing
            if Path(end).exists():
                reference = self._reference(Path(end), with_labels=True)
                codes = reference.codes
                to = to if reference.labels is None else reference.labels.float()
            else:
                to = self.weights(_some(parse_domains(end), end))
            styles.append(target_style(codes[None], to[None])[0])
            weights.append(to)
            texts.append(describe(to, self.translator.domains) or "none")
        frames = interpolated(styles[0], styles[1], request.steps)
        return Recipe(weights[1], nothing, nothing > 0, drawn[None], frames, " -> ".join(texts))

    def _reference(self, path: Path, *, with_labels: bool = False) -> Reference:
        key = (path, with_labels)
        if key not in self._references:
            clip = self.label_reader() if with_labels else None
            self._references[key] = read_reference(path, self.translator, clip, self.max_pixels, self.frame, self.tell)
        return self._references[key]

    def identity(self, request: TranslateRequest) -> dict[str, Any]:
        """What tells the results of one request from those of another, as JSON: words as resolved, references by
        their content. Call it after :meth:`resolve`."""
        references = sorted(f"{path}: {reference.digest}" for (path, _), reference in self._references.items())
        return {
            "to": list(map(list, request.to)), "add": list(request.add), "remove": list(request.remove),
            "interpolate": request.interpolate and list(request.interpolate), "steps": request.steps,
            "film": request.film, "styles": request.styles, "seed": request.seed,
            "references": [[name, str(path)] for name, path in request.references],
            "reference": request.reference and str(request.reference),
            "contents": hashlib.sha256(json.dumps(references).encode()).hexdigest(),
            "mixes": {phrase: list(map(list, mix)) for phrase, mix in sorted(self.mixes.items())},
        }  # fmt: skip


def describe(weights: Tensor, domains: Sequence[str]) -> str:
    """Domains with a weight (N), as they are typed: ``smiling, eyeglasses=0.5``."""
    named = [(name, value) for name, value in zip(domains, weights.tolist(), strict=True) if value > 0]
    return ", ".join(name if value == 1 else f"{name}={value:g}" for name, value in named)


def _some(words: Words, text: str) -> Words:
    if not words:
        raise LanitError(f"'{text}' names no domain", 'Write, for example, --interpolate "smiling" "bangs".')
    return words
