"""How good a run is so far, in the eyes of its CLIP: by which the best checkpoint is chosen (METHOD §6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lanit.inference import Target, drawn_codes, edited, translate
from lanit.metrics import frechet_distance, mean_kernel, moments
from lanit.networks import GenerativeNetworks
from pipeline.clip.models import ClipModel

Labeller = Callable[[Tensor, Tensor], Tensor]
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
    def measure(self, nets: GenerativeNetworks, clip: ClipModel, seen: Labeller) -> dict[str, float]:
        """seen: labels, bool (B×N), of images (B×3×S×S) and of CLIP's embeddings of them (B×k).

        ``kid``, ``fid``: means over domains of kernel and Fréchet distance of CLIP embeddings, comparable within a
        run alone, since the images are few; ``recognised``: the share in which the domain is then seen; ``kept``: the
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
            add = (torch.arange(domains, device=own.device) == domain).float()
            target = edited(own, add, torch.zeros_like(own[0]), self.exclusive)
            latents = torch.randn(len(rows), nets.latent_dim, generator=generator).to(own.device)
            embedded, labelled = [], []
            for images in self._translations(nets, rows, target, drawn_codes(nets, latents)):
                embedded.append(clip.encode_images(images).float())
                labelled.append(seen(images, embedded[-1]))
            made, labels, wanted = torch.cat(embedded).cpu(), torch.cat(labelled), target.weights > 0
            recognised.append(labels[:, domain].float().mean().item())
            others = torch.arange(domains, device=own.device) != domain
            kept.append((labels == wanted)[:, others].float().mean().item() if domains > 1 else 1.0)
            known, within = self.moments[domain], self.within[domain]
            if known is not None and within is not None:
                real = self.real[domain].cpu()
                kid.append(float(within + mean_kernel(made) - 2 * mean_kernel(real, made)))
                fid.append(frechet_distance(moments(made), known))
        named = {"kid": kid, "fid": fid, "recognised": recognised, "kept": kept}
        return {name: float(np.mean(values)) for name, values in named.items() if values}

    def _translations(self, nets: GenerativeNetworks, rows: Tensor, target: Target, codes: Tensor) -> Iterator[Tensor]:
        """Batches of the sources ``rows`` (n), translated. codes: (n×(N+1)×D_s), for each of them."""
        assert target.kept is not None
        for part in torch.arange(len(rows)).split(_BATCH):
            asked = Target(target.weights[part], target.kept[part])
            yield translate(nets, self.sources.images[rows[part]], asked, codes[None, part])[0]
