"""What the methods share that need no labels: they find K clusters, and end in G and a guiding network."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from lanit.errors import UsageError
from lanit.guides import GuideSizes
from lanit.options import check_settings


@dataclass(frozen=True)
class ClusterOptions:
    """Settings of every such method. clusters: K. warm_up: share of the steps in which the guiding network learns
    alone, before G does; labels are first written at its end. learning_rate: of Adam."""

    networks: GuideSizes = field(default_factory=GuideSizes)
    clusters: int = 10
    warm_up: float = 0.325
    learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        check_settings(self.networks)
        check_settings(self, ("warm_up",))
        if self.clusters < 2:
            raise UsageError(f"clusters are at least 2, not {self.clusters}", "Try --clusters 10.")

    @property
    def classifier(self) -> Literal["head", "prototypes"]:
        """How the guiding network tells clusters apart."""
        return "head"

    def check_batch(self, batch_size: int) -> None:
        """Raise UsageError where a batch cannot tell the clusters apart."""
        if self.clusters > batch_size:
            raise UsageError(
                f"{self.clusters} clusters cannot be told apart in a batch of {batch_size} images",
                f"Try --batch-size {self.images_for(self.clusters)}, or fewer --clusters.",
            )

    @staticmethod
    def images_for(clusters: int) -> int:
        """In a step, so that the joint distribution of the clusters of two views is more than noise."""
        return 4 * clusters

    def network_options(self, image_size: int, domains: int) -> GuideSizes:
        """Sizes of the networks for images of S pixels and N = K clusters; the slack domain is added here."""
        widths = self.networks
        return replace(
            widths,
            image_size=image_size,
            domains=domains + 1,
            max_channels=widths.max_channels or 512,
            classifier=self.classifier,
        )
