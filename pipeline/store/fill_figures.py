"""What a label revision says of labels that were filled in from known ones: how far they can be trusted."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class DomainFill:
    """A phrase. on, off: known labels. learned: whether there were enough of both; else its other labels are by words.

    f1_words: of the known labels by words; f1: by heads that they were left out of, with its 95 % interval.
    f1_left_out: of the labels that ``keep`` left out. None where there are none to tell it by.
    """

    domain: str
    on: int
    off: int
    learned: bool = False
    f1_words: float | None = None
    f1: float | None = None
    f1_low: float | None = None
    f1_high: float | None = None
    f1_left_out: float | None = None


@dataclass(frozen=True)
class FillFigures:
    """images: of which something is known. keep: the share of those given that was taken, by ``seed``; left_out: images
    given and not taken. one_hot: whether each image got one label. spread: how far the heads may turn from the words.

    f1_words, f1, f1_low, f1_high, f1_left_out: macro means, over the phrases that were learned; the last over all.
    doubted: known labels that heads which they were left out of hold for wrong, at odds of ``DOUBTED``.
    """

    images: int
    keep: float
    seed: int
    left_out: int
    one_hot: bool
    spread: float | None
    f1_words: float | None
    f1: float | None
    f1_low: float | None
    f1_high: float | None
    f1_left_out: float | None
    doubted: int
    domains: tuple[DomainFill, ...]

    @property
    def learned(self) -> int:
        return sum(domain.learned for domain in self.domains)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"domains": [asdict(domain) for domain in self.domains]}

    @classmethod
    def from_json(cls, value: Any) -> FillFigures:
        """What ``to_json`` wrote; TypeError or KeyError where ``value`` is anything else."""
        return cls(**value | {"domains": tuple(DomainFill(**domain) for domain in value["domains"])})
