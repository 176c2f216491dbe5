"""How far labels of two crops agree: of a revision, kept beside the views, and of any rule on what was kept."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lanit.agreement import NEAR_SYNONYMS, Agreement
from lanit.labels import EmbeddedPrompts, assign, decide
from lanit.rules import Rule
from pipeline.stability.views import Views, read_views
from pipeline.store.caches import content_of, keep_array, read_array

if TYPE_CHECKING:
    from lanit.linear_head import LinearHead
    from pipeline.prompts.prompt_sets import PromptSet
    from pipeline.store.label_revisions import RevisionFile
    from pipeline.store.store import Store

_FILE = re.compile(r"stability-[0-9a-f]{16}\.npy")
_KEPT = 16  # revisions whose margins are kept


@dataclass(frozen=True)
class ViewLabels:
    """Labels of two crops of n images. active: bool (2×n×N); margins: float32 (2×n×N); base: f_base, float32 (2×n)."""

    active: np.ndarray
    margins: np.ndarray
    base: np.ndarray

    def agreements(self) -> tuple[Agreement, ...]:
        """Of each of the N domains."""
        return agreements_of(*self.active)

    def by_rule(self, rule: Rule, prompts: PromptSet) -> tuple[Agreement, ...]:
        """What another rule would give, with the offsets and weights of ``prompts``."""
        offsets, weights = (np.array(values, np.float32) for values in (prompts.offsets, prompts.weights))
        first, second = (
            decide(rule, margins, base, offsets, weights) for margins, base in zip(self.margins, self.base, strict=True)
        )
        return agreements_of(first, second)


def agreements_of(first: np.ndarray, second: np.ndarray) -> tuple[Agreement, ...]:
    """Of each column of two labellings of the same images, bool (n×N)."""
    both, one, other = ((a & b).sum(axis=0) for a, b in ((first, second), (first, ~second), (~first, second)))
    return tuple(
        Agreement(int(a), int(b), int(c), len(first) - int(a + b + c)) for a, b, c in zip(both, one, other, strict=True)
    )


def label_views(views: Views, embedded: EmbeddedPrompts, rule: Rule, head: LinearHead | None = None) -> ViewLabels:
    """head: of the rules ``clusters`` and ``filled``."""
    prompts, of_head = embedded.arrays(), None if head is None else head.arrays()
    decided = [assign(rule, crop, prompts, of_head) for crop in views.crops]
    active, margins, base = (np.stack(each) for each in zip(*decided, strict=True))
    return ViewLabels(active, margins, base)


def keep_view_labels(store: Store, views: Views, revision: RevisionFile, labels: ViewLabels) -> None:
    """Keep them for reports, which then open no image and load no CLIP; where nothing can be written, nothing is."""
    path = _path(store, views, revision)
    table = np.empty(len(views), _dtype(len(revision.domains)))
    for name in ("active", "margins"):
        table[name] = getattr(labels, name).transpose(1, 0, 2)
    table["base"] = labels.base.T
    if not keep_array(path, table):
        return
    with contextlib.suppress(OSError):
        others = [other for other in path.parent.iterdir() if _FILE.fullmatch(other.name) and other != path]
        others.sort(key=lambda other: other.stat().st_mtime_ns)
        for other in others[: max(0, len(others) + 1 - _KEPT)]:
            if content_of(other) is not None:
                other.unlink()


def read_view_labels(store: Store, revision: RevisionFile) -> ViewLabels | None:
    """What was kept of ``revision``, for the images that the store holds now; none where nothing was."""
    views = read_views(store)
    if views is None:
        return None
    table = read_array(_path(store, views, revision))
    if table is None or table.dtype != _dtype(len(revision.domains)) or len(table) != len(views):
        return None
    active, margins = (np.ascontiguousarray(table[name].transpose(1, 0, 2)) for name in ("active", "margins"))
    return ViewLabels(active, margins, np.ascontiguousarray(table["base"].T))


def _path(store: Store, views: Views, revision: RevisionFile) -> Path:
    key = hashlib.sha256(f"{views.name} {revision.header_sha256}".encode()).hexdigest()[:16]
    return store.root / "cache" / f"stability-{key}.npy"


def _dtype(domains: int) -> np.dtype[np.void]:
    return np.dtype([("active", "?", (2, domains)), ("margins", "<f4", (2, domains)), ("base", "<f4", (2,))])


def worst_first(domains: Sequence[str], agreements: Sequence[Agreement]) -> list[tuple[str, Agreement]]:
    """Domains with their agreement, the least stable first."""
    return sorted(zip(domains, agreements, strict=True), key=lambda pair: pair[1].score)


def newly_alike(domains: Sequence[str], before: ViewLabels, after: ViewLabels) -> tuple[tuple[str, str], ...]:
    """Pairs of phrases that came to say the same: what is stable because all say one thing is no gain."""
    old = _alike(domains, before)
    return tuple(pair for pair in _alike(domains, after) if pair not in old)


def _alike(domains: Sequence[str], labels: ViewLabels) -> list[tuple[str, str]]:
    """Pairs of phrases whose labels correlate so strongly that they say the same."""
    active = labels.active.reshape(-1, len(domains)).astype(float)
    centred = active - active.mean(axis=0)
    spread = np.sqrt((centred**2).mean(axis=0))
    product = np.outer(spread, spread)
    phi = np.divide(centred.T @ centred / len(active), product, out=np.zeros_like(product), where=product > 0)
    return [(domains[a], domains[b]) for a, b in np.argwhere(np.triu(phi > NEAR_SYNONYMS, 1))]
