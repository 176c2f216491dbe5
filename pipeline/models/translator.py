"""A trained model in memory: its networks and prompts on a device, domains by name, own labels by CLIP."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lanit.errors import LanitError, UsageError
from lanit.guides import guide_of
from pipeline.clip.models import ClipModel, load_clip
from pipeline.models.bundle import Bundle


class Translator:
    """A bundle on a device, ready for batches."""

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        self.bundle = bundle
        self.device = device
        self.networks = bundle.networks.to(device)
        self.guide = guide_of(self.networks)  # what labels images without a CLIP, where the model has it
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
            how, several = self.networks.mapping.why_one
            raise UsageError(
                f"this model has one style a domain, the same for every seed (it was {how})",
                f"Leave out --styles; {several} draws several.",
            )

    @property
    def reader(self) -> str:
        """Who reads labels in images, as sentences name it."""
        return "CLIP" if self.guide is None else "the guiding network"

    def reads_labels(self, clip: ClipModel | None) -> bool:
        """Whether labels can be read by this CLIP, or without one."""
        return clip is not None or self.guide is not None

    def margins(self, images: Tensor, clip: ClipModel | None) -> Tensor:
        """f_n − f_base, float32 (B×N), of images (B×3×S×S) in [-1, 1], by CLIP and the model's prompts (METHOD 1); of a
        model with a guiding network, log p_n less that of the likeliest other cluster, by that alone."""
        if self.guide is not None:
            return self.guide.margins(images)
        assert clip is not None, "this model needs a CLIP to read labels"
        return self.prompts.margins(clip.encode_images(images))

    def labels(self, images: Tensor, clip: ClipModel | None) -> Tensor:
        """The images' own labels, bool (B×N): the domains of a margin above their offset."""
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
