"""Labels and codes to images: what is kept, what is drawn, and where the slack domain stands in."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lanit.inference import editing_codes, target_style, translate_edited
from lanit.networks import GenerativeNetworks, NetworkOptions


@pytest.fixture(scope="module")
def nets() -> GenerativeNetworks:
    torch.manual_seed(0)
    setup = NetworkOptions(image_size=32, domains=4, channels=4, max_channels=8, style_dim=6, mapping_width=8)
    return GenerativeNetworks(setup).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    return torch.rand(3, 3, 32, 32, generator=random) * 2 - 1, torch.randn(3, 16, generator=random)


def test_target_style_mixes_by_degree_and_takes_slack_for_nothing() -> None:
    codes = torch.randn(3, 4, 6)
    weights = torch.tensor([[1.0, 0.0, 3.0], [0.0, 0.0, 0.0], [0.0, 0.5, 0.0]])
    before = weights.clone()
    expected = torch.stack([(codes[0, 0] + 3 * codes[0, 2]) / 4, codes[1, 3], codes[2, 1]])
    torch.testing.assert_close(target_style(codes, weights), expected)
    assert torch.equal(weights, before)


def test_kept_domains_have_the_sources_own_code_and_the_others_the_latents(
    nets: GenerativeNetworks, batch: tuple[Tensor, Tensor]
) -> None:
    images, latents = batch
    kept = torch.tensor([[True, False, True], [False, False, False], [False, True, False]])
    own, drawn = nets.style_encoder(images), nets.mapping(latents)
    codes = editing_codes(nets, images, latents, kept)
    for row in range(3):
        for n in range(3):
            torch.testing.assert_close(codes[row, n], (own if kept[row, n] else drawn)[row, n])
    torch.testing.assert_close(codes[:, 3], drawn[:, 3])  # the slack domain is never kept


def test_translate_edited_puts_the_steps_together(nets: GenerativeNetworks, batch: tuple[Tensor, Tensor]) -> None:
    images, latents = batch
    active = torch.tensor([[True, False, True], [False, True, False], [False, False, False]])
    target = torch.tensor([[True, True, False], [False, True, True], [True, False, False]])
    result = translate_edited(nets, images, active, target, latents)
    for row in range(3):
        own, drawn = nets.style_encoder(images[row, None])[0], nets.mapping(latents[row, None])[0]
        wanted = [n for n in range(3) if target[row, n]]
        style = sum((own[n] if active[row, n] else drawn[n] for n in wanted), torch.zeros(6)) / len(wanted)
        expected = nets.generator(images[row, None], style[None]).clamp(-1, 1)[0]
        torch.testing.assert_close(result[row], expected, rtol=1e-4, atol=1e-5)
    assert result.abs().max() <= 1
