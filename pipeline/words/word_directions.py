"""Words as directions in CLIP's space, which turn embeddings into margins; those of a vocabulary are cached."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lanit.errors import LanitError
from pipeline.files import sweep_beside
from pipeline.progress import Progress
from pipeline.prompts.embed_prompts import embed_together, prompt_vectors
from pipeline.store.caches import content_of, keep_array, read_array
from pipeline.words.vocabulary import readable_words

if TYPE_CHECKING:
    from pipeline.clip.models import ClipModel
    from pipeline.prompts.prompt_sets import PromptSet
    from pipeline.store.store import Store

_WORDS = 64  # read by CLIP at once
_FILE = re.compile(r"\.?(?P<name>(?P<kind>words|readable)-[0-9a-f]{16}\.npy)(?:\.\d+\.tmp)?")  # as it is, or half-made


def directions_of(
    clip: ClipModel, prompts: PromptSet, phrases: Sequence[str], progress: Progress | None = None
) -> np.ndarray:
    """ū_phrase − ū_base under the templates of ``prompts``, float32 (phrases×k): times an embedding, the margin.

    progress: called with (phrases read, phrases in all). Phrases that ``clip`` keeps are not read again.
    """
    found = [np.empty((0, clip.embedding_dim), np.float32)]
    for start in range(0, len(phrases), _WORDS):
        embedded = prompt_vectors(clip, prompts.about(phrases[start : start + _WORDS]))
        found.append(embedded.domains - embedded.base)
        if progress is not None:
            progress(start + len(embedded.domains), len(phrases))
    return np.concatenate(found)


def known_readable(store: Store, clip: ClipModel, words: Sequence[str], templates: Sequence[str]) -> list[str]:
    """:func:`pipeline.words.vocabulary.readable_words`, kept in ``cache/`` of the store as the directions are."""
    content = [store.fingerprint.to_json(), sorted(clip.vocabulary or ()), list(templates), list(words)]
    path = _path(store, "readable", content)
    kept = read_array(path)
    if kept is None or kept.shape != (len(words),) or kept.dtype != bool:
        readable = {*readable_words(words, clip, templates)}
        kept = np.array([word in readable for word in words], bool)
        keep_array(path, kept)
    _forget_others(path, clip.embedding_dim)
    return [word for word, can_be in zip(words, kept, strict=True) if can_be]


def _read_together(
    clip: ClipModel, prompts: PromptSet, phrases: Sequence[str], progress: Progress | None
) -> np.ndarray:
    """:func:`directions_of` for phrases without number, of which none is kept by itself."""
    found = [np.empty((0, clip.embedding_dim), np.float32)]
    for start in range(0, len(phrases), _WORDS):
        batch = phrases[start : start + _WORDS]
        embedded = embed_together(clip, prompts.about(batch))
        found.append(embedded.domains - embedded.base)
        if progress is not None:
            progress(start + len(batch), len(phrases))
    return np.concatenate(found)


def cached_directions(
    store: Store, clip: ClipModel, prompts: PromptSet, words: Sequence[str], progress: Progress | None = None
) -> np.ndarray:
    """The same, kept in ``cache/`` of the store until other words, templates or another model are asked for.

    Thousands of words take CLIP a while on a CPU. What is damaged is made again; where nothing can be written, nothing
    is kept.
    """
    content = [store.fingerprint.to_json(), prompts.templates, prompts.bases, list(words)]
    if prompts.learned is not None:
        content.append(prompts.learned.digest())
    path = _path(store, "words", content)
    kept = read_array(path)
    if kept is None or kept.shape != (len(words), clip.embedding_dim):
        kept = _read_together(clip, prompts, words, progress)
        keep_array(path, kept)
    _forget_others(path, clip.embedding_dim)
    return kept


def _path(store: Store, kind: str, content: Sequence[object]) -> Path:
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    return store.root / "cache" / f"{kind}-{key}.npy"


def _forget_others(path: Path, dim: int) -> None:
    """Remove what was kept of other words, also where a killed process came no further than to write ``path``."""
    with contextlib.suppress(LanitError, OSError):
        for other in path.parent.iterdir():
            named = _FILE.fullmatch(other.name)
            if named is None or named["kind"] != path.name.partition("-")[0]:
                continue
            sweep_beside(path.with_name(named["name"]))
            if other.name == named["name"] != path.name and _is_ours(other, dim):
                other.unlink()


def _is_ours(path: Path, dim: int) -> bool:
    """Whether a file whose name is one of ours also has the content; older ones have no digest."""
    if content_of(path) is not None:
        return True
    with contextlib.suppress(OSError, ValueError), path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        return dtype == np.float32 and shape[1:] == (dim,)
    return False
