"""The rules by which similarities become labels (METHOD §1): text form, bounds and wording of each, apart from the
tensors that :func:`lanit.labels.decide` decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lanit.errors import UsageError, excerpt

K_MEANS, MUTUAL_INFORMATION = "k-means", "mutual-information"
"""How clusters are found."""


@dataclass(frozen=True)
class _Kind:
    """text: as :meth:`Rule.parse` takes it, and words: for people, {} being the value in both.

    needs: what the value must be, for people; allows: whether one is; whole: of whole numbers. such_as: as typed.
    by_similarity: whether similarities decide, and not people or a head. weighted: whether weights count.
    by_head: whether a head or a network decides, so that the rule is none that is typed.
    """

    text: str
    words: str
    needs: str = ""
    allows: Callable[[float], bool] = lambda value: True
    whole: bool = False
    such_as: str = ""
    by_similarity: bool = True
    weighted: bool = False
    by_head: bool = False


_KINDS: dict[str, _Kind] = {
    "adaptive": _Kind("adaptive", "adaptive threshold"),
    "top-k": _Kind(
        "top-{}", "top-k, k = {}", "top-k needs a whole number of at least 1", lambda value: value >= 1,
        whole=True, such_as="--rule top-2", weighted=True,
    ),
    "fixed": _Kind(
        "fixed={}", "cosine above {}", "a cosine threshold lies between -1 and 1", lambda value: -1 <= value <= 1,
        such_as="--rule fixed=0.25",
    ),
    "argmax": _Kind("argmax", "arg-max", weighted=True),
    "given": _Kind("given", "labels as given", by_similarity=False),
    "clusters": _Kind(
        "clusters={}", "{} clusters", "clusters are a whole number of at least 2", lambda value: value >= 2,
        whole=True, such_as="--clusters 10", by_similarity=False, by_head=True,
    ),
    "learned": _Kind(
        "learned={}", "{} learned clusters", "clusters are a whole number of at least 2", lambda value: value >= 2,
        whole=True, such_as="--clusters 10", by_similarity=False, by_head=True,
    ),
    "filled": _Kind("filled", "known labels, the rest filled in", by_similarity=False, by_head=True),
}  # fmt: skip

SPELLINGS = ", ".join(
    kind.such_as.removeprefix("--rule ") or kind.text for kind in _KINDS.values() if kind.by_similarity
)
"""Rules as they are typed, each with some value."""


@dataclass(frozen=True)
class Rule:
    """How similarities become labels.

    kind: ``adaptive`` (f_n > f_base, METHOD 1), ``top-k`` (the ``value`` largest f_n),
        ``fixed`` (f_n > ``value``), ``argmax`` (one-hot), ``given`` (none but what people gave, METHOD 4),
        ``clusters`` (one-hot, the nearest of ``value`` centres, METHOD §7), ``learned`` (one-hot, the likeliest of
        ``value`` clusters to a guiding network, :mod:`lanit.guides`) or ``filled`` (a head on embeddings that was
        fitted to known labels, :mod:`lanit.heads`).
    value: K for top-k and clusters, a cosine for fixed, unused otherwise. seed: of the clusters, unused otherwise.
    by: how clusters are found, ``k-means`` or ``mutual-information``, unused otherwise.
    """

    kind: str = "adaptive"
    value: float = 0.0
    seed: int = 0
    by: str = K_MEANS

    def __post_init__(self) -> None:
        if self.by not in (K_MEANS, MUTUAL_INFORMATION):
            raise UsageError(
                f"clusters are not found by '{excerpt(self.by)}'", f"Choose {K_MEANS} or {MUTUAL_INFORMATION}."
            )
        if self.kind not in _KINDS:
            raise UsageError(f"unknown rule '{self.kind}'", f"Choose one of {', '.join(_KINDS)}.")
        whole = not self._kind.whole or float(self.value).is_integer()
        if not (whole and self._kind.allows(self.value)):
            raise UsageError(f"{self._kind.needs}, not {self.value:g}", f"Try {self._kind.such_as}.")

    @classmethod
    def parse(cls, text: str) -> Rule:
        """The rule of ``adaptive``, ``top-K``, ``fixed=COSINE``, ``argmax`` or ``given``. Raises UsageError for
        anything else."""
        for name, kind in _KINDS.items():
            start, takes_value, _ = kind.text.partition("{}")
            if kind.by_head or not text.startswith(start) or not (takes_value or text == start):
                continue
            if not takes_value:
                return cls(name)
            try:
                value = float(text.removeprefix(start))
            except ValueError:
                break
            return cls(name, int(value) if kind.whole and value.is_integer() else value)
        if text in _KINDS and _KINDS[text].such_as:
            raise UsageError(f"the rule {text} lacks its number", f"Try {_KINDS[text].such_as}.")
        raise UsageError(f"there is no rule '{excerpt(text)}'", f"Choose one of {SPELLINGS}, given.")

    @property
    def text(self) -> str:
        """As :meth:`parse` takes it."""
        return self._kind.text.format(repr(float(self.value)).removesuffix(".0"))

    @property
    def by_similarity(self) -> bool:
        """Whether similarities decide; false where people's labels or a head do."""
        return self._kind.by_similarity

    @property
    def by_head(self) -> bool:
        """Whether a head or a network decides: clusters, labels filled in."""
        return self._kind.by_head

    @property
    def weighted(self) -> bool:
        """Whether weights count: domains compete."""
        return self._kind.weighted

    def describe(self) -> str:
        """In words: "adaptive threshold", "top-k, k = 2", "cosine above 0.25", "arg-max", "10 clusters, seed 0"."""
        words = self._kind.words.format(f"{self.value:g}")
        if self.kind != "clusters":
            return words
        how = "" if self.by == K_MEANS else f" by {self.by.replace('-', ' ')}"
        return f"{words}{how}, seed {self.seed}"

    def to_json(self) -> dict[str, Any]:
        """``kind`` and ``value``, of clusters ``seed``, and ``by`` if not k-means: what ``Rule(**…)`` takes back."""
        stored: dict[str, Any] = {"kind": self.kind, "value": self.value}
        if self.kind != "clusters":
            return stored
        return stored | {"seed": self.seed} | ({} if self.by == K_MEANS else {"by": self.by})

    @property
    def _kind(self) -> _Kind:
        return _KINDS[self.kind]
