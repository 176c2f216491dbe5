"""Which CLIP made an embedding."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Fingerprint:
    """Which CLIP made an embedding; two embeddings may be compared only under equal fingerprints.

    architecture: open_clip's name, or ``custom-`` and a digest of the configuration.
    weights_sha256: over names, shapes, types and bytes of the state dict in sorted order, as loaded.
    preprocessing: :meth:`lanit.preprocessing.ClipPreprocessing.to_json`.
    activation: ``gelu`` or ``quick_gelu``; the same weights give other embeddings under the other.
    precision: of the image tower, ``fp32`` or ``bf16``; the text tower is always fp32.
    """

    architecture: str
    weights_sha256: str
    preprocessing: dict[str, Any]
    activation: str
    precision: str
    embedding_dim: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Fingerprint:
        """Raises ValueError where a field is missing."""
        try:
            return cls(**{field.name: value[field.name] for field in fields(cls)})
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"the CLIP fingerprint lacks {error}") from error

    def describe(self) -> str:
        """One phrase that tells a person which model this is."""
        size = self.preprocessing.get("size")
        return f"{self.architecture} (weights {self.weights_sha256[:12]}, {self.activation}, {size} px)"

    def differences(self, other: Fingerprint) -> list[str]:
        """Names of the fields that differ."""
        return [field.name for field in fields(self) if getattr(self, field.name) != getattr(other, field.name)]

    def same_model(self, other: Fingerprint) -> bool:
        """Whether text embeddings of the one may be compared with image embeddings of the other: precision apart,
        which the text tower does not share."""
        return self.differences(other) in ([], ["precision"])
