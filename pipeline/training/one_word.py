"""What a run learns that is about one word: the labels of that domain and no other, and perhaps one image beside it."""

from __future__ import annotations

import difflib
from pathlib import Path

from torch import Tensor

from lanit.errors import LanitError, UsageError
from lanit.methods.method import OneImage, OneWord, Options
from pipeline.decoding.grids import to_float
from pipeline.decoding.images import decode_rgb
from pipeline.decoding.squares import fit_square
from pipeline.store.label_revisions import LabelRevision


def labels_of(settings: Options, labels: LabelRevision) -> LabelRevision:
    """Those of the word that the method is to learn; all, where it learns every domain.

    Raises UsageError where no word is given, LanitError where the revision does not have it, or where no image, or
    every image, is labelled so.
    """
    if not isinstance(settings, OneWord):
        return labels
    word = settings.present
    if not word:
        raise UsageError("this method learns one word", f'Say which: --present "{labels.domains[0]}".')
    names = [name.casefold() for name in labels.domains]
    if word.casefold() not in names:
        close = difflib.get_close_matches(word, labels.domains, 1)
        meant = f"Did you mean '{close[0]}'? " if close else ""
        raise LanitError(
            f"label revision {labels.number} has no '{word}'",
            f'{meant}It has {", ".join(labels.domains)}; lanit label "{word}" makes one that has it.',
        )
    column = names.index(word.casefold())
    found = labels.of_domains((column,))
    if found.active.all() or not found.active.any():
        which = "every image" if found.active.any() else "no image"
        raise LanitError(
            f"label revision {labels.number} has '{found.domains[0]}' on {which}",
            "The method learns from images with the word and from others without: label other images, or name another.",
        )
    return found


def example_of(settings: Options, size: int) -> Tensor | None:
    """The one image of a method that learns from one, its middle square: float32 (3×S×S) in [-1, 1]; else none.

    Raises UsageError where none is given, LanitError where it cannot be read.
    """
    if not isinstance(settings, OneImage):
        return None
    if not settings.example:
        raise UsageError("this method learns from one image", "Say which: --from one.jpg.")
    return to_float(fit_square(decode_rgb(Path(settings.example)), size)[None])[0]
