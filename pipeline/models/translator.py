"""A trained model in memory: own labels by CLIP, translation of batches."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lanit.errors import LanitError
from lanit.inference import editing_codes, target_style
from lanit.labels import adaptive, edit, margin
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
        self._texts, self._base = bundle.domains_embedding.to(device), bundle.base_embedding.to(device)
        self._offsets = torch.tensor(bundle.prompt_set.offsets, device=device)

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

    def margins(self, images: Tensor, clip: ClipModel) -> Tensor:
        """f_n − f_base, float32 (B×N), of images (B×3×H×W) in [-1, 1], by CLIP and the model's prompts (METHOD 1)."""
        return margin(clip.encode_images(images), self._texts, self._base)

    def active(self, margins: Tensor) -> Tensor:
        """Labels, bool (B×N), of margins (B×N): those above the offsets of the prompts (METHOD 1)."""
        return adaptive(margins, self._offsets)

    def labels(self, images: Tensor, clip: ClipModel) -> Tensor:
        """The images' own labels, bool (B×N), by CLIP and the model's prompts (METHOD 1)."""
        return self.active(self.margins(images, clip))

    def latents(self, seed: int, count: int) -> Tensor:
        """The latent of ``seed``, the same for every image and device: float32 (count×16)."""
        drawn = torch.randn(1, self.bundle.options.latent_dim, generator=torch.Generator().manual_seed(seed))
        return drawn.to(self.device).expand(count, -1)

    @torch.no_grad()
    def translate(
        self, images: Tensor, target: Tensor, kept: Tensor, latents: Tensor, reference: Tensor | None = None
    ) -> Tensor:
        """Images, float32 (B×3×S×S) in [-1, 1], in the mix ``target``, non-negative float (B×N).

        kept: bool (B×N), domains in which the image keeps its own style. latents: (B×16). reference: (1×3×S×S), whose
        style serves the other domains instead of the latents'.
        """
        codes = editing_codes(self.networks, images, latents, kept)
        if reference is not None:
            other = self.networks.style_encoder(reference).expand(len(images), -1, -1)
            stays = torch.cat([kept, torch.zeros_like(kept[:, :1])], dim=1)
            codes = torch.where(stays[:, :, None], codes, other)
        return self.networks.generator(images, target_style(codes, target)).clamp(-1, 1)

    def edit(
        self, images: Tensor, own: Tensor, add: Tensor, remove: Tensor, latents: Tensor, reference: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Images after adding and removing domains, and their labels, bool (B×N).

        own: bool (B×N), the images' labels before. add, remove: bool (N). What stays keeps the image's own style.
        """
        target = edit(own, add, remove, self.exclusive)
        return self.translate(images, target.float(), own & target & ~add, latents, reference), target


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
