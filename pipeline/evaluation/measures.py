"""The figures that an evaluation knows, a row each: all that tables, pages and JSON need to know of one.

A new one needs its formula in ``lanit/metrics.py``, its value in ``measuring.py`` under its name, and its row here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Measure:
    """A figure of translations to a domain, or of two sets of images.

    name: in JSON. title: for people; column: the same as the head of a column. better: which way, in words. about: what
    it is, in half a sentence. decimals: the most that hold; what is beyond them is rounding of float32 features and of
    pixels to bytes, not the images. table: which of the two of the terminal it stands in. most: the end of its scale on
    a page, chosen by the values where it is none. compared: whether models are compared by it, with an interval of its
    own. of_sets: whether two folders have it too. before: the figure that this one is of the sources as they are, if it
    is one; then it has no interval of its own.
    """

    name: str
    title: str
    column: str
    better: Literal["lower", "higher"]
    about: str
    decimals: int
    table: Literal["distances", "translations"]
    most: float | None = None
    compared: bool = False
    of_sets: bool = False
    before: str = ""


MEASURES = (
    Measure("frechet", "Fréchet distance", "Fréchet", "lower",
            "between translations and the real images that carry the domain", 6, "distances",
            compared=True, of_sets=True),
    Measure("frechet_before", "Fréchet distance before", "before", "lower",
            "between the sources as they are and the real images", 6, "distances", before="frechet"),
    Measure("kid", "KID", "KID", "lower",
            "the same by a kernel, fair to few images; by chance below 0 where both sides are alike", 7, "distances",
            compared=True, of_sets=True),
    Measure("cmmd", "CMMD", "CMMD", "lower",
            "the same by CLIP's embeddings alone (σ 10, times 1000), where the features are those", 4, "distances",
            of_sets=True),
    Measure("density", "Density", "density", "higher",
            "real balls that a translation lies in; 1 is what real images would get", 6, "distances", of_sets=True),
    Measure("coverage", "Coverage", "coverage", "higher",
            "real images that a translation comes near", 6, "distances", most=1.0, compared=True, of_sets=True),
    Measure("accuracy", "Accuracy", "accuracy", "higher",
            "translations in which CLIP recognises the domain", 6, "translations", most=1.0, compared=True),
    Measure("accuracy_before", "Accuracy before", "before", "higher",
            "sources in which CLIP recognises the domain", 6, "translations", before="accuracy"),
    Measure("kept", "Kept", "kept", "higher",
            "other domains that CLIP recognises, or not, as in the source", 6, "translations", most=1.0, compared=True),
    Measure("left_over", "Left over", "left over", "lower",
            "sources with the domain in which CLIP still recognises it once it is removed", 6, "translations", most=1.0,
            compared=True),
    Measure("judge_accuracy", "Accuracy, judged", "judged", "higher",
            "in the eyes of a judge of its own", 6, "translations", most=1.0, compared=True),
    Measure("judge_kept", "Kept, judged", "judged kept", "higher",
            "in the eyes of a judge of its own", 6, "translations", most=1.0, compared=True),
    Measure("judge_left_over", "Left over, judged", "judged left", "lower",
            "in the eyes of a judge of its own", 6, "translations", most=1.0, compared=True),
    Measure("identity", "Distance to the source", "identity", "lower",
            "cosine of CLIP, between a translation and its source", 6, "translations"),
    Measure("partner", "Distance to the partner", "partner", "lower",
            "of pixels, 0 to 1, between a translation and what its source is paired with", 6, "translations"),
    Measure("partner_lpips", "LPIPS to the partner", "partner LPIPS", "lower",
            "LPIPS between a translation and what its source is paired with", 6, "translations"),
    Measure("diversity", "Diversity", "diversity", "higher",
            "cosine distance between translations of one source", 5, "translations"),
    Measure("lpips", "LPIPS diversity", "LPIPS", "higher",
            "LPIPS between translations of one source", 6, "translations"),
)  # fmt: skip

BY_NAME = {measure.name: measure for measure in MEASURES}

OF_SETS = tuple(measure for measure in MEASURES if measure.of_sets)

COMPARED = tuple(measure.name for measure in MEASURES if measure.compared)

BEFORE = {measure.before: measure.name for measure in MEASURES if measure.before}
"""From a figure to that of the sources as they are, where it has one."""
