"""Translations of many sources to one domain in several styles, as ``lanit translate --add`` makes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lanit.inference import Target, drawn_codes, edited, translate
from pipeline.decoding.grids import to_bytes, to_float
from pipeline.evaluation.sample import batches, generator_of, torch_generator_of
from pipeline.models.translator import Translator


@dataclass(frozen=True)
class Sources:
    """images: uint8 (n×S×S×3), the model's size. own: bool (n×N), the labels that translation begins with."""

    images: np.ndarray
    own: Tensor

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Styles:
    """Where the styles of one domain come from: K for each of n sources.

    codes: style codes (P×(N+1)×D_s) of a pool, or latents (P×16) yet to be mapped. chosen: int64 (n×K), of the pool.
    """

    codes: Tensor
    chosen: Tensor

    def first(self) -> Styles:
        """One for each source."""
        return Styles(self.codes, self.chosen[:, :1])

    @property
    def count(self) -> int:
        return self.chosen.shape[1]

    def of(self, translator: Translator, rows: slice | Tensor, style: int) -> Tensor:
        """Style codes (b×(N+1)×D_s) of the sources ``rows``."""
        codes = self.codes[self.chosen[rows, style]].to(translator.device)
        return codes if codes.ndim == 3 else drawn_codes(translator.networks, codes)


def latent_styles(translator: Translator, sources: int, styles: int, seed: int) -> Styles:
    """K latents for each source, the same whatever the domain and the model."""
    shape = (sources * styles, translator.networks.latent_dim)
    latents = torch.randn(shape, generator=torch_generator_of(seed, "latents"))
    return Styles(latents, torch.arange(len(latents)).reshape(sources, styles))


@torch.no_grad()
def reference_styles(
    translator: Translator, references: np.ndarray, sources: int, styles: int, seed: int, domain: str
) -> Styles:
    """K references for each source, drawn from images of the domain, uint8 (P×S×S×3)."""
    encode = translator.networks.own_codes
    codes = [encode(to_float(references[part]).to(translator.device)) for part in batches(len(references))]
    chosen = generator_of(seed, f"references {domain}").integers(0, len(references), (sources, styles))
    return Styles(torch.cat(codes).cpu(), torch.from_numpy(chosen))


def target_of(translator: Translator, own: Tensor, domain: int, *, remove: bool = False) -> Target:
    """What ``lanit translate --add``, or ``--remove``, makes of sources with the labels ``own``, bool (n×N)."""
    named, nothing = torch.arange(own.shape[1]) == domain, torch.zeros_like(own[0])
    added, removed = (nothing, named) if remove else (named, nothing)
    return edited(own, added.float(), removed, translator.exclusive.cpu())


def translate_sources(
    translator: Translator, sources: Sources, rows: np.ndarray, domain: int, styles: Styles, *, remove: bool = False
) -> Iterator[np.ndarray]:
    """:func:`translate_to` a domain, or away from it: remove, rather than add."""
    target = target_of(translator, sources.own[torch.from_numpy(rows)], domain, remove=remove)
    return translate_to(translator, sources, rows, target, styles)


@torch.no_grad()
def translate_to(
    translator: Translator, sources: Sources, rows: np.ndarray, target: Target, styles: Styles
) -> Iterator[np.ndarray]:
    """Blocks of translations, uint8 (b×K×S×S×3), of the sources ``rows`` (n) in their order. target: of each of them.

    As the PNG files of ``lanit translate`` hold them: figures do not change where translations are saved and read
    again.
    """
    chosen, device = torch.from_numpy(rows), translator.device
    for part in batches(len(rows)):
        images = to_float(sources.images[rows[part]]).to(device)
        codes = torch.stack([styles.of(translator, chosen[part], style) for style in range(styles.count)])
        kept = None if target.kept is None else target.kept[part].to(device)
        made = translate(translator.networks, images, Target(target.weights[part].to(device), kept), codes)
        yield to_bytes(made).transpose(0, 1).cpu().numpy()
