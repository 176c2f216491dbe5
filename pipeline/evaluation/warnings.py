"""What must be said beside the figures: too few images, a partial judge, models that were not measured alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from pipeline.evaluation.figures import FEW_IMAGES, RunFigures, SetFigures


def few_images(counts: Sequence[tuple[int, int]], names: tuple[str, str]) -> list[str]:
    """A warning where a Fréchet distance rests on fewer images than :data:`FEW_IMAGES` on either side.

    counts: of both sides, of each distance. names: of the sides.
    """
    if not counts or min(min(pair) for pair in counts) >= FEW_IMAGES:
        return []
    sides = " and ".join(f"{_range([pair[side] for pair in counts])} {name}" for side, name in enumerate(names))
    return [
        f"{sides}: below {FEW_IMAGES:,} images a Fréchet distance is too large, and the more so the fewer they are. "
        "Compare it only with one of as many; KID has no such bias"
    ]


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def warnings_of_runs(
    runs: Sequence[RunFigures], origins: Sequence[str], *, judged: bool, whole_at: int | None = None
) -> list[str]:
    """Warnings of an evaluation of models.

    origins: where each took the labels of the real images from. whole_at: pixels at which the real images were
    embedded, none where they passed through the size of the model.
    """
    domains = [domain for run in runs for guide in run.guides for domain in guide.domains]
    found = few_images([(each.real, each.translations) for each in domains], ("real images", "translations a domain"))
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
        found.append(
            "accuracy and kept are in the eyes of the CLIP that taught the generator, which flatters it; try --judge"
        )
    if len({run.domains for run in runs}) > 1:
        found.append("these models know different domains: compare them domain by domain, not by their means")
    if len({run.size for run in runs}) > 1:
        sizes = ", ".join(f"{run.run}: {run.size}" for run in runs)
        found.append(f"these models make images of different sizes (px: {sizes}), which every distance sees")
    if len(set(origins)) > 1:
        found.append("the real images were labelled in different ways: see 'labels' of each")
    return found


def warnings_of_sets(sets: Sequence[SetFigures]) -> list[str]:
    return few_images([(each.real, each.fake) for each in sets], ("real images", "compared with them"))


def published_figures(prompt_set: str) -> tuple[dict[str, float], str] | None:
    """What the paper prints for a built-in prompt set, and why it must not stand beside ours without a word."""
    text = (files("pipeline") / "assets" / "published-figures.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    found = document["sets"].get(prompt_set)
    return None if found is None else (found, document["caveat"])
