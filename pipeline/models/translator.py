"""A trained model in memory: its networks and prompts on a device, domains by name, own labels by CLIP."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lanit.errors import LanitError, UsageError
from pipeline.clip.models import ClipModel, load_clip
from pipeline.models.bundle import Bundle


class Translator:
    """A bundle on a device, ready for batches."""

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        self.bundle = bundle
        self.device = device
        self.networks = bundle.networks.to(device)
        self.domains = bundle.prompt_set.domains
        self.exclusive = bundle.exclusive.to(device)
        self.prompts = bundle.prompts.to(device)

    def weights(self, domains: Sequence[tuple[str, float]]) -> Tensor:
        """Float32 (N) of names, in any case, and weights. Raises LanitError for a name that is no domain."""
        values = torch.zeros(len(self.domains), device=self.device)
        for name, weight in domains:
            column = self.column(name)
            if column is None:
                raise self.no_domain(name)
            values[column] = weight
        return values

    def column(self, name: str) -> int | None:
        """The number of the domain of that name, in any case; none where there is none."""
        names = [domain.casefold() for domain in self.domains]
        return names.index(name.casefold()) if name.casefold() in names else None

    def no_domain(self, name: str, reason: str = "") -> LanitError:
        """What to say of a name that is no domain. reason: why nothing stands in for it."""
        close = difflib.get_close_matches(name, self.domains, 1)
        meant = f"Did you mean '{close[0]}'? " if close else ""
        return LanitError(
            f"'{name}' is not a domain of this model{reason}", f"{meant}It has {', '.join(self.domains)}."
        )

    def check_styles(self, count: int) -> None:
        """Raise UsageError where ``count`` styles of a domain are more than the model has."""
        if count > 1 and not self.networks.latent_dim:
            raise UsageError(
                "this model has one style a domain, the same for every seed (it was trained with codes=table)",
                "Leave out --styles; a model trained with codes=mapping draws several.",
            )

    def margins(self, images: Tensor, clip: ClipModel) -> Tensor:
        """f_n − f_base, float32 (B×N), of images (B×3×H×W) in [-1, 1], by CLIP and the model's prompts (METHOD 1)."""
        return self.prompts.margins(clip.encode_images(images))

    def labels(self, images: Tensor, clip: ClipModel) -> Tensor:
        """The images' own labels, bool (B×N), by CLIP and the model's prompts (METHOD 1)."""
        return self.prompts.active(self.margins(images, clip))


def load_labeller(bundle: Bundle, spec: str | None, device: torch.device) -> ClipModel:
    """The CLIP that reads images' own labels for ``bundle``: its own, or ``spec``.

    Raises LanitError where that is not the CLIP it was trained with.
    """
    moved = spec is None or Path(spec).is_file()  # a weights file does not name its architecture
    clip = load_clip(spec or bundle.clip_spec, device, bundle.clip_architecture if moved else None)
    if clip.fingerprint != bundle.fingerprint:
        raise LanitError(
            f"the model was trained with {bundle.fingerprint.describe()}, not with {clip.fingerprint.describe()}",
            "Give that CLIP with --clip, or use --to, which needs none.",
        )
    return clip
