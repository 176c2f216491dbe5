"""The columns of the table of phrases on the page of labels: what each says, and how its values read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.showing.pages import score, whole

if TYPE_CHECKING:
    from pipeline.inspection.label_statistics import DomainStatistics, LabelStatistics
    from pipeline.inspection.scores import DomainScores

_MINUS = "\N{MINUS SIGN}"
_THIN = "\N{NARROW NO-BREAK SPACE}"


@dataclass(frozen=True)
class Column:
    """A column of the table of phrases. hint: what it means, in a sentence. text: how a value reads."""

    key: str
    name: str
    hint: str
    text: Callable[[float], str]
    value: Callable[[DomainStatistics, DomainScores | None], float | None]
    meter: bool = False


@dataclass(frozen=True)
class Cell:
    """text: as shown; value: to sort by, none where there is nothing; extra: a remark in small print."""

    column: Column
    text: str
    value: float | None
    extra: str = ""


def columns_of(statistics: LabelStatistics) -> tuple[Column, ...]:
    """The columns that this report has something to say in."""
    columns = [*_ALWAYS]
    if statistics.stability is not None:
        columns.append(_STABLE)
    if any(d.offset for d in statistics.domains):
        columns.append(_of("offset", "Offset", "Of the prompt file: labels begin above it", signed))
    if statistics.human:
        columns.append(_of("human", "By people", "Labels that a person set", whole))
    if statistics.augmented is not None:
        columns.append(_of("mirror_flips", "Mirror flips", "Labels that change when the image is mirrored", share))
        columns.append(_of("crop_flips", "Crop flips", "Labels that change when the image is cropped", share))
    return tuple(columns + list(_SCORES if statistics.scores is not None else ()))


def cell(column: Column, domain: DomainStatistics, scores: DomainScores | None) -> Cell:
    """What the column says of one domain."""
    value = column.value(domain, scores)
    extra = ""
    if column is _COMPANION and domain.companion is not None:
        extra = domain.companion.domain
    elif column is _STABLE and domain.stability_low is not None and domain.stability_high is not None:
        extra = f"{domain.stability_low:.2f} to {domain.stability_high:.2f}"
    return Cell(column, "–" if value is None else column.text(value), value, extra)


def signed(value: float) -> str:
    """A margin: +0.1234, with a true minus; 0.0000 where no digit is left."""
    text = f"{value:+.4f}"
    return text[1:] if float(text) == 0 else text.replace("-", _MINUS)


def share(value: float) -> str:
    """A share as a percentage of one decimal, as the table in the terminal has it."""
    return f"{100 * value:.1f}{_THIN}%"


def _of(name: str, title: str, hint: str, text: Callable[[float], str], meter: bool = False) -> Column:
    """A column of the field ``name`` of the statistics."""
    return Column(name, title, hint, text, lambda domain, _: getattr(domain, name), meter)


def _score(name: str, title: str, hint: str, meter: bool = False) -> Column:
    """A column of the field ``name`` of the scores; empty for a domain without truth."""
    return Column(name, title, hint, score, lambda _, scores: getattr(scores, name, None), meter)


_COMPANION = Column(
    "companion",
    "Goes with",
    "The phrase it is most correlated with, and how many of its images carry that too",
    share,
    lambda domain, _: None if domain.companion is None else domain.companion.share,
)
_STABLE = _of(
    "stability", "Stable", "How far the labels of two crops agree beyond chance: κ, with its 95 % interval", score
)
_ALWAYS = (
    _of("count", "Images", "Images that carry the label", whole),
    _of("share", "Share", "Of all images", share, meter=True),
    _of("mean_margin", "Mean margin", "Similarity to the phrase minus to the base, over all images", signed),
    _of("margin_p5", "5 % below", "5 % of the margins lie below", signed),
    _of("margin_p95", "95 % below", "95 % of the margins lie below", signed),
    _of("ambiguous_share", "Ambiguous", "Of all images, those that a little would move across the threshold", share),
    _of("only_share", "Only label", "Of its images, those that carry no other label", share),
    _COMPANION,
)
_SCORES = (
    _score("precision", "Precision", "Of its images, those that truly have it"),
    _score("recall", "Recall", "Of the images that truly have it, those it labels"),
    _score("f1", "F1", "Harmonic mean of precision and recall", meter=True),
    _score("average_precision", "AP", "Average precision, ranked by margin"),
)
