"""Faces of CelebA with their attributes, and captions made of these.

A Parquet file with the columns ``path``, ``jpeg`` (bytes) and a column of 0 and 1 for each attribute, named as CelebA
names them.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from lanit.sentences import without_phrase

PHRASES = {
    "Male": "male",
    "Wearing_Lipstick": "wearing lipstick",
    "Wearing_Hat": "wearing a hat",
    "Smiling": "smiling",
    "Eyeglasses": "eyeglasses",
    "Heavy_Makeup": "heavy makeup",
    "Blond_Hair": "blond hair",
    "Gray_Hair": "gray hair",
    "No_Beard": "beard",
    "Goatee": "goatee",
}
"""The ten attributes that a linear fit on pixels tells best, and what a person would write for them."""

FURTHER_PHRASES = {
    "Bangs": "bangs",
    "Bald": "bald",
    "Sideburns": "sideburns",
    "Mouth_Slightly_Open": "open mouth",
    "5_o_Clock_Shadow": "stubble",
    "Mustache": "mustache",
    "Bushy_Eyebrows": "bushy eyebrows",
    "Black_Hair": "black hair",
    "Young": "young",
}
_NEGATED = ("No_Beard",)  # the phrase says that the attribute is absent
_FEMALE = "female"

CAPTIONS = (
    "a photo of a face with {}.",
    "a face photo of {}.",
    "a good face photo with {}.",
    "a photo of a face, {}.",
    "a picture of {}.",
    "an image of a face with {}.",
    "a close-up photo of {}.",
    "a portrait with {}.",
)
_NONE, _ONE, _TWO = 0.15, 0.45, 0.30
"""Shares of captions that name no attribute, one, two; the others name three."""


@dataclass(frozen=True)
class FaceTable:
    """Rows of a table. held: of each row and each phrase of captions, bool (n×P); phrases: P."""

    table: pa.Table
    phrases: tuple[str, ...]
    held: np.ndarray

    def pictures(self) -> np.ndarray:
        """Uint8 RGB (n×S×S×3); all images of one size."""
        cells = self.table["jpeg"].to_pylist()
        return np.stack([np.asarray(Image.open(io.BytesIO(cell)).convert("RGB")) for cell in cells])

    def truth(self, phrases: Sequence[str] = tuple(PHRASES.values())) -> np.ndarray:
        """Of some phrases, those of ``PHRASES`` unless named: bool (n×N)."""
        return self.held[:, [self.phrases.index(phrase) for phrase in phrases]]

    def caption(self, row: int, rng: np.random.Generator) -> str:
        """A sentence that names none or up to three of the attributes that a face has, rare ones more often.

        A contrastive similarity estimates p(image | caption) / p(image), which does not depend on how often a caption
        occurs, so that naming the rare more often teaches them without moving what they mean.
        """
        template = str(rng.choice(CAPTIONS))
        count = int(np.searchsorted(np.cumsum([_NONE, _ONE, _TWO]), rng.random()))
        if count == 0:
            return without_phrase(template)
        held = np.flatnonzero(self.held[row])
        weight = self.held[:, held].mean(axis=0) ** -0.5
        named = rng.choice(held, min(count, len(held)), replace=False, p=weight / weight.sum())
        return template.format(" and ".join(self.phrases[position] for position in named))


def read_faces(file: Path) -> tuple[FaceTable, FaceTable]:
    """The half of the rows whose attributes may be known, and the other."""
    table = pq.read_table(file)
    order = np.random.default_rng(0).permutation(table.num_rows)
    half = len(order) // 2
    return _faces(table.take(order[:half])), _faces(table.take(order[half:]))


def read_held_out(file: Path) -> FaceTable:
    """All rows of a table that nothing is trained on."""
    return _faces(pq.read_table(file))


def _faces(table: pa.Table) -> FaceTable:
    names = PHRASES | FURTHER_PHRASES
    columns = [(table[name].to_numpy() == 1) != (name in _NEGATED) for name in names]
    columns.append(table["Male"].to_numpy() != 1)
    return FaceTable(table.select(["path", "jpeg"]), (*names.values(), _FEMALE), np.stack(columns, axis=1))
