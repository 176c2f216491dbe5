"""What lies beside the weights of a CLIP on this machine: the words it was trained on. Told without loading it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.files import read_json

SAMPLE_FOLDER = Path(__file__).parents[1] / "assets" / "sample-clip"
WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
_VOCABULARY = "vocabulary.json"


def local_folder(spec: str) -> Path | None:
    """The folder of the weights that ``spec`` names, as ``load_clip`` takes it, where it names a place."""
    if spec == "sample":
        return SAMPLE_FOLDER
    path = Path(spec.removeprefix("local-dir:")).expanduser()
    if path.suffix in WEIGHT_SUFFIXES and path.is_file():
        return path.parent
    return path if path.is_absolute() and path.is_dir() else None


def read_words(folder: Path | None) -> frozenset[str] | None:
    """The words that the CLIP in ``folder`` was trained on, where it lists them; else none."""
    if folder is None or not (folder / _VOCABULARY).is_file():
        return None
    return frozenset(str(word).lower() for word in read_json(folder / _VOCABULARY))


def unknown_words(vocabulary: frozenset[str] | None, phrases: Sequence[str]) -> list[str]:
    """Words of ``phrases`` that are not in ``vocabulary``, each once, in order; empty where there is none."""
    if vocabulary is None:
        return []
    words = (word for phrase in phrases for word in re.findall(r"[^\W_]+", phrase.lower()))
    return list(dict.fromkeys(word for word in words if word not in vocabulary))
