"""What must be said beside the figures: too few images, a partial judge, models that were not measured alike."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from pipeline.evaluation.figures import FEW_IMAGES, Repeats, RunFigures, SetFigures

_REPEATS = 0.01  # of the images of a side: below, twins move no figure that anybody would notice
_NAMES_SHOWN = 5


def few_images(counts: Sequence[tuple[int, int]], names: tuple[str, str]) -> list[str]:
    """A warning where a Fréchet distance rests on fewer images than :data:`FEW_IMAGES` on either side.

    counts: of both sides, of each distance. names: of the sides.
    """
    if not counts or min(min(pair) for pair in counts) >= FEW_IMAGES:
        return []
    sides = " and ".join(f"{_range([pair[side] for pair in counts])} {name}" for side, name in enumerate(names))
    return [
        f"{sides}: below {FEW_IMAGES:,} images a Fréchet distance is too large, and the more so the fewer they are. "
        "Compare it only with one of as many; KID has no such bias, and an interval"
    ]


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def repeated_images(repeats: Sequence[Repeats], names: tuple[str, str], neighbours: int) -> list[str]:
    """A warning where images repeat themselves so that figures say less than they seem to.

    repeats: of each pair of sets that are compared. names: of the sides. neighbours: k of density and coverage.
    """
    found, (real, made) = [], names
    for side, shares in ((real, [each.real for each in repeats]), (made, [each.made for each in repeats])):
        if max(shares, default=0.0) >= _REPEATS:
            found.append(
                f"{_percents(shares)} of the {side} have a twin among them, with features that are almost the same: "
                "density and coverage are those of fewer images, and every interval is too narrow"
            )
    shares = [each.across for each in repeats]
    if max(shares, default=0.0) >= _REPEATS:
        found.append(
            f"{_percents(shares)} of the {made} are almost the same as real images: copies score better than new "
            "images can, by a Fréchet distance near 0 and a KID below 0"
        )
    few = [
        f"only {fewest:,} different {side} in one of the comparisons"
        for side, fewest in (
            (real, min((each.different_real for each in repeats), default=neighbours + 1)),
            (made, min((each.different_made for each in repeats), default=neighbours + 1)),
        )
        if fewest <= neighbours
    ]
    return found + [f"{each}: too few for density and coverage, which look at {neighbours} neighbours" for each in few]


def _percents(shares: Sequence[float]) -> str:
    low, high = min(shares), max(shares)
    return f"{high:.0%}" if f"{low:.0%}" == f"{high:.0%}" else f"{low:.0%} to {high:.0%}"


def warnings_of_matching(
    both: Sequence[str], real: Sequence[str], fake: Sequence[str], skipped: Mapping[str, str]
) -> list[str]:
    """Warnings of subfolders that are not compared one by one: names on both sides, and on one alone."""
    found = [f"the subfolder '{name}' is not compared by itself: {reason}" for name, reason in skipped.items()]
    if real or fake:
        alone = "; ".join(
            f"only among the {side}: {_some(names)}" for side, names in (("real", real), ("compared", fake)) if names
        )
        if both:
            found.append(f"{len(both)} of {len(both) + len(real) + len(fake)} subfolders are on both sides; {alone}")
        else:
            found.append(f"no subfolder is on both sides, so none is compared by itself, and there is no mFID; {alone}")
    return found


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"


def warnings_of_runs(
    runs: Sequence[RunFigures],
    origins: Sequence[str],
    *,
    judged: bool,
    neighbours: int,
    whole_at: int | None = None,
) -> list[str]:
    """Warnings of an evaluation of models.

    origins: where each took the labels of the real images from. neighbours: k of density and coverage. whole_at: pixels
    at which the real images were embedded, none where they passed through the size of the model.
    """
    domains = [domain for run in runs for guide in run.guides for domain in guide.domains]
    found = few_images([(each.real, each.translations) for each in domains], ("real images", "translations a domain"))
    found += repeated_images([each.repeats for each in domains], ("real images", "translations"), neighbours)
    skipped = dict.fromkeys(
        f"{run.run}: no figures for '{name}': {reason}"
        for run in runs
        for guide in run.guides
        for name, reason in guide.skipped.items()
    )
    found += skipped
    smaller = [run for run in runs if whole_at is not None and run.size < whole_at]
    if smaller:
        sizes = ", ".join(dict.fromkeys(str(run.size) for run in smaller))
        found.append(
            f"translations have {sizes} px, real images were embedded at {whole_at}: part of every distance is blur. "
            "--match-size takes it out"
        )
    if not judged:
        eyes = " or ".join(dict.fromkeys(run.reader.removeprefix("the ") for run in runs))
        found.append(
            f"accuracy and kept are in the eyes of the {eyes} that taught the generator, which flatters it; try --judge"
        )
    if len({run.domains for run in runs}) > 1:
        found.append("these models know different domains: compare them domain by domain, not by their means")
    if len({run.size for run in runs}) > 1:
        sizes = ", ".join(f"{run.run}: {run.size}" for run in runs)
        found.append(f"these models make images of different sizes (px: {sizes}), which every distance sees")
    if len(set(origins)) > 1:
        found.append("the real images were labelled in different ways: see 'labels' of each")
    return found


def warnings_of_sets(sets: Sequence[SetFigures], neighbours: int) -> list[str]:
    """The same of sets of images."""
    return [
        *few_images([(each.real, each.fake) for each in sets], ("real images", "compared with them")),
        *repeated_images([each.repeats for each in sets], ("real images", "images compared with them"), neighbours),
    ]


def published_figures(prompt_set: str) -> tuple[dict[str, float], str] | None:
    """What the paper prints for a built-in prompt set, and why it must not stand beside ours without a word."""
    text = (files("pipeline") / "assets" / "published-figures.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    found = document["sets"].get(prompt_set)
    return None if found is None else (found, document["caveat"])
