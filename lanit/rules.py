"""How similarities become labels: the rules of METHOD §1 by name, apart from the tensors they decide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from lanit.errors import UsageError

RuleKind = Literal["adaptive", "top-k", "fixed", "argmax", "given", "clusters"]


@dataclass(frozen=True)
class Rule:
    """How similarities become labels.

    kind: ``adaptive`` (f_n > f_base, METHOD 1), ``top-k`` (the ``value`` largest f_n),
        ``fixed`` (f_n > ``value``), ``argmax`` (one-hot), ``given`` (none but what people gave, METHOD 4) or
        ``clusters`` (one-hot, the nearest of ``value`` centres, METHOD §7).
    value: K for top-k and clusters, a cosine for fixed, unused otherwise. seed: of the clusters, unused otherwise.
    """

    kind: RuleKind = "adaptive"
    value: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(RuleKind):
            raise UsageError(f"unknown rule '{self.kind}'", f"Choose one of {', '.join(get_args(RuleKind))}.")
        if self.kind == "top-k" and (self.value < 1 or self.value != int(self.value)):
            raise UsageError(f"top-k needs a whole number of at least 1, not {self.value:g}", "Try --k 2.")
        if self.kind == "fixed" and not -1 <= self.value <= 1:
            raise UsageError(f"a cosine threshold lies between -1 and 1, not {self.value:g}", "Try --threshold 0.25.")
        if self.kind == "clusters" and (self.value < 2 or self.value != int(self.value)):
            raise UsageError(f"clusters are a whole number of at least 2, not {self.value:g}", "Try --clusters 10.")

    def to_json(self) -> dict[str, Any]:
        """``kind`` and ``value``, and of clusters the ``seed``: what ``Rule(**…)`` takes back."""
        stored: dict[str, Any] = {"kind": self.kind, "value": self.value}
        return stored | {"seed": self.seed} if self.kind == "clusters" else stored


def describe_rule(rule: dict[str, Any]) -> str:
    """A rule in words: "adaptive threshold", "top-k, k = 2", "cosine above 0.25", "arg-max", "10 clusters, seed 0"."""
    value = rule["value"]
    return {
        "adaptive": "adaptive threshold",
        "top-k": f"top-k, k = {value:g}",
        "fixed": f"cosine above {value:g}",
        "argmax": "arg-max",
        "given": "labels as given",
        "clusters": f"{value:g} clusters, seed {rule.get('seed', 0)}",
    }.get(rule["kind"], str(rule["kind"]))
