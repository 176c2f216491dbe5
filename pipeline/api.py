"""lanit from Python: ``lanit.load`` gives a :class:`Model`, which labels and translates images in memory."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lanit.errors import UsageError
from lanit.inference import draw_latents, drawn_codes, mixed, translate
from pipeline.clip.models import ClipModel
from pipeline.computing.devices import pick_device
from pipeline.decoding.grids import to_float, to_uint8
from pipeline.decoding.images import decode_rgb, rgb_of
from pipeline.decoding.limits import ImageError
from pipeline.decoding.squares import fit_square
from pipeline.models.bundle import load_bundle
from pipeline.models.translator import Translator, load_labeller
from pipeline.translating.recipe import BatchTranslator, Resolver
from pipeline.translating.requests import TranslateRequest, Words, parse_domains, parse_names

ModelName = str | Path
ImageLike = str | Path | Image.Image | np.ndarray
"""A file, a Pillow image, or a uint8 array (H×W×3 as RGB, H×W×4 as RGBA, H×W as grey)."""
Names = str | Iterable[str]
"""``"smiling, bangs"``, or a list of names."""
Domains = Names | Mapping[str, float]
"""Names, or names with weights: ``"smiling, bangs=0.5"``, or ``{"smiling": 1, "bangs": 0.5}``."""

_BATCH = 32
_ARRAYS = "Arrays are uint8: H×W×3 as RGB, H×W×4 as RGBA, H×W as grey."


@dataclass(frozen=True)
class Labels:
    """What CLIP, or a model's guiding network, reads in an image.

    margins: of each domain, the cosine to its phrase minus that to the base (METHOD 1), or the log of its probability
    minus that of the likeliest other cluster. active: the domains that the
    image has, whose margins exceed their offsets (0 unless the prompts set one), in the order of ``margins``.
    """

    margins: dict[str, float]
    active: tuple[str, ...]


class Model:
    """A trained model. domains: the words it knows; image_size: side of its results, pixels; device: where it works."""

    def __init__(self, model: ModelName, *, device: str = "auto", clip: str | None = None) -> None:
        """See :func:`lanit.load`."""
        self._translator = Translator(load_bundle(model), pick_device(device))
        self._clip_spec = clip
        self._clip: ClipModel | None = None

    def __repr__(self) -> str:
        return f"model of {', '.join(self.domains)}; {self.image_size} px, on {self.device}"

    @property
    def domains(self) -> tuple[str, ...]:
        return self._translator.domains

    @property
    def image_size(self) -> int:
        return self._translator.bundle.options.image_size

    @property
    def device(self) -> torch.device:
        return self._translator.device

    @property
    def reader(self) -> str:
        """Who reads labels in images: ``CLIP``, or ``the guiding network``."""
        return self._translator.reader

    @property
    def draws_styles(self) -> bool:
        """Whether a domain has more than one style, drawn from a seed."""
        return self._translator.networks.latent_dim > 0

    def label(self, image: ImageLike) -> Labels:
        """The labels of one image, by the model's CLIP and prompts, or the guiding network that it has. Raises
        LanitError where it cannot be read, or CLIP is not at hand or not the one that the model was trained with."""
        return self.label_batch([image])[0]

    def label_batch(self, images: Sequence[ImageLike]) -> list[Labels]:
        """The labels of each image; see :meth:`label`."""
        clip, found = self._label_reader(), []
        for batch in self._batches(images):
            margins = self._translator.margins(to_float(batch).to(self.device), clip)
            for row, active in zip(margins.tolist(), self._translator.prompts.active(margins).tolist(), strict=True):
                named = dict(zip(self.domains, row, strict=True))
                found.append(Labels(named, tuple(name for name, on in zip(self.domains, active, strict=True) if on)))
        return found

    def translate(
        self,
        image: ImageLike,
        to: Domains = (),
        add: Names = (),
        remove: Names = (),
        reference: ImageLike | None = None,
        seed: int = 0,
    ) -> Image.Image:
        """The middle square of ``image``, translated: RGB, ``image_size`` pixels wide and high.

        to: all domains of the result. add, remove: domains to change in the image's own labels, which CLIP reads;
        what stays keeps its style. A phrase that is no domain stands for those near it, which a warning names.
        reference: an image, or a folder of them, whose style to take, and whose labels where no domain is named.
        seed: of the styles that are drawn; equal seeds give equal results. Raises UsageError for contradictions,
        LanitError for a word that nothing is near, or an image or CLIP that cannot be had.
        """
        return self.translate_batch([image], to, add, remove, reference, seed)[0]

    def translate_batch(
        self,
        images: Sequence[ImageLike],
        to: Domains = (),
        add: Names = (),
        remove: Names = (),
        reference: ImageLike | None = None,
        seed: int = 0,
    ) -> list[Image.Image]:
        """Each image translated, as :meth:`translate` does one."""
        with _as_path(reference) as path:
            request = TranslateRequest(_words(to), _names(add), _names(remove), path, seed)
            recipe = Resolver(self._translator, self._labeller, _warn).resolve(request)
        translated = BatchTranslator(self._translator, recipe, self._label_reader() if recipe.edits else None)
        made: list[Image.Image] = []
        for batch in self._batches(images):
            pictures = translated(torch.from_numpy(batch).permute(0, 3, 1, 2).to(self.device)).pictures[0, 0]
            made += [Image.fromarray(picture) for picture in pictures.cpu().numpy()]
        return made

    @torch.inference_mode()
    def mix(
        self,
        image: ImageLike,
        weights: Mapping[str, float],
        own: Iterable[str] | None = None,
        reference: ImageLike | None = None,
        seed: int = 0,
        styles: int = 1,
    ) -> list[Image.Image]:
        """``image`` with the domains of ``weights`` and no others, each counting by its weight: one RGB for each style.

        own: domains in which the image keeps its own style where it is to have them; by default, its labels.
        reference: an image whose style the others take; without, ``styles`` styles drawn from ``seed``. Weights are
        shares of their sum, so one alone counts in full. Raises LanitError for a name that is no domain, an image or a
        CLIP that cannot be had, UsageError for a weight below 0 or no style.
        """
        if styles < 1 or (styles > 1 and reference is not None):
            raise UsageError(f"{styles} styles cannot be drawn", "Ask for 1 or more; a reference gives one.")
        if not all(0 <= weight < float("inf") for weight in weights.values()):
            raise UsageError("a weight is 0 or more", 'Give, for example, {"smiling": 1, "bangs": 0.5}.')
        translator, networks = self._translator, self._translator.networks
        translator.check_styles(styles)
        own = self.label(image).active if own is None else own
        shown = translator.weights([(name, 1.0) for name in own])[None] > 0
        target = mixed(shown, translator.weights(list(weights.items())))
        batch = to_float(next(self._batches([image]))).to(self.device)
        if reference is not None:
            codes = networks.own_codes(to_float(next(self._batches([reference]))).to(self.device))
        else:
            codes = drawn_codes(networks, draw_latents(networks.latent_dim, seed, styles).to(self.device))
        return [Image.fromarray(picture) for picture in to_uint8(translate(networks, batch, target, codes)[:, 0])]

    def content(self, images: Tensor) -> Tensor:
        """What the generator reads in images (B×3×S×S) in [-1, 1] before any style: float32 (B×C×16×16)."""
        return self._translator.networks.content(images)

    def exclusive(self, domain: str) -> tuple[str, ...]:
        """Domains that cannot stand beside ``domain``: the training labels never show both."""
        row = self._translator.exclusive[self.domains.index(domain)].tolist()
        return tuple(name for name, excluded in zip(self.domains, row, strict=True) if excluded)

    def _label_reader(self) -> ClipModel | None:
        return self._labeller() if self._translator.guide is None else None

    def _labeller(self) -> ClipModel:
        if self._clip is None:
            self._clip = load_labeller(self._translator.bundle, self._clip_spec, self.device)
        return self._clip

    def _batches(self, images: Sequence[ImageLike]) -> Iterator[np.ndarray]:
        """uint8 (B×S×S×3), the middle squares."""
        for start in range(0, len(images), _BATCH):
            chosen = images[start : start + _BATCH]
            yield np.stack([fit_square(_pixels(image), self.image_size) for image in chosen])


def _pixels(image: ImageLike) -> np.ndarray:
    """uint8 (H×W×3) of whatever stands for an image. Raises LanitError where it cannot be read, UsageError where it is
    no image."""
    if isinstance(image, str | Path):
        return decode_rgb(Path(image))
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,), (4,)):
            raise UsageError(f"an array of {image.dtype} of shape {image.shape} is no image", _ARRAYS)
        image = Image.fromarray(np.ascontiguousarray(image))
    if not isinstance(image, Image.Image):
        raise UsageError(f"an image is a path, a Pillow image or an array, not {type(image).__name__}", _ARRAYS)
    if not all(image.size):
        raise UsageError("an image has at least one pixel", _ARRAYS)
    try:
        return rgb_of(image)
    except OSError as error:  # Pillow reads a file when its pixels are asked for
        raise ImageError(f"damaged ({error})", str(getattr(image, "filename", ""))) from error


@contextlib.contextmanager
def _as_path(reference: ImageLike | None) -> Iterator[Path | None]:
    """A reference as the file or folder that requests name; an image in memory, as a file for the while."""
    if reference is None or isinstance(reference, str | Path):
        yield None if reference is None else Path(reference)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reference.png"
        Image.fromarray(_pixels(reference)).save(path, compress_level=1)
        yield path


def _words(domains: Domains) -> Words:
    if isinstance(domains, str):
        return parse_domains(domains)
    if isinstance(domains, Mapping):
        return tuple((name, float(weight)) for name, weight in domains.items())
    return tuple((name, 1.0) for name in domains)


def _names(domains: Names) -> tuple[str, ...]:
    if isinstance(domains, Mapping):
        raise UsageError("domains are added and removed in full", "Give their names; weights go with to.")
    return parse_names(domains) if isinstance(domains, str) else tuple(domains)


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=2)
