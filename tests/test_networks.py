"""The networks have METHOD §2's shapes and order of operations, and their shortcuts change the cost only."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lanit.errors import UsageError
from lanit.networks import (
    AdaIN,
    Discriminator,
    DownBlock,
    GenerativeNetworks,
    Generator,
    InstanceNorm,
    MappingNetwork,
    NetworkOptions,
    StyleEncoder,
    UpBlock,
    aggregate,
)

Double = torch.float64
SMALL = {32: (4, 8), 64: (4, 16), 256: (2, 8)}  # image size: channels, max_channels


def options(size: int = 32, domains: int = 4, output: Any = "image") -> NetworkOptions:
    channels, most = SMALL[size]
    return NetworkOptions(
        image_size=size,
        domains=domains,
        channels=channels,
        max_channels=most,
        style_dim=6,
        mapping_width=8,
        output=output,
    )


def shake(module: nn.Module) -> nn.Module:
    """Random values for every parameter, in float64: biases and norms at their initial 0 and 1 would hide mistakes."""
    random = torch.Generator().manual_seed(0)
    module.to(Double)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=random, dtype=Double))
    return module


def parity(module: nn.Module, naive: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Equal results, and equal gradients in inputs and parameters."""
    leaves = [*(value.requires_grad_() for value in inputs), *module.parameters()]
    ours, expected = module(*inputs), naive(*inputs)
    torch.testing.assert_close(ours, expected)
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1), dtype=Double)
    for result, reference in zip(
        torch.autograd.grad((ours * weights).sum(), leaves),
        torch.autograd.grad((expected * weights).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(result, reference)


def noise(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=Double)


def standardise(x: Tensor) -> Tensor:
    """Each channel of each image to mean 0 and variance 1."""
    mean = x.mean(dim=(2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean(dim=(2, 3), keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-5)


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x)


@pytest.mark.parametrize("size", SMALL)
def test_shapes_at_every_size(size: int) -> None:
    torch.manual_seed(0)
    setup, batch = options(size, 5), 3 if size < 256 else 1
    nets, images = GenerativeNetworks(setup), torch.rand(batch, 3, size, size) * 2 - 1
    content = nets.generator.encode(images)
    assert content.shape == (batch, SMALL[size][1], 16, 16)
    codes = nets.style_encoder(images)
    assert codes.shape == nets.mapping(torch.randn(batch, 16)).shape == (batch, 5, 6)
    assert nets.generator(images, codes[:, 0]).shape == images.shape
    assert Discriminator(setup)(images).shape == (batch, 5)


@pytest.mark.parametrize("size", SMALL)
def test_depths_are_the_papers(size: int) -> None:
    setup, halvings = options(size), int(math.log2(size))
    generator = Generator(setup)
    assert sum(block.down for block in generator.encoder) == halvings - 4
    assert sum(not block.down for block in generator.encoder) == 2
    assert sum(block.up for block in generator.decoder) == halvings - 4
    assert [block.up for block in generator.decoder][:2] == [False, False]
    for network in (StyleEncoder(setup), Discriminator(setup)):
        blocks = [block for block in network.trunk if isinstance(block, DownBlock)]
        assert len(blocks) == halvings - 2
        assert all(block.down and isinstance(block.norm1, nn.Identity) for block in blocks)
    mapping = MappingNetwork(setup)
    assert (len(mapping.shared), len(mapping.weights)) == (4, 4)


def test_default_widths_are_the_papers() -> None:
    for size in (32, 64, 128, 256):
        assert NetworkOptions(image_size=size).base_channels == min(2**14 // size, 512)
    with torch.device("meta"):
        generator = Generator(NetworkOptions(image_size=256))
        mapping = MappingNetwork(NetworkOptions(image_size=256))
    assert [block.conv2.out_channels for block in generator.encoder] == [128, 256, 512, 512, 512, 512]
    assert generator.from_rgb.out_channels == 64
    assert mapping.shared[0].weight.shape == (512, 16)
    assert mapping.weights[-1].shape == (11, 512, 64)


@pytest.mark.parametrize("size", [0, 16, 31, 48, 100])
def test_sizes_that_do_not_halve_are_refused(size: int) -> None:
    with pytest.raises(UsageError, match=f"not {size}"):
        NetworkOptions(image_size=size)


def test_discriminator_and_style_encoder_may_be_wider_than_the_generator() -> None:
    setup = NetworkOptions(image_size=32, channels=2, discriminator_channels=6, max_channels=16)
    assert Generator(setup).from_rgb.out_channels == 2
    assert Discriminator(setup).trunk[0].out_channels == StyleEncoder(setup).trunk[0].out_channels == 6


def test_instance_norm_standardises_each_channel_of_each_image() -> None:
    norm = shake(InstanceNorm(3))
    scale, shift = norm.weight[:, None, None], norm.bias[:, None, None]
    parity(norm, lambda x: standardise(x) * scale + shift, noise(2, 3, 5, 4))


def test_adain_scales_by_one_plus_gamma() -> None:
    adain = shake(AdaIN(3, 4))

    def naive(x: Tensor, style: Tensor) -> Tensor:
        images = []
        for image, code in zip(standardise(x), style, strict=True):
            affine = adain.affine.weight @ code + adain.affine.bias
            images.append(torch.stack([(1 + affine[c]) * image[c] + affine[3 + c] for c in range(3)]))
        return torch.stack(images)

    parity(adain, naive, noise(2, 3, 5, 4), noise(2, 4, seed=3))


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize(("inner", "outer", "down"), [(3, 5, True), (4, 4, True), (3, 2, False), (4, 4, False)])
def test_down_block_is_the_papers_with_the_shortcut_before_the_pooling(
    inner: int, outer: int, down: bool, normalise: bool
) -> None:
    block = shake(DownBlock(inner, outer, normalise=normalise, down=down))

    def norm(layer: nn.Module, x: Tensor) -> Tensor:
        return standardise(x) * layer.weight[:, None, None] + layer.bias[:, None, None] if normalise else x

    def halve(x: Tensor) -> Tensor:
        quarters = [x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        return sum(quarters[1:], quarters[0]) / 4 if down else x

    def naive(x: Tensor) -> Tensor:
        shortcut = x if inner == outer else F.conv2d(x, block.shortcut.weight)
        residual = F.conv2d(leaky(norm(block.norm1, x)), block.conv1.weight, block.conv1.bias, padding=1)
        residual = F.conv2d(leaky(norm(block.norm2, halve(residual))), block.conv2.weight, block.conv2.bias, padding=1)
        return (halve(shortcut) + residual) / math.sqrt(2)

    parity(block, naive, noise(2, inner, 6, 8))


@pytest.mark.parametrize(("inner", "outer", "up"), [(3, 5, True), (4, 4, True), (3, 2, False), (4, 4, False)])
def test_up_block_is_the_papers_with_the_shortcut_after_the_upsampling(inner: int, outer: int, up: bool) -> None:
    block = shake(UpBlock(inner, outer, 4, up=up))

    def adain(layer: AdaIN, x: Tensor, style: Tensor) -> Tensor:
        gamma, beta = (style @ layer.affine.weight.T + layer.affine.bias).chunk(2, dim=1)
        return (1 + gamma[:, :, None, None]) * standardise(x) + beta[:, :, None, None]

    def double(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3) if up else x

    def naive(x: Tensor, style: Tensor) -> Tensor:
        shortcut = double(x) if inner == outer else F.conv2d(double(x), block.shortcut.weight)
        residual = double(leaky(adain(block.norm1, x, style)))
        residual = F.conv2d(residual, block.conv1.weight, block.conv1.bias, padding=1)
        residual = F.conv2d(leaky(adain(block.norm2, residual, style)), block.conv2.weight, block.conv2.bias, padding=1)
        return (shortcut + residual) / math.sqrt(2)

    parity(block, naive, noise(2, inner, 3, 4), noise(2, 4, seed=3))


@pytest.mark.parametrize("domains", [1, 3])
@pytest.mark.parametrize("batch", [1, 5])
def test_batched_heads_are_one_mlp_per_domain(domains: int, batch: int) -> None:
    mapping = shake(MappingNetwork(options(domains=domains)))

    def naive(latents: Tensor) -> Tensor:
        shared = latents
        for layer in mapping.shared:
            shared = torch.relu(shared @ layer.weight.T + layer.bias)
        codes = []
        for n in range(domains):
            x = shared
            for depth in range(4):
                x = x @ mapping.weights[depth][n] + mapping.biases[depth][n]
                x = torch.relu(x) if depth < 3 else x
            codes.append(x)
        return torch.stack(codes, dim=1)

    parity(mapping, naive, noise(batch, 16))


def test_style_encoder_heads_are_one_linear_map_per_domain() -> None:
    encoder = shake(StyleEncoder(options(domains=3)))

    def naive(images: Tensor) -> Tensor:
        features = encoder.trunk(images).flatten(1)
        heads = zip(encoder.heads.weight.split(6), encoder.heads.bias.split(6), strict=True)
        return torch.stack([features @ weight.T + bias for weight, bias in heads], dim=1)

    parity(encoder, naive, noise(2, 3, 32, 32))


@pytest.mark.parametrize("output", ["image", "residual", "masked"])
def test_one_encoding_serves_every_decoding(output: str) -> None:
    """G(x, a) == decode(encode(x), a), and two styles of one content equal two whole passes, gradients included."""
    generator = shake(Generator(options(output=output)))
    images, a, b = noise(2, 3, 32, 32), noise(2, 6, seed=3), noise(2, 6, seed=4)
    content = generator.encode(images)
    shared = generator.decode(torch.cat([content, content]), torch.cat([a, b]), torch.cat([images, images]))
    apart = torch.cat([generator(images, a), generator(images, b)])
    torch.testing.assert_close(shared, apart)
    torch.testing.assert_close(generator.decode(content, a, images), generator(images, a))
    assert not torch.allclose(shared[:2], shared[2:])
    weights = noise(4, 3, 32, 32, seed=5)
    parameters = list(generator.parameters())
    results = torch.autograd.grad((shared * weights).sum(), parameters)
    for result, expected in zip(results, torch.autograd.grad((apart * weights).sum(), parameters), strict=True):
        torch.testing.assert_close(result, expected)


def test_a_residual_generator_adds_to_its_input_and_begins_as_the_identity() -> None:
    torch.manual_seed(0)
    drawn, added = Generator(options()), Generator(options(output="residual"))
    images, style = noise(2, 3, 32, 32).float(), noise(2, 6).float()
    assert torch.equal(added(images, style), images)
    added.load_state_dict(drawn.state_dict())
    torch.testing.assert_close(added(images, style), images + drawn(images, style))


def test_a_masked_generator_covers_its_input_pixel_by_pixel() -> None:
    """(1 − m) x + m c, of the four channels that a generator with its weights draws; an eighth covers at the start."""
    torch.manual_seed(0)
    generator = Generator(options(output="masked")).double()
    images, style = noise(2, 3, 32, 32), noise(2, 6)
    torch.testing.assert_close(generator(images, style), images * (1 - 1 / (1 + math.exp(2))))
    shake(generator)
    drawn: list[Tensor] = []
    generator.to_rgb.register_forward_hook(lambda _layer, _inputs, output: drawn.append(output))
    made = generator(images, style)
    picture, mask = drawn[0][:, :3], 1 / (1 + torch.exp(-drawn[0][:, 3:]))
    assert mask.std() > 0.01
    torch.testing.assert_close(made, (1 - mask) * images + mask * picture)


def test_images_of_a_batch_do_not_see_each_other() -> None:
    setup = options()
    nets, judge = shake(GenerativeNetworks(setup)), shake(Discriminator(setup))
    images, styles = noise(3, 3, 32, 32), noise(3, 6)
    for network, inputs in ((nets.generator, (images, styles)), (nets.style_encoder, (images,)), (judge, (images,))):
        alone = torch.cat([network(*(value[i, None] for value in inputs)) for i in range(3)])
        torch.testing.assert_close(network(*inputs), alone)


def test_initialisation_is_he_normal_by_fan_in_with_zero_biases() -> None:
    torch.manual_seed(0)
    setup = NetworkOptions(image_size=64, domains=6, channels=24, max_channels=48, mapping_width=48)
    nets = nn.ModuleList([GenerativeNetworks(setup), Discriminator(setup)])
    weights: list[tuple[str, Tensor, int]] = []
    for name, layer in nets.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            weights.append((name, layer.weight, layer.weight[0].numel()))
            assert layer.bias is None or not layer.bias.any(), name
        elif isinstance(layer, InstanceNorm):
            assert (layer.weight == 1).all()
            assert not layer.bias.any()
    mapping = nets[0].mapping
    weights += [(f"head {depth}", weight, weight.shape[1]) for depth, weight in enumerate(mapping.weights)]
    assert not any(bias.any() for bias in mapping.biases)
    assert len(weights) > 40
    for name, weight, fan_in in weights:
        count, std = weight.numel(), math.sqrt(2 / fan_in)
        values = weight.detach().double() / std
        assert values.square().mean().item() == pytest.approx(1, abs=6 * math.sqrt(2 / count)), name
        assert abs(values.mean().item()) < 6 / math.sqrt(count), name
        if count > 2000:  # normal, not uniform
            assert (values**4).mean().item() == pytest.approx(3, abs=6 * math.sqrt(96 / count)), name


@pytest.mark.parametrize(("batch", "domains", "width"), [(1, 1, 1), (3, 5, 4), (6, 2, 7)])
@pytest.mark.parametrize("kind", ["bool", "real"])
def test_aggregate_is_the_weighted_mean(batch: int, domains: int, width: int, kind: str) -> None:
    styles = noise(batch, domains, width).requires_grad_()
    weights = torch.rand(batch, domains, generator=torch.Generator().manual_seed(1), dtype=Double)
    weights = weights * 3 if kind == "real" else weights < 0.5
    weights[:, 0] = 1
    rows = []
    for i in range(batch):
        total = sum(float(weights[i, n]) for n in range(domains))
        rows.append(
            sum((float(weights[i, n]) * styles[i, n] for n in range(domains)), torch.zeros(width, dtype=Double)) / total
        )
    naive = torch.stack(rows)
    ours = aggregate(styles, weights)
    torch.testing.assert_close(ours, naive)
    of = noise(batch, width, seed=9)
    torch.testing.assert_close(
        torch.autograd.grad((ours * of).sum(), styles)[0], torch.autograd.grad((naive * of).sum(), styles)[0]
    )


def test_aggregate_knows_degrees_but_no_units() -> None:
    styles = noise(2, 3, 4)
    weights = torch.tensor([[1.0, 0.5, 0.0], [0.0, 2.0, 6.0]])
    torch.testing.assert_close(aggregate(styles, weights), aggregate(styles, 7 * weights))
    torch.testing.assert_close(
        aggregate(styles, torch.tensor([[0, 1, 0], [0, 0, 3]])), torch.stack([styles[0, 1], styles[1, 2]])
    )
