"""A few known labels to labels of all images: a head on stored embeddings that starts at the words (SEMIT's job).

:mod:`lanit.heads` says what is fitted. How strongly the words hold it back is chosen by cross-validation, once for all
phrases; it grows with the mistakes among the known labels. Those that are surely mistaken, as heads see it which they
were left out of, are left out of the fit, and stay as they are. F1 is of known labels left out of the fit, its interval
by bootstrap over the images. Where a phrase has hardly any known labels, its words decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from lanit.errors import LanitError
from lanit.heads import FOLDS, KnownLabels, Validated, bars, cross_validate, fit
from lanit.labels import EmbeddedPrompts, assign
from lanit.linear_head import LinearHead
from lanit.rules import Rule
from pipeline.labelling.fill_request import Codes, Fill
from pipeline.store.fill_figures import DomainFill, FillFigures

if TYPE_CHECKING:
    from pipeline.store.store import Store

LEAST_KNOWN = 3
"""Known labels of a phrase that are on, and as many that are off, below which its words decide."""

DOUBTED = 0.95
"""A known label is doubted where heads that it was left out of give the opposite at least this probability."""

_MOST_FITTED = 16_384  # images with known labels that a head is fitted to: bounds memory and time
_MOST_VALIDATED = 4096  # of them, of which the strength is chosen and the F1 measured
_POOL = 16_384  # images of the store by which is told how many labels are to be expected
_ROUNDS = 500  # of the bootstrap


@dataclass(frozen=True)
class Filled:
    """head: what decides the labels that are not known; none where nothing could be learned and words decide all."""

    head: LinearHead | None
    figures: FillFigures


def fill(
    store: Store,
    embedded: EmbeddedPrompts,
    domains: Sequence[str],
    rule: Rule,
    known: Codes,
    left_out: Codes | None,
    asked: Fill,
) -> Filled:
    """Fit a head to what is known of the images of ``store``. Equal arguments give an equal head.

    embedded: prompts, whose labels under ``rule`` the head begins with: adaptive, or arg-max, under which
    each image gets one label. known: int8 (n×N). left_out: what was given besides and was not taken, (n×N): a
    free test. Raises LanitError where the rule is another.
    """
    if rule.kind not in ("adaptive", "argmax"):
        message = f"labels are filled in by the adaptive rule or by arg-max, not by {rule.describe()}"
        raise LanitError(message, "Leave --rule out, or type --rule adaptive.")
    on, off = (known == 1).sum(axis=0), (known == 0).sum(axis=0)
    learned = np.flatnonzero((on >= LEAST_KNOWN) & (off >= LEAST_KNOWN))
    one_hot = rule.kind == "argmax"
    work = _Work(store, embedded.tensors(), one_hot, known, np.arange(len(on)) if one_hot and len(learned) else learned)
    found = work.head() if len(learned) else None
    head = found.head if found else None
    f1_left_out = work.left_out_f1(head, rule, left_out)
    rows = []
    for n, domain in enumerate(domains):
        row = DomainFill(domain, int(on[n]), int(off[n]), f1_left_out=f1_left_out[n])
        at = np.flatnonzero(work.columns == n)
        if found and len(at) and n in learned:
            by_words, f1, low, high = (float(values[at[0]]) for values in found.f1)
            row = DomainFill(domain, row.on, row.off, True, by_words, f1, low, high, row.f1_left_out)
        rows.append(row)
    told = [value for value in f1_left_out if value is not None]
    macro = found.macro if found else (None,) * 4
    figures = FillFigures(
        images=int((known >= 0).any(axis=1).sum()), keep=asked.keep, seed=asked.seed,
        left_out=0 if left_out is None else int((left_out >= 0).any(axis=1).sum()), one_hot=one_hot,
        spread=found.spread if found else None, f1_words=macro[0], f1=macro[1], f1_low=macro[2], f1_high=macro[3],
        f1_left_out=float(np.mean(told)) if told else None, doubted=found.doubted if found else 0, domains=tuple(rows),
    )  # fmt: skip
    return Filled(head, figures)


@dataclass(frozen=True)
class _Found:
    """f1: by words, by the heads, and the ends of its interval, of each of M domains; macro: the means."""

    head: LinearHead
    spread: float
    f1: tuple[NDArray[np.float64], ...]
    macro: tuple[float, ...]
    doubted: int


@dataclass(frozen=True)
class _Work:
    """columns: int64 (M), the domains that are learned."""

    store: Store
    embedded: EmbeddedPrompts
    one_hot: bool
    known: Codes
    columns: NDArray[np.int64]

    def head(self) -> _Found:
        rng = np.random.default_rng(0)
        rows = np.flatnonzero((self.known[:, self.columns] >= 0).any(axis=1))
        drawn = rng.permutation(rows)[:_MOST_FITTED]
        pool = torch.from_numpy(self.store.embeddings_of(np.sort(rng.permutation(self.store.ok)[:_POOL])))
        mean = pool.mean(dim=0)
        known, fold = self._known_labels(drawn, mean), torch.arange(len(drawn)) % FOLDS
        few = slice(0, _MOST_VALIDATED)
        found = cross_validate(known.rows(few), fold[few])
        logits, beyond = self._held_out(known, fold, found, pool - mean, self._prior(pool))
        doubted = _doubted(logits, known)
        whole = fit(replace(known, counts=known.counts * ~doubted), found.spread)
        bar = torch.zeros(len(self.columns)) if self.one_hot else bars(whole.logits(pool - mean, self._prior(pool)))
        directions = (self.embedded.domains - self.embedded.base)[self.columns]
        weights = (self.embedded.scale * whole.scale)[:, None] * directions + whole.delta.T
        shift = whole.shift - self.embedded.scale * whole.scale * self.embedded.offsets[self.columns]
        bias = shift - whole.delta.T @ mean - bar
        head = LinearHead(weights.contiguous(), bias, self.one_hot, self.columns).arrays()
        by_words, by_head = (self._labels(values[few]).numpy() for values in (known.prior, beyond))
        f1, macro = _scores(by_words, by_head, known.on[few].numpy(), known.counts[few].numpy(), rng)
        return _Found(head, found.spread, f1, macro, int(doubted.sum()))

    def _prior(self, images: torch.Tensor) -> torch.Tensor:
        """What the words say: α(m − o), (B×M) of unit-norm embeddings (B×k)."""
        beyond = self.embedded.margins(images) - self.embedded.offsets
        return self.embedded.scale * beyond[:, self.columns]

    def _known_labels(self, rows: NDArray[np.int64], mean: torch.Tensor) -> KnownLabels:
        images = torch.from_numpy(self.store.embeddings_of(rows))
        said = torch.from_numpy(self.known[np.ix_(rows, self.columns)])
        return KnownLabels(images - mean, self._prior(images), (said == 1).float(), (said >= 0).float())

    def _held_out(
        self, known: KnownLabels, fold: torch.Tensor, found: Validated, pool: torch.Tensor, prior: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """By the heads that each image was left out of: logits, and logits beyond the bar, (n×M)."""
        beyond, logits = torch.empty_like(known.prior), torch.empty_like(known.prior)
        for number, part in enumerate(found.fits):
            held = fold == number
            logits[held] = part.logits(known.images[held], known.prior[held])
            beyond[held] = logits[held] - (0 if self.one_hot else bars(part.logits(pool, prior)))
        return logits, beyond

    def _labels(self, logits: torch.Tensor) -> torch.Tensor:
        if not self.one_hot:
            return logits > 0
        return torch.nn.functional.one_hot(logits.argmax(dim=1), logits.shape[1]).bool()

    def left_out_f1(self, head: LinearHead | None, rule: Rule, left_out: Codes | None) -> list[float | None]:
        """Of each domain on the labels that were left out; none without any."""
        rows = np.flatnonzero((left_out >= 0).any(axis=1)) if left_out is not None else np.empty(0, np.int64)
        if left_out is None or not len(rows):
            return [None] * self.known.shape[1]
        active, truth, said = [], left_out[rows] == 1, left_out[rows] >= 0
        for part in np.array_split(rows, -(-len(rows) // _POOL)):
            active.append(assign(rule, self.store.embeddings_of(part), self.embedded.arrays(), head)[0])
        labels = np.concatenate(active)
        right = (labels & truth & said).sum(axis=0)
        both = ((labels & said).sum(axis=0) + (truth & said).sum(axis=0)).astype(float)
        scores = np.divide(2 * right, both, out=np.full(both.shape, np.nan), where=both > 0)
        return [None if np.isnan(score) else float(score) for score in scores]


def _doubted(logits: torch.Tensor, known: KnownLabels) -> torch.Tensor:
    """Bool (n×M)."""
    opposite = torch.sigmoid(torch.where(known.on > 0, -logits, logits))
    return (opposite >= DOUBTED) & (known.counts > 0)


def _scores(
    by_words: np.ndarray, by_head: np.ndarray, on: np.ndarray, counts: np.ndarray, rng: np.random.Generator
) -> tuple[tuple[NDArray[np.float64], ...], tuple[float, ...]]:
    """F1 by words, by the heads, and the ends of the 95 % interval of the latter: of each domain, and macro means.

    by_words, by_head: labels, bool (n×M); on, counts: as in :class:`KnownLabels`.
    """
    known = counts > 0
    once = np.ones((1, len(on)))
    drawn = rng.multinomial(len(on), np.full(len(on), 1 / len(on)), size=_ROUNDS).astype(np.float32)
    said = (on > 0) & known
    words, head, rounds = (
        _f1(labels & known, said, weights) for labels, weights in ((by_words, once), (by_head, once), (by_head, drawn))
    )
    low, high = np.quantile(rounds, (0.025, 0.975), axis=0)
    ends = np.quantile(rounds.mean(axis=1), (0.025, 0.975))
    macro = (float(words.mean()), float(head.mean()), float(ends[0]), float(ends[1]))
    return (words[0], head[0], low, high), macro


def _f1(labels: np.ndarray, said: np.ndarray, weights: np.ndarray) -> NDArray[np.float64]:
    """(b×M), each image being there ``weights`` times, (b×n). labels, said: bool (n×M), both off where unknown."""
    right = weights @ (labels & said).astype(np.float32)
    both = weights @ labels.astype(np.float32) + weights @ said.astype(np.float32)
    out: NDArray[np.float64] = np.divide(2 * right, both, out=np.zeros(both.shape), where=both > 0)
    return out
