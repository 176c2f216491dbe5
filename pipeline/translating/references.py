"""References: an image, or many by their mean style."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lanit.errors import LanitError
from pipeline.clip.models import ClipModel
from pipeline.decoding.frames import Frame
from pipeline.decoding.grids import to_float
from pipeline.decoding.images import decode_rgb, is_image_name, read_image_bytes
from pipeline.decoding.limits import ImageError
from pipeline.decoding.squares import fit_square
from pipeline.files import sha256_bytes
from pipeline.inputs.opening import open_inputs
from pipeline.inputs.places import listed
from pipeline.models.translator import Translator

_BATCH = 32


@dataclass(frozen=True)
class Reference:
    """What is taken from a reference. codes: float32 ((N+1)×D_s), the mean style of its images. labels: bool (N), the
    domains that more than half of them show, none where no CLIP looked. digest: tells one reference from another."""

    codes: Tensor
    labels: Tensor | None
    digest: str


def read_reference(
    path: Path,
    translator: Translator,
    clip: ClipModel | None,
    max_pixels: int,
    frame: Frame | None,
    tell: Callable[[str], None],
) -> Reference:
    """The style of an image, or the mean of those of a folder, a tar or a table; what cannot be read is left out.

    clip: reads labels too, as a model without need of one does. tell: called where images are left out. Raises
    LanitError where none can be read.
    """
    total = torch.zeros(0)
    shown, count, failures, first = torch.zeros(len(translator.domains)), 0, 0, ""
    digest = hashlib.sha256()
    images = _images(path, translator.bundle.options.image_size, max_pixels, frame, digest)
    while chunk := list(islice(images, _BATCH)):
        good = [image for image in chunk if isinstance(image, np.ndarray)]
        bad = [image for image in chunk if isinstance(image, str)]
        failures, first = failures + len(bad), first or next(iter(bad), "")
        if good:
            batch = to_float(np.stack(good)).to(translator.device)
            with torch.inference_mode():
                codes = translator.networks.own_codes(batch).double().sum(dim=0).cpu()
                total = codes if count == 0 else total + codes
                if translator.reads_labels(clip):
                    shown += translator.labels(batch, clip).float().sum(dim=0).cpu()
            count += len(good)
    if not count:
        raise LanitError(f"cannot read the reference {path}: {first or 'no image'}", "Give another image.")
    if failures:
        tell(f"{failures} of the {count + failures} images of the reference {path} cannot be read: {first}")
    labels = shown > count / 2 if translator.reads_labels(clip) else None
    return Reference((total / count).float(), labels, digest.hexdigest())


def _images(
    path: Path, size: int, max_pixels: int, frame: Frame | None, digest: hashlib._Hash
) -> Iterator[np.ndarray | str]:
    """Pixels, uint8 (S×S×3), or why there are none; sorted, so that a mean does not depend on the disk."""
    for read in _readers(path):
        try:
            data = read()
            digest.update(sha256_bytes(data).encode())
            yield fit_square(decode_rgb(data, max_pixels, frame), size)
        except ImageError as error:
            yield error.reason


def _readers(path: Path) -> Iterator[Callable[[], bytes]]:
    if is_image_name(path.name) and not path.is_dir():
        yield partial(read_image_bytes, path)
        return
    for origin in open_inputs([path]):
        for place in sorted(listed(origin), key=lambda place: (place.offset or 0, place.path)):
            yield partial(origin.read, place.path, place.offset, place.bytes)
