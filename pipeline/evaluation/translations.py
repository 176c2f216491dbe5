"""Translations of many sources to one domain in several styles, as ``lanit translate --add`` makes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lanit.inference import target_style
from lanit.labels import edit
from pipeline.decoding.grids import to_float, to_uint8
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

    @property
    def count(self) -> int:
        return self.chosen.shape[1]

    def of(self, translator: Translator, rows: slice | Tensor, style: int) -> Tensor:
        """Style codes (b×(N+1)×D_s) of the sources ``rows``."""
        codes = self.codes[self.chosen[rows, style]].to(translator.device)
        return codes if codes.ndim == 3 else translator.networks.mapping(codes)


def latent_styles(translator: Translator, sources: int, styles: int, seed: int) -> Styles:
    """K latents for each source, the same whatever the domain and the model."""
    shape = (sources * styles, translator.bundle.options.latent_dim)
    latents = torch.randn(shape, generator=torch_generator_of(seed, "latents"))
    return Styles(latents, torch.arange(len(latents)).reshape(sources, styles))


@torch.no_grad()
def reference_styles(
    translator: Translator, references: np.ndarray, sources: int, styles: int, seed: int, domain: str
) -> Styles:
    """K references for each source, drawn from images of the domain, uint8 (P×S×S×3)."""
    encode = translator.networks.style_encoder
    codes = [encode(to_float(references[part]).to(translator.device)) for part in batches(len(references))]
    chosen = generator_of(seed, f"references {domain}").integers(0, len(references), (sources, styles))
    return Styles(torch.cat(codes).cpu(), torch.from_numpy(chosen))


def targets(translator: Translator, own: Tensor, domain: int) -> tuple[Tensor, Tensor]:
    """Labels after adding a domain, and those domains in which the source keeps its own style: bool (n×N) each."""
    add = torch.arange(own.shape[1]) == domain
    target = edit(own, add, torch.zeros_like(add), translator.exclusive.cpu())
    return target, own & target & ~add


@torch.no_grad()
def translate_sources(
    translator: Translator, sources: Sources, rows: np.ndarray, domain: int, styles: Styles
) -> Iterator[np.ndarray]:
    """Blocks of translations, uint8 (b×K×S×S×3), of the sources ``rows`` (n) in their order.

    As the PNG files of ``lanit translate`` hold them: figures do not change where translations are saved and read
    again. A source is encoded once for all its styles.
    """
    nets, device = translator.networks, translator.device
    chosen = torch.from_numpy(rows)
    target, stays = (each.to(device) for each in targets(translator, sources.own[chosen], domain))
    stays = torch.cat([stays, torch.zeros_like(stays[:, :1])], dim=1)[:, :, None]
    for part in batches(len(rows)):
        images = to_float(sources.images[rows[part]]).to(device)
        own, content = nets.style_encoder(images), nets.generator.encode(images)
        made = []
        for style in range(styles.count):
            codes = torch.where(stays[part], own, styles.of(translator, chosen[part], style))
            made.append(to_uint8(nets.generator.decode(content, target_style(codes, target[part].float()), images)))
        yield np.stack(made, axis=1)
