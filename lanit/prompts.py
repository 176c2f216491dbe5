"""Prompts as embeddings, fixed or learned: METHOD §4."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lanit.errors import LanitError, excerpt
from lanit.sentences import before_phrase, sentence, without_phrase

SENTENCES_AT_ONCE = 512
"""Sentences that the tower reads at once where nothing is learned: bounds the memory at any number of phrases."""


class TextTower(Protocol):
    """What prompt learning needs of CLIP's text side; every weight of it is frozen."""

    context_length: int
    sos: int
    eos: int

    def tokenize(self, text: str) -> list[int]:
        """Token ids of ``text`` without start, end or padding. Raises LanitError where it holds a mark of those."""

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Token embeddings, float32 (…×w), of ids, int64 (…), without positions."""

    def token_table(self) -> Tensor:
        """The embeddings of all V tokens, float32 (V×w), by id."""

    def token_text(self, token: int) -> str:
        """What a token stands for, printable; a piece that a word goes on after ends in "-"."""

    def encode(self, embedded: Tensor, eos_positions: Tensor) -> Tensor:
        """Projected text features, float32 (P×k), not normalised.

        embedded: float32 (P×T×w), T ≤ context_length; the tower is causal, so nothing after [eos]
        matters (METHOD 16). eos_positions: int64 (P).
        """


class PromptLearner(nn.Module):
    """The prompts of a set as one table of token embeddings (METHOD 12).

    Prompt n under template m reads [sos][template m with phrase n][eos], cut into tokens as a whole, since how a word
    is cut depends on its neighbours. The embeddings of its leading tokens are the learnable parameters, as far as they
    are those of the template before {}; they are shared by all domains and by the base prompts. All else is frozen.

    templates: M strings with one ``{}`` each. bases: M strings, or none to leave the phrase out of the templates;
    a base text of its own keeps the learned prefix where it begins like its template.
    context: embeddings (M×L×w) that the parameters begin with, as learned before; none for the templates' own.
    """

    frozen: Tensor
    rows: Tensor
    ends: Tensor

    def __init__(
        self,
        tower: TextTower,
        domains: Sequence[str],
        templates: Sequence[str],
        bases: Sequence[str] = (),
        context: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.tower = tower
        self.domains = len(domains)
        self.templates = len(templates)
        prefixes = [tower.tokenize(before_phrase(template)) for template in templates]
        longest = max(len(prefix) for prefix in prefixes)
        texts = [sentence(template, domain) for domain in domains for template in templates]
        texts += bases or [without_phrase(template) for template in templates]
        sequences: list[list[int]] = []  # entries ≥ 0 are token ids, −1 − slot is learnable slot `slot`
        for p, text in enumerate(texts):
            m = p % len(templates)
            sequences.append([tower.sos, *_tied(tower.tokenize(text), prefixes[m], m * longest), tower.eos])
        length = max(len(sequence) for sequence in sequences)
        if length > tower.context_length:
            worst = max(range(len(sequences)), key=lambda p: len(sequences[p]))
            phrase_text = (*domains, "(base prompt)")[worst // len(templates)]
            raise LanitError(
                f"the prompt for '{excerpt(phrase_text)}' needs {length} tokens; this CLIP reads "
                f"{tower.context_length}",
                "Shorten the phrase or its templates in the prompt file.",
            )
        self._build(sequences, prefixes, longest, length)
        if context is not None:
            self._begin_with(context)

    def _build(self, sequences: list[list[int]], prefixes: list[list[int]], longest: int, length: int) -> None:
        """Lay parameters and frozen tokens in one table, and every prompt as rows of it."""
        ids = sorted({token for sequence in sequences for token in sequence if token >= 0})
        slots = self.templates * longest
        row_of = {token: slots + position for position, token in enumerate(ids)}
        rows = [
            [row_of[t] if t >= 0 else -1 - t for t in s] + [row_of[self.tower.eos]] * (length - len(s))
            for s in sequences
        ]
        padded = torch.tensor(
            [prefix + [self.tower.eos] * (longest - len(prefix)) for prefix in prefixes], dtype=torch.long
        )
        with torch.no_grad():
            self.context = nn.Parameter(self.tower.embed_tokens(padded.reshape(self.templates, longest)).clone())
            self.register_buffer("frozen", self.tower.embed_tokens(torch.tensor(ids)).clone(), persistent=False)
        self.register_buffer("rows", torch.tensor(rows), persistent=False)
        self.register_buffer("ends", torch.tensor([len(s) - 1 for s in sequences]), persistent=False)

    def _begin_with(self, context: Tensor) -> None:
        templates, longest, width = self.context.shape
        if context.shape[::2] != (templates, width) or context.shape[1] < longest:
            raise LanitError(
                f"the learned prompts are {tuple(context.shape)}; these templates and this CLIP take "
                f"{tuple(self.context.shape)}",
                "Use the prompts and the CLIP that they were learned with.",
            )
        with torch.no_grad():  # of a single template, L may be smaller than that of the set it was learned in
            self.context.copy_(context[:, :longest])

    def text_features(self, context: Tensor | None = None, *, alone: bool = False) -> tuple[Tensor, Tensor]:
        """Unit-norm text embeddings ū (N×k) of the domains and ū_base (k); mean over templates first (METHOD §1).

        context: token embeddings (M×L×w) to use in place of the parameters, such as their average. alone: the tower
        reads the sentences of one domain at a time, which does not change a domain's bits with its company.
        """
        table = torch.cat([(self.context if context is None else context).flatten(0, 1), self.frozen])
        usual = len(self.rows) if torch.is_grad_enabled() else SENTENCES_AT_ONCE
        at_once = self.templates if alone else usual
        groups = zip(self.rows.split(at_once), self.ends.split(at_once), strict=True)
        features = torch.cat([self.tower.encode(table[_cut(rows, ends, alone)], ends) for rows, ends in groups])
        mean = features.unflatten(0, (self.domains + 1, self.templates)).mean(dim=1)
        unit = F.normalize(mean, dim=-1)
        return unit[:-1], unit[-1]


def _cut(rows: Tensor, ends: Tensor, alone: bool) -> Tensor:
    """rows without the padding that longer sentences elsewhere asked for, where these stand alone."""
    return rows[:, : int(ends.max()) + 1] if alone else rows


def _tied(tokens: list[int], prefix: list[int], first_slot: int) -> list[int]:
    """A text with its leading tokens tied to the template's learnable slots as far as they agree."""
    shared = 0
    while shared < min(len(tokens), len(prefix)) and tokens[shared] == prefix[shared]:
        shared += 1
    return [*(-1 - (first_slot + i) for i in range(shared)), *tokens[shared:]]
