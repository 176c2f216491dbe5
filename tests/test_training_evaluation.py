"""The evaluation within a run: seeded, of the right images, and better where the translations are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lanit.labels import EmbeddedPrompts
from lanit.metrics import frechet_distance, moments
from pipeline.training.evaluation import Evaluator, Sources

DOMAINS, ROWS = 3, 40


class Painter(nn.Module):
    """A stand-in for G, E_S and E_M: the style of a domain is a colour, which the generator lays over the image."""

    latent_dim = 4

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def own_codes(self, images: Tensor) -> Tensor:
        return torch.eye(DOMAINS + 1)[None, :, :DOMAINS].expand(len(images), -1, -1)

    def drawn_codes(self, latents: Tensor) -> Tensor:
        return self.own_codes(latents)

    def content(self, images: Tensor) -> Tensor:
        return images

    def render(self, content: Tensor, style: Tensor, images: Tensor) -> Tensor:
        colour = style / style.amax(dim=1, keepdim=True).clamp(min=1e-6)
        return (1 - self.strength) * images + self.strength * (2 * colour[:, :, None, None] - 1)


class Eye:
    """A CLIP that sees the mean colour."""

    def encode_images(self, images: Tensor) -> Tensor:
        return nn.functional.normalize(images.mean(dim=(2, 3)) + 0.01, dim=1)


PROMPTS = EmbeddedPrompts(
    torch.eye(3), torch.zeros(3), torch.zeros(3), torch.ones(3)
)  # a colour is seen where it is positive


@pytest.fixture
def evaluator() -> Evaluator:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(ROWS, 3, 8, 8, generator=generator) - 1
    active = torch.zeros(ROWS, DOMAINS, dtype=torch.bool)
    active[torch.arange(ROWS), torch.arange(ROWS) % DOMAINS] = True
    real = []
    for domain in range(DOMAINS):
        colours = -torch.ones(50, 3) + 0.1 * torch.randn(50, 3, generator=generator)
        colours[:, domain] += 2
        real.append(nn.functional.normalize(colours, dim=1))
    exclusive = ~torch.eye(DOMAINS, dtype=torch.bool)
    return Evaluator(Sources(images, active), real, exclusive)


def measure(evaluator: Evaluator, strength: float) -> dict[str, float]:
    nets: Any = Painter(strength)
    clip: Any = Eye()
    return evaluator.measure(nets, clip, lambda images, embeddings: PROMPTS.labels(embeddings))


def test_stronger_translations_are_better_by_every_figure(evaluator: Evaluator) -> None:
    weak, strong = measure(evaluator, 0.0), measure(evaluator, 0.9)
    assert strong["kid"] < weak["kid"]
    assert strong["fid"] < weak["fid"]
    assert (weak["recognised"], strong["recognised"]) == (pytest.approx(0, abs=0.2), 1.0)
    assert strong["kept"] == 1.0, "the exclusive domain of the source gives way"
    assert measure(evaluator, 0.9) == strong, "seeded"


def test_the_frechet_distance_is_the_mean_over_domains_of_what_lacks_them(evaluator: Evaluator) -> None:
    expected = []
    for domain in range(DOMAINS):
        rows = ~evaluator.sources.active[:, domain]
        target = torch.eye(3)[domain].expand(int(rows.sum()), -1)
        painted = 0.5 * evaluator.sources.images[rows] + 0.5 * (2 * target[:, :, None, None] - 1)
        seen = Eye().encode_images(painted.clamp(-1, 1))
        expected.append(frechet_distance(moments(seen), moments(evaluator.real[domain])))
    assert measure(evaluator, 0.5)["fid"] == pytest.approx(sum(expected) / DOMAINS, rel=1e-6)


def test_a_domain_without_real_images_is_left_out_of_the_distances(evaluator: Evaluator) -> None:
    fewer = Evaluator(evaluator.sources, [*evaluator.real[:2], evaluator.real[2][:1]], evaluator.exclusive)
    nets: Any = Painter(0.9)
    clip: Any = Eye()
    figures = fewer.measure(nets, clip, lambda images, embeddings: PROMPTS.labels(embeddings))
    assert figures["recognised"] == 1.0
    assert figures["fid"] != measure(evaluator, 0.9)["fid"]
