"""Rules side by side: what each would label, from the stored margins alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lanit.errors import UsageError, excerpt
from lanit.labels import decide
from lanit.rules import SPELLINGS, Rule
from pipeline.inspection.scores import keys_of

if TYPE_CHECKING:
    from pipeline.labelling.known_labels import Truth
    from pipeline.store.label_revisions import Labels

_HINT = f"Write them like --rules {SPELLINGS.replace(', ', ',')}"


@dataclass(frozen=True)
class RuleOutcome:
    """What a rule labels. name: as in ``--rules``. counts: images of each of the N domains.

    f1: of each domain, None where the truth lacks it; f1, macro_f1, micro_f1: None where there is no truth.
    stability: mean κ of two crops, None where none were embedded.
    """

    name: str
    rule: Rule
    counts: tuple[int, ...]
    coverage: float
    labels_per_image: float
    f1: tuple[float | None, ...] | None = None
    macro_f1: float | None = None
    micro_f1: float | None = None
    stability: float | None = None

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"rule": self.rule.to_json()}


def parse_rules(text: str) -> tuple[Rule, ...]:
    """Rules by commas, each as :meth:`lanit.rules.Rule.parse` takes it. Raises UsageError for anything else, and for
    ``given``, which labels nothing by itself."""
    try:
        rules = tuple(Rule.parse(word.strip()) for word in text.split(",") if word.strip())
    except UsageError as error:
        raise UsageError(f"--rules: {error.message}", _HINT) from error
    if not rules or not all(rule.by_similarity for rule in rules):
        raise UsageError(f"--rules {excerpt(text)} names no rule that decides by similarity", _HINT)
    return rules


def compare_rules(revision: Labels, rules: Sequence[Rule], truth: Truth | None = None) -> tuple[RuleOutcome, ...]:
    """Label the images of ``revision`` by each rule, with its offsets and weights, from margins and f_base.

    Labels that people set take no part, so that rules are told apart by what they do themselves.
    """
    prompts = revision.prompt_set
    offsets, weights = np.array(prompts.offsets, np.float32), np.array(prompts.weights, np.float32)
    counts = [_Counts(rule, revision.domains) for rule in rules]
    rows = truth.align(*keys_of(revision)) if truth is not None else None
    for block in revision.blocks(margin=True, base=True):
        actual = None
        if truth is not None and rows is not None:
            actual = truth.values(rows[block.start : block.start + block.rows], revision.domains)
        for each in counts:
            each.add(decide(each.rule, block.margin, block.similarity_base, offsets, weights), actual)
    return tuple(each.outcome() for each in counts)


@dataclass
class _Counts:
    """Of one rule. right, predicted, actual: int64 (N), among the entries whose truth is known."""

    rule: Rule
    domains: Sequence[str]
    images: int = 0
    labelled: int = 0
    labels: np.ndarray = field(init=False)
    scored: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.labels = np.zeros(len(self.domains), np.int64)
        self.scored = np.zeros((4, len(self.domains)), np.int64)  # right, predicted, actual, known

    def add(self, active: np.ndarray, actual: np.ndarray | None) -> None:
        """active: bool (b×N). actual: int8 (b×N), −1 where it is not known."""
        self.images += len(active)
        self.labelled += int(active.any(axis=1).sum())
        self.labels += active.sum(axis=0)
        if actual is not None:
            known, on = actual >= 0, actual == 1
            self.scored += [each.sum(axis=0) for each in (active & on, active & known, on, known)]

    def outcome(self) -> RuleOutcome:
        right, predicted, actual, known = self.scored
        f1 = None
        macro = micro = None
        if known.any():
            values = 2 * right / np.maximum(predicted + actual, 1)
            f1 = tuple(float(value) if has else None for value, has in zip(values, known, strict=True))
            macro = float(values[known > 0].mean())
            micro = 2 * int(right.sum()) / max(int(predicted.sum() + actual.sum()), 1)
        return RuleOutcome(
            name=self.rule.text,
            rule=self.rule,
            counts=tuple(int(count) for count in self.labels),
            coverage=self.labelled / self.images,
            labels_per_image=int(self.labels.sum()) / self.images,
            f1=f1,
            macro_f1=macro,
            micro_f1=micro,
        )
