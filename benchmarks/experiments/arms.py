"""What is compared: each arm is one way to label and to train; all else is equal within a world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["prompts", "truth", "k-means", "information", "fill", "found"]
RuleChoice = Literal["adaptive", "best-top-k", "best-fixed"]

EXPERIMENTS: Mapping[str, str] = {
    "ladder": "Levels of supervision",
    "domains": "Number of domains",
    "templates": "Poor initial templates: prompt learning on against off, and labels alone",
    "ablations": "Ablations",
    "rules": "Label rules",
}
"""In the order in which they run; each but the second compares its arms with ``words``."""


@dataclass(frozen=True)
class Arm:
    """One way to label and to train.

    experiment: which table it stands in. title: what the table says. level: where labels come from; ``found``: the
    method finds them. rule: of the prompts; the best K or threshold is chosen with the truth of the training rows,
    which no user has. poor: with the world's misleading templates. learns: the prompts do. keep: the share of images
    whose true labels are known. domains: the first so many of the world's words, or so many clusters; 0 for as many as
    the world has. changes: to the world's options. steps_of_words: as many steps as ``words`` makes, whatever they
    cost; all other arms have equal time.
    """

    name: str
    experiment: str
    title: str
    level: Level = "prompts"
    rule: RuleChoice = "adaptive"
    poor: bool = False
    learns: bool = False
    keep: float = 0.0
    domains: int = 0
    changes: Mapping[str, Any] = field(default_factory=dict)
    steps_of_words: bool = False

    @property
    def of_clusters(self) -> bool:
        """Whether its domains are clusters, which nobody could ask for by a word of the world."""
        return self.level in ("k-means", "information", "found")


UNGUIDED = {"domain": 0.0}
LAZY = {"domain_every": 4}
PAPER = {"schedule": "paper"}
TUNIT = {"method": "tunit", "guide_rate": 1e-3}
STYLE_AWARE = {"method": "style-aware", "frozen_steps": 50}
"""Rates and waits of runs of hundreds of steps; the defaults are those of runs of 100 000."""

_COUNTS = (4, 7, 10, 13)
_SHARES = (5, 20)

ARMS: tuple[Arm, ...] = (
    Arm("kmeans", "ladder", "clusters by k-means: CLIP cannot guide", "k-means", changes=UNGUIDED),
    Arm("mi-head", "ladder", "clusters by mutual information: CLIP cannot guide", "information", changes=UNGUIDED),
    Arm("tunit", "ladder", "TUNIT, joint clusters", "found", changes=TUNIT),
    Arm("style-aware", "ladder", "style-aware discriminator, joint prototypes", "found", changes=STYLE_AWARE),
    Arm("words", "ladder", "words (LANIT), adaptive rule"),
    *(Arm(f"fill-{share}", "ladder", f"words, and the true labels of {share} %", "fill", keep=share / 100)
      for share in _SHARES),
    Arm("truth", "ladder", "true labels, words known: CLIP guides too", "truth"),
    *(Arm(f"words-{count}", "domains", f"words, the first {count}", domains=count) for count in _COUNTS),
    *(Arm(f"tunit-{count}", "domains", f"TUNIT, {count} clusters", "found", domains=count, changes=TUNIT)
      for count in _COUNTS),
    Arm("poor-fixed", "templates", "poor templates, prompts not learned", poor=True),
    Arm("poor-lazy", "templates", "poor templates, domain regularisation on every fourth step", poor=True,
        changes=LAZY),
    Arm("poor-learned", "templates", "poor templates, prompts learned", poor=True, learns=True),
    Arm("poor-unguided", "templates", "poor templates, without domain regularisation", poor=True, changes=UNGUIDED),
    *(Arm(f"poor-fill-{share}", "templates", f"the same, and the true labels of {share} %", "fill", poor=True,
          keep=share / 100, changes=UNGUIDED) for share in _SHARES),
    Arm("lazy", "ablations", "words, domain regularisation on every fourth step", changes=LAZY),
    *(Arm(f"no-domain-fill-{share}", "ablations", f"words and the true labels of {share} %, without domain "
          "regularisation", "fill", keep=share / 100, changes=UNGUIDED) for share in _SHARES),
    Arm("no-domain", "ablations", "words, without domain regularisation", changes=UNGUIDED),
    Arm("truth-unguided", "ablations", "true labels, without domain regularisation (StarGAN v2)", "truth",
        changes=UNGUIDED),
    Arm("cosine", "ablations", "cosine form, drawn domain", changes={"domain_form": "cosine", "domain_scope": "drawn"}),
    Arm("margin-drawn", "ablations", "margin form, drawn domain", changes={"domain_scope": "drawn"}),
    Arm("paper-time", "ablations", "paper schedule", changes=PAPER),
    Arm("paper-images", "ablations", "paper schedule, equal images seen", changes=PAPER, steps_of_words=True),
    Arm("double-rate", "ablations", "fused, twice the learning rate", changes={"learning_rate": 2e-3}),
    Arm("float32", "ablations", "float32", changes={"precision": "float32", "clip_precision": "float32"}),
    Arm("top-k", "rules", "top-k, best K", rule="best-top-k"),
    Arm("fixed", "rules", "fixed threshold, the best", rule="best-fixed"),
)  # fmt: skip
BASELINE = "words"
RATIOS = (
    (BASELINE, "truth"), ("tunit", BASELINE), ("style-aware", BASELINE), ("kmeans", "tunit"),
    ("no-domain", "truth-unguided"), ("no-domain", "tunit"), ("no-domain", "kmeans"),
)  # fmt: skip
"""Of the judge's mFID, printed below the tables; the last three compare the labels alone, without CLIP's guidance."""


def arm_named(name: str) -> Arm:
    return next(arm for arm in ARMS if arm.name == name)
