"""What can be set about an evaluation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from lanit.errors import UsageError
from pipeline.evaluation.figures import Guide

Guides = Literal["latent", "reference", "both"]


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of ``lanit evaluate``, all of which change its figures but ``batch_size``.

    styles: translations of each source to each domain; StarGAN v2's protocol makes 10. sources: images to translate,
    drawn from the store, 0 for all. guide: where styles come from. real: images that carry a domain to compare with, at
    most, drawn, 0 for all; the work of KID, density and coverage grows with its square. neighbours: k of the last two.
    bootstrap: samples for the intervals, 0 for none. match_size: embed the real images anew at the
    size of the model, rather than take the store's embeddings of whole images. seed: of everything drawn. batch_size:
    images that are read at once.
    """

    styles: int = 10
    sources: int = 500
    guide: Guides = "both"
    real: int = 10_000
    neighbours: int = 5
    bootstrap: int = 100
    match_size: bool = False
    seed: int = 0
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.bootstrap and self.bootstrap < 20:
            raise UsageError(f"an interval needs 20 bootstrap samples, not {self.bootstrap}", "Try --bootstrap 100.")

    @property
    def guides(self) -> tuple[Guide, ...]:
        return ("latent", "reference") if self.guide == "both" else (self.guide,)

    def to_json(self) -> dict[str, Any]:
        """What the figures depend on."""
        return {name: value for name, value in asdict(self).items() if name != "batch_size"}
