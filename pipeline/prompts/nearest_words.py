"""What learned prompts say, as far as words can tell: the tokens of CLIP nearest to each learned embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from lanit.errors import LanitError
from lanit.sentences import before_phrase

if TYPE_CHECKING:
    from lanit.prompts import TextTower
    from pipeline.clip.models import ClipModel
    from pipeline.prompts.prompt_sets import PromptSet

NEAREST = 5


@dataclass(frozen=True)
class NearToken:
    """token: as :meth:`lanit.prompts.TextTower.token_text` writes it. cosine: with the learned embedding."""

    token: str
    cosine: float


@dataclass(frozen=True)
class LearnedWord:
    """One learned embedding p of a template (METHOD 12).

    template: its text. position: of the token in it, from 0. initial: the token that p began as, of embedding p₀.
    moved: ‖p − p₀‖; length: ‖p₀‖. nearest: tokens of the largest cosine with p, which may be the initial one.
    """

    template: str
    position: int
    initial: str
    moved: float
    length: float
    nearest: tuple[NearToken, ...]


@torch.no_grad()
def learned_words(
    clip: ClipModel, prompts: PromptSet, context: Tensor | None = None, count: int = NEAREST
) -> tuple[LearnedWord, ...]:
    """Every learned embedding of ``prompts``, template by template, with the ``count`` tokens nearest to it.

    context: float (M×L×w), such as :class:`lanit.prompts.PromptLearner` has; what ``prompts`` have learned if left out.
    Tokens whose embedding is zero, and where ``clip`` lists its vocabulary those of other words, are not compared: the
    model never saw them. Raises LanitError where the prompts have learned nothing.
    """
    if context is None:
        if prompts.learned is None:
            raise LanitError(f"the prompts '{prompts.name}' have learned nothing", "Train with prompt learning.")
        context = torch.from_numpy(prompts.learned.array().copy())
    tower = clip.text
    prefixes = [tower.tokenize(before_phrase(template)) for template in prompts.templates]
    table = tower.token_table()
    seen = _seen_tokens(tower, table, [token for prefix in prefixes for token in prefix], clip.vocabulary)
    directions = F.normalize(table[seen], dim=-1)
    words = []
    for template, prefix, learned in zip(prompts.templates, prefixes, context.to(table), strict=True):
        for position, (token, embedding) in enumerate(zip(prefix, learned, strict=False)):
            cosines = directions @ F.normalize(embedding, dim=-1)
            best = cosines.topk(min(count, len(seen)))
            nearest = tuple(
                NearToken(tower.token_text(int(seen[n])), float(cosine)) for cosine, n in zip(*best, strict=True)
            )
            start = table[token]
            moved, length = float((embedding - start).norm()), float(start.norm())
            words.append(LearnedWord(template, position, tower.token_text(token), moved, length, nearest))
    return tuple(words)


def _seen_tokens(tower: TextTower, table: Tensor, used: Sequence[int], vocabulary: frozenset[str] | None) -> Tensor:
    """Ids to compare with, int64, rising: those that the model learned, without start and end.

    used: ids of the templates, which count as seen unless their embedding is zero. vocabulary: the words it saw.
    """
    seen = (table != 0).any(dim=1)
    if vocabulary is not None:
        known = sorted({*used, *(token for word in vocabulary for token in tower.tokenize(word))})
        listed = torch.zeros_like(seen)
        listed[torch.tensor(known, device=seen.device)] = True
        seen &= listed
    seen[[tower.sos, tower.eos]] = False
    return seen.nonzero()[:, 0]
