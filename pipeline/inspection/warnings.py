"""What is wrong with a set of labels, in words, each with the next thing to try."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from lanit.errors import listed

if TYPE_CHECKING:
    from pipeline.inspection.label_statistics import Alike, DomainStatistics, LabelStatistics

ALWAYS = 0.95
"""A prompt that labels more than this share of the images tells nearly nothing about any of them."""

LOW_COVERAGE = 0.5
"""Below this share of images with a label, the slack domain is the largest of all."""

OFTEN_AMBIGUOUS = 0.5
"""Where more of a prompt's margins than this lie within ±ε, most of its labels could as well be the other way."""

UNSTABLE = 0.5
"""Below this κ two crops of an image get the same label not much more often than by chance."""

OFTEN_FLIPPED = 0.1
"""Training shows mirrored and cropped images under the labels of whole ones: this share of wrong labels is a lot."""

OFTEN_COPIED = 0.05
"""A share of near-duplicates that makes a store look larger than it is."""

BETTER_F1 = 0.1
"""A gain in F1 that is worth an offset."""

MOST_ALIKE = 12
"""Warnings of one kind that are given in words; how many more there are is a warning of its own."""

_NAMED = 5  # domains named in one warning


def with_warnings(statistics: LabelStatistics) -> LabelStatistics:
    """The same statistics with the warnings that their figures call for."""
    return dataclasses.replace(statistics, warnings=tuple(warnings_of(statistics)))


def warnings_of(statistics: LabelStatistics) -> Iterator[str]:
    """Every warning that the figures call for, the gravest first."""
    checks: tuple[Callable[[LabelStatistics], Iterator[str]], ...] = (
        _never, _always, _coverage, _small, _synonyms, _ambiguous, _unstable, _flipped, _leaks, _copies, _offsets,
        _weights,
    )  # fmt: skip
    for check in checks:
        found = check(statistics)
        yield from itertools.islice(found, MOST_ALIKE)
        more = sum(1 for _ in found)
        if more:
            yield f"and {more:,} more like the one before: lanit inspect-labels --json has the figures of all phrases"


def _never(statistics: LabelStatistics) -> Iterator[str]:
    for d in statistics.domains:
        if d.count == 0:
            bar = f", or lower its bar: {_line(d, d.margin_p95)}" if _adaptive(statistics) else ""
            yield f"'{d.domain}' labels no image: reword it, leave it out{bar}"


def _always(statistics: LabelStatistics) -> Iterator[str]:
    for d in statistics.domains:
        if d.share > ALWAYS:
            yield (
                f"'{d.domain}' labels {_percent(d.share)} of the images and tells none of them from the others: "
                f"{_how_to_narrow(statistics, d)}"
            )


def _how_to_narrow(statistics: LabelStatistics, d: DomainStatistics) -> str:
    if not _adaptive(statistics):
        return "reword it, leave it out, or try --rule adaptive"
    return (
        "the base prompt may be too weak; say what all images show with --noun or with template: and base: lines "
        f"of your own, or raise its bar: {_line(d, d.margin_p50)}"
    )


def _coverage(statistics: LabelStatistics) -> Iterator[str]:
    if statistics.coverage < LOW_COVERAGE:
        yield (
            f"only {_percent(statistics.coverage)} of the images have a label: add phrases for what the others show; "
            "lanit suggest-prompts looks for some"
        )


def _small(statistics: LabelStatistics) -> Iterator[str]:
    small = sorted((d.count, d.domain) for d in statistics.domains if 0 < d.count < statistics.minimum)
    if small:
        named = ", ".join(f"'{domain}' ({count:,})" for count, domain in small[:_NAMED])
        more = f" and {len(small) - _NAMED} more" if len(small) > _NAMED else ""
        yield (
            f"too few images to learn from, below {statistics.minimum}: {named}{more}: add images, "
            "join it with a phrase like it, or leave it out"
        )


def _synonyms(statistics: LabelStatistics) -> Iterator[str]:
    for group in statistics.alike:
        yield f"{alike_text(group)}: keep one of them"


def alike_text(group: Alike) -> str:
    """Which prompts label the same images, and how nearly."""
    first = [f"'{prompt}'" for prompt in group.prompts]
    named = f"{first[0]} and {first[1]}" if len(first) == 2 else listed(first, _NAMED)
    how = f"correlation {group.phi:.2f}" if len(first) == 2 else f"correlation with the first {group.phi:.2f} or more"
    return f"{named} label the same images ({how})"


def _ambiguous(statistics: LabelStatistics) -> Iterator[str]:
    for d in statistics.domains:
        if d.ambiguous_share > OFTEN_AMBIGUOUS and _adaptive(statistics):
            yield (
                f"'{d.domain}' is unsure on {_percent(d.ambiguous_share)} of the images: its wording hardly moves "
                "CLIP; try another, or more templates"
            )


def _unstable(statistics: LabelStatistics) -> Iterator[str]:
    for d in statistics.domains:
        if d.stability is not None and d.stability < UNSTABLE:
            yield (
                f"'{d.domain}' is unstable: two crops of an image agree on it in only {_percent(max(d.stability, 0))} "
                "of what chance leaves open; reword it, or see lanit label --choose-template --dry-run"
            )


def _flipped(statistics: LabelStatistics) -> Iterator[str]:
    for d in statistics.domains:
        for what, share in (("mirrored", d.mirror_flips), ("cropped", d.crop_flips)):
            if share is not None and share > OFTEN_FLIPPED:
                remedy = "leave it out" if what == "mirrored" else "try --set crop=0 in lanit train"
                yield (
                    f"the label '{d.domain}' changes on {_percent(share)} of the images when they are {what}, as "
                    f"training does: reword it, or {remedy}"
                )


def _leaks(statistics: LabelStatistics) -> Iterator[str]:
    for leak in statistics.duplicates.leaks if statistics.duplicates else ():
        yield (
            f"{leak.groups:,} groups of near-duplicates have images in both '{leak.first}' and '{leak.second}': "
            f"scores on one flatter what learned from the other; lanit duplicates --between '{leak.first}' "
            f"'{leak.second}' lists them"
        )


def _copies(statistics: LabelStatistics) -> Iterator[str]:
    found = statistics.duplicates
    if found is not None and found.share > OFTEN_COPIED:
        yield (
            f"{_percent(found.share)} of the images are near-duplicates of others: lanit duplicates --csv FILE lists "
            "what to leave out"
        )


def _offsets(statistics: LabelStatistics) -> Iterator[str]:
    if statistics.scores is None or not _adaptive(statistics):
        return
    own = {d.domain: d for d in statistics.domains}
    for d in statistics.scores.domains:
        if d.best_offset is not None and d.best_f1 is not None and d.best_f1 - d.f1 >= BETTER_F1:
            yield (
                f"'{d.domain}' has F1 {d.f1:.2f}; on this truth it would be {d.best_f1:.2f} with: "
                f"{_line(own[d.domain], d.best_offset)}"
            )


def _weights(statistics: LabelStatistics) -> Iterator[str]:
    weighted = [d.domain for d in statistics.domains if d.weight != 1]
    if weighted and not statistics.rule.weighted:
        yield (
            f"the weight of '{weighted[0]}' changes no label: weights count where domains compete; "
            "try --rule top-2, or an offset"
        )


def _adaptive(statistics: LabelStatistics) -> bool:
    return statistics.rule.kind == "adaptive"


def _line(d: DomainStatistics, offset: float) -> str:
    """A line of a prompt file."""
    weight = f" weight={d.weight:g}" if d.weight != 1 else ""
    return f"{d.domain} | offset={offset:.3g}{weight}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
