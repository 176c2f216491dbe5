"""How good a run is so far, in the eyes of its CLIP: by which the best checkpoint is chosen (METHOD §6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lanit.inference import translate_edited
from lanit.labels import adaptive, edit, margin
from lanit.metrics import frechet_distance, mean_kernel, moments
from lanit.networks import GenerativeNetworks
from pipeline.clip.models import ClipModel

_SEED = 2**31 + 1
_BATCH = 32
REAL_IMAGES = 2048  # to a domain, at most: more would not change the comparison
BETTER_BELOW = {"kid": True, "fid": True, "recognised": False}


@dataclass(frozen=True)
class Sources:
    """Images to translate. images: float32 (n×3×S×S) in [-1, 1]; active: bool (n×N), their labels."""

    images: Tensor
    active: Tensor


class Evaluator:
    """Translations of a fixed set of stored images to every domain that they lack, against real images of the domain.

    real: of each domain, unit-norm embeddings of images that carry it, float32 (m×k); a domain with fewer than two is
    left out. exclusive: bool (N×N), see :func:`lanit.labels.exclusive_pairs`.
    """

    def __init__(self, sources: Sources, real: list[Tensor], exclusive: Tensor) -> None:
        self.sources, self.real, self.exclusive = sources, real, exclusive
        self.moments = [moments(embeddings) if len(embeddings) > 1 else None for embeddings in real]
        self.within = [mean_kernel(embeddings.cpu()) if len(embeddings) > 1 else None for embeddings in real]

    @torch.no_grad()
    def measure(
        self, nets: GenerativeNetworks, clip: ClipModel, text: tuple[Tensor, Tensor], offsets: Tensor | None
    ) -> dict[str, float]:
        """``kid``, ``fid``: means over domains of kernel and Fréchet distance of CLIP embeddings, comparable within a
        run alone, since the images are few; ``recognised``: the share in which CLIP then sees the domain; ``kept``: the
        share of the other labels that stay. Seeded: the same networks give the same figures.
        """
        kid, fid, recognised, kept = [], [], [], []
        domains = len(self.real)
        generator = torch.Generator().manual_seed(_SEED)
        for domain in range(domains):
            rows = (~self.sources.active[:, domain]).nonzero().flatten()
            if len(rows) < 2:
                continue
            own = self.sources.active[rows]
            add = torch.zeros(domains, dtype=torch.bool, device=own.device)
            add[domain] = True
            wanted = edit(own, add, torch.zeros_like(add), self.exclusive)
            latents = torch.randn(len(rows), nets.mapping.latent_dim, generator=generator).to(own.device)
            seen = torch.cat([
                clip.encode_images(translate_edited(nets, self.sources.images[part], own_part, wanted_part, latent))
                for part, own_part, wanted_part, latent in zip(
                    rows.split(_BATCH), own.split(_BATCH), wanted.split(_BATCH), latents.split(_BATCH), strict=True
                )
            ]).float()  # fmt: skip
            labels = adaptive(margin(seen, *text), offsets)
            recognised.append(labels[:, domain].float().mean().item())
            others = torch.arange(domains, device=own.device) != domain
            kept.append((labels == wanted)[:, others].float().mean().item() if domains > 1 else 1.0)
            known, within = self.moments[domain], self.within[domain]
            if known is not None and within is not None:
                real, made = self.real[domain].cpu(), seen.cpu()
                kid.append(float(within + mean_kernel(made) - 2 * mean_kernel(real, made)))
                fid.append(frechet_distance(moments(made), known))
        named = {"kid": kid, "fid": fid, "recognised": recognised, "kept": kept}
        return {name: float(np.mean(values)) for name, values in named.items() if values}
