"""From a request to images: what is kept, what is drawn, where the slack domain stands in, and one way for all."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lanit.inference import (
    Target,
    drawn_codes,
    edited,
    interpolated,
    mixed,
    target_style,
    translate,
    translate_styles,
)
from lanit.networks import GenerativeNetworks, NetworkOptions
from tests.model_builders import random_networks

EXCLUSIVE = torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.bool)
NOTHING = torch.zeros(3, dtype=torch.bool)


@pytest.fixture(scope="module")
def nets() -> GenerativeNetworks:
    torch.manual_seed(0)
    setup = NetworkOptions(image_size=32, domains=4, channels=4, max_channels=8, style_dim=8, mapping_width=8)
    return random_networks(setup, 0).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    return torch.rand(19, 3, 32, 32, generator=random) * 2 - 1, torch.randn(19, 16, generator=random)


def bools(*rows: str) -> Tensor:
    return torch.tensor([[letter == "1" for letter in row] for row in rows])


def test_target_style_mixes_by_degree_and_takes_slack_for_nothing() -> None:
    codes = torch.randn(3, 4, 6)
    weights = torch.tensor([[1.0, 0.0, 3.0], [0.0, 0.0, 0.0], [0.0, 0.5, 0.0]])
    before = weights.clone()
    expected = torch.stack([(codes[0, 0] + 3 * codes[0, 2]) / 4, codes[1, 3], codes[2, 1]])
    torch.testing.assert_close(target_style(codes, weights), expected)
    assert torch.equal(weights, before)


def test_an_added_domain_is_drawn_anew_even_where_it_is_and_what_it_excludes_goes() -> None:
    own = bools("101", "010", "000")
    add, remove = torch.tensor([0.5, 0.0, 0.0]), bools("001")[0]
    target = edited(own, add, NOTHING, EXCLUSIVE)
    assert target.weights.tolist() == [[0.5, 0, 1], [0.5, 0, 0], [0.5, 0, 0]]
    assert target.kept is not None
    assert target.kept.tolist() == bools("001", "000", "000").tolist()
    target = edited(own, torch.zeros(3), remove, EXCLUSIVE)
    assert target.weights.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert target.kept is not None
    assert target.kept.tolist() == bools("100", "010", "000").tolist()


def test_a_mix_keeps_the_own_style_of_what_it_has() -> None:
    target = mixed(bools("101", "010"), torch.tensor([2.0, 1.0, 0.0]))
    assert target.weights.tolist() == [[2, 1, 0], [2, 1, 0]]
    assert target.kept is not None
    assert target.kept.tolist() == bools("100", "010").tolist()


def test_translate_puts_the_steps_together(nets: GenerativeNetworks, batch: tuple[Tensor, Tensor]) -> None:
    """One image, one style, at a time."""
    images, latents = batch
    random = torch.Generator().manual_seed(2)
    weights = torch.rand(len(images), 3, generator=random) * (torch.rand(len(images), 3, generator=random) < 0.6)
    kept = torch.rand(len(images), 3, generator=random) < 0.5
    codes = torch.stack([drawn_codes(nets, latents), drawn_codes(nets, latents.flip(0))])
    made = translate(nets, images, Target(weights, kept), codes)
    assert made.shape == (2, *images.shape)
    assert made.abs().max() <= 1
    for style in range(2):
        for row, image in enumerate(images):
            own, drawn = (
                nets.style_encoder(image[None])[0],
                nets.mapping(latents[row if not style else -1 - row][None])[0],
            )
            mix = torch.zeros(8)
            for n in range(3):
                mix += weights[row, n] * (own if kept[row, n] else drawn)[n]
            mix = mix / weights[row].sum() if weights[row].any() else drawn[3]
            expected = nets.generator(image[None], mix[None]).clamp(-1, 1)[0]
            torch.testing.assert_close(made[style, row], expected, rtol=1e-4, atol=1e-5)


def test_the_same_codes_may_serve_all_images(nets: GenerativeNetworks, batch: tuple[Tensor, Tensor]) -> None:
    images, latents = batch
    code = drawn_codes(nets, latents[:1])
    target = Target(torch.ones(len(images), 3), bools("010").expand(len(images), -1))
    each = code.expand(len(images), -1, -1)
    assert torch.equal(translate(nets, images, target, code), translate(nets, images, target, each[None]))


def test_a_result_does_not_depend_on_the_images_beside_it(
    nets: GenerativeNetworks, batch: tuple[Tensor, Tensor]
) -> None:
    """To the last bit, on a CPU: a table, the API and an evaluation take them in batches of their own."""
    images, latents = batch
    codes = drawn_codes(nets, latents)
    assert torch.equal(codes[5:6], drawn_codes(nets, latents[5:6]))
    kept = bools("010", "101").repeat(10, 1)[: len(images)]
    target = Target(torch.ones(len(images), 3), kept)
    whole = translate(nets, images, target, codes[None])[0]
    for rows in (slice(0, 1), slice(4, 7), slice(3, 19), slice(18, 19)):
        part = translate(nets, images[rows], Target(target.weights[rows], kept[rows]), codes[None, rows])[0]
        assert torch.equal(part, whole[rows]), rows


def test_the_ends_of_an_interpolation_are_the_translations_to_them(
    nets: GenerativeNetworks, batch: tuple[Tensor, Tensor]
) -> None:
    images, latents = batch
    code = drawn_codes(nets, latents[:1])
    ends = [torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.5, 1.0])]
    styles = [target_style(code, end[None])[0] for end in ends]
    frames = translate_styles(nets, images, interpolated(styles[0], styles[1], 5))
    assert frames.shape == (5, *images.shape)
    for frame, end in zip((frames[0], frames[-1]), ends, strict=True):
        target = Target(end.expand(len(images), -1), None)
        torch.testing.assert_close(frame, translate(nets, images, target, code)[0])
