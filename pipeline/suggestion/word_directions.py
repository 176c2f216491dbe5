"""Words as directions in CLIP's space, which turn embeddings into margins; those of a vocabulary are cached."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lanit.errors import LanitError
from pipeline.files import atomic_path
from pipeline.labelling.label import text_embeddings

if TYPE_CHECKING:
    from pipeline.clip_models import ClipModel
    from pipeline.labelling.prompt_sets import PromptSet
    from pipeline.store.store import Store

_WORDS = 64  # read by CLIP at once

Progress = Callable[[int, int], None]


def directions_of(
    clip: ClipModel, prompts: PromptSet, phrases: Sequence[str], progress: Progress | None = None
) -> np.ndarray:
    """ū_phrase − ū_base under the templates of ``prompts``, float32 (phrases×k): times an embedding, the margin.

    progress: called with (phrases read, phrases in all).
    """
    found = [np.empty((0, clip.embedding_dim), np.float32)]
    for start in range(0, len(phrases), _WORDS):
        batch = phrases[start : start + _WORDS]
        texts, base = text_embeddings(clip, prompts.about(batch))
        found.append((texts - base).numpy())
        if progress is not None:
            progress(start + len(batch), len(phrases))
    return np.concatenate(found)


def cached_directions(
    store: Store, clip: ClipModel, prompts: PromptSet, words: Sequence[str], progress: Progress | None = None
) -> np.ndarray:
    """The same, kept in ``cache/`` of the store until other words, templates or another model are asked for.

    Thousands of words take CLIP a while on a CPU. Where nothing can be written, nothing is kept.
    """
    content = [store.fingerprint.to_json(), prompts.templates, prompts.bases, list(words)]
    if prompts.learned is not None:
        content.append(prompts.learned.digest())
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    path = store.root / "cache" / f"words-{key}.npy"
    if path.is_file():
        with contextlib.suppress(OSError, ValueError):
            kept: np.ndarray = np.load(path)
            if kept.shape == (len(words), clip.embedding_dim):
                return kept
    made = directions_of(clip, prompts, words, progress)
    with contextlib.suppress(LanitError):
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, made)
        for old in path.parent.glob("words-*.npy"):
            if old != path:
                old.unlink()
    return made
