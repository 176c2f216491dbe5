"""What is compared: each arm is one way to label and to train; all else is equal within a world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["prompts", "truth", "clusters"]
RuleChoice = Literal["adaptive", "best-top-k", "best-fixed"]

EXPERIMENTS: Mapping[str, str] = {
    "levels": "Levels of supervision",
    "templates": "Poor initial templates: prompt learning on against off",
    "ablations": "Ablations",
    "rules": "Label rules",
}
"""In the order in which they run; each compares its arms with ``prompts``."""


@dataclass(frozen=True)
class Arm:
    """One way to label and to train.

    experiment: which table it stands in. title: what the table says. level: where labels come from. rule: of the
    prompts; the best K or threshold is chosen with the truth of the training rows, which no user has.
    poor: with the world's misleading templates. learns: the prompts do. changes: to the world's options.
    time_of_fused: as many steps of its own schedule as fit into the time of the world's.
    """

    name: str
    experiment: str
    title: str
    level: Level = "prompts"
    rule: RuleChoice = "adaptive"
    poor: bool = False
    learns: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)
    time_of_fused: bool = False


UNGUIDED = {"domain": 0.0}
PAPER = {"schedule": "paper"}

ARMS: tuple[Arm, ...] = (
    Arm("prompts", "levels", "prompts (LANIT), adaptive rule"),
    Arm("truth", "levels", "true labels, words known: CLIP guides too", "truth"),
    Arm("clusters", "levels", "clusters, no words: CLIP cannot guide", "clusters", changes=UNGUIDED),
    Arm("poor-fixed", "templates", "poor templates, prompts not learned", poor=True),
    Arm("poor-learned", "templates", "poor templates, prompts learned", poor=True, learns=True),
    Arm("no-domain", "ablations", "prompts, without domain regularisation", changes=UNGUIDED),
    Arm("truth-unguided", "ablations", "true labels, without domain regularisation (StarGAN v2)", "truth",
        changes=UNGUIDED),
    Arm("cosine", "ablations", "cosine form, drawn domain", changes={"domain_form": "cosine", "domain_scope": "drawn"}),
    Arm("margin-drawn", "ablations", "margin form, drawn domain", changes={"domain_scope": "drawn"}),
    Arm("paper-time", "ablations", "paper schedule, equal time", changes=PAPER, time_of_fused=True),
    Arm("paper-images", "ablations", "paper schedule, equal images seen", changes=PAPER),
    Arm("double-rate", "ablations", "fused, twice the learning rate", changes={"learning_rate": 2e-3}),
    Arm("float32", "ablations", "float32", changes={"precision": "float32", "clip_precision": "float32"}),
    Arm("top-k", "rules", "top-k, best K", rule="best-top-k"),
    Arm("fixed", "rules", "fixed threshold, the best", rule="best-fixed"),
)  # fmt: skip
BASELINE = "prompts"
RATIOS = ((BASELINE, "clusters"), (BASELINE, "truth"), ("no-domain", "clusters"), ("no-domain", "truth-unguided"))
"""Of mFID, printed below the tables; the last two compare the labels alone, without CLIP's guidance."""


def arm_named(name: str) -> Arm:
    return next(arm for arm in ARMS if arm.name == name)
