"""Generator, style encoder, mapping network and discriminator: METHOD §2 (after StarGAN v2, Choi et al. 2020).

All networks take images as float (B×3×S×S) in [-1, 1], S a power of two from 32 on. Domains are counted with the
slack domain, so every N here is the number of prompts plus one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lanit.codes import Anchors, CodeForm, CodeKind, Codes, CodeTable, NormalCodes, Sizes
from lanit.errors import UsageError
from lanit.options import given

_SLOPE = 0.2  # of every leaky ReLU
_UNCOVERED = -2.0  # logit of a mask at the start: an eighth covers the input

Output = Literal["image", "residual", "masked"]
"""What a generator draws, see :class:`NetworkOptions`."""


@dataclass(frozen=True)
class NetworkOptions:
    """Sizes of the networks (METHOD §2). Of the channels, 0 means the paper's value for the image size.

    image_size: S, pixels, and domains: N, the slack domain included; both come with the data. channels: c0 at full
    resolution, 2^14 / S by default. max_channels: where doubling stops. discriminator_channels: c0 of the discriminator
    and the style encoder, ``channels`` by default. style_dim: D_s. latent_dim: of z. mapping_width: of the mapping
    network's layers.
    codes: where styles come from that no image gives: the ``mapping`` network; a ``table``, one learned style a domain;
    or ``normal`` noise (:mod:`lanit.codes`). Only the first has a ``latent_dim`` of its own.
    code_form: of styles of E_S and E_M, ``free``, or ``anchored`` to a direction for each domain (:mod:`lanit.codes`).
    discriminator_input: D judges an ``image``, or the ``pair`` of it and its source, as pix2pix does (paired images).
    output: the generator draws the ``image``; the ``residual`` that is added to its input; or, ``masked``, a picture
    and how much of it covers the input at each pixel (GANimation, Pumarola et al., ECCV 2018). The paper has the first.
    The others keep content from the first steps on, so that small models learn in minutes, and a mask also lets them
    cover what was there rather than cancel it. They suit edits of a picture better than changes of kind.
    classifies: whether D has a second head, a logit for each domain but the slack one: which of them an image shows.
    """

    image_size: int = given(256)
    domains: int = given(11)
    channels: int = 0
    max_channels: int = 512
    discriminator_channels: int = 0
    style_dim: int = 64
    latent_dim: int = 16
    mapping_width: int = 512
    output: Output = "image"
    codes: CodeKind = "mapping"
    code_form: CodeForm = "free"
    discriminator_input: Literal["image", "pair"] = "image"
    classifies: bool = given(False)

    def __post_init__(self) -> None:
        size = self.image_size
        if size < 32 or size & (size - 1):
            raise UsageError(f"the image size must be a power of two of at least 32, not {size}", "Try --size 64.")
        if self.code_form == "anchored" and self.codes != "mapping":
            raise UsageError("code_form=anchored is of codes=mapping", "Leave one of them out.")

    @property
    def base_channels(self) -> int:
        return self.channels or min(2**14 // self.image_size, self.max_channels)

    @property
    def base_discriminator_channels(self) -> int:
        return self.discriminator_channels or self.base_channels


class InstanceNorm(nn.Module):
    """Instance normalisation with a learned scale and shift; with group_norm's kernel, the faster of the two."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, x.shape[1], self.weight.to(x.dtype), self.bias.to(x.dtype))


class AdaIN(nn.Module):
    """Instance normalisation whose scale and shift are a linear function of the style (B×D_s)."""

    def __init__(self, channels: int, style_dim: int) -> None:
        super().__init__()
        self.affine = nn.Linear(style_dim, 2 * channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        scale, shift = self.affine(style).to(x.dtype)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(shift, F.group_norm(x, x.shape[1]), 1 + scale)


class DownBlock(nn.Module):
    """Residual block, optionally normalised and optionally halving the size; the sum is divided by √2.

    The 1×1 shortcut stands after the pooling: the two commute, and it is a quarter of the work there.
    """

    def __init__(self, inner: int, outer: int, *, normalise: bool, down: bool) -> None:
        super().__init__()
        self.down = down
        self.norm1 = InstanceNorm(inner) if normalise else nn.Identity()
        self.norm2 = InstanceNorm(inner) if normalise else nn.Identity()
        self.conv1 = nn.Conv2d(inner, inner, 3, 1, 1)
        self.conv2 = nn.Conv2d(inner, outer, 3, 1, 1)
        self.shortcut = nn.Conv2d(inner, outer, 1, bias=False) if inner != outer else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        residual = self.conv1(F.leaky_relu(self.norm1(x), _SLOPE))
        if self.down:
            residual, x = _halve(residual), _halve(x)
        residual = self.conv2(F.leaky_relu(self.norm2(residual), _SLOPE))
        return (self.shortcut(x) + residual) * math.sqrt(0.5)


class UpBlock(nn.Module):
    """AdaIN residual block, optionally doubling the size; the 1×1 shortcut stands before the upsampling."""

    def __init__(self, inner: int, outer: int, style_dim: int, *, up: bool) -> None:
        super().__init__()
        self.up = up
        self.norm1 = AdaIN(inner, style_dim)
        self.norm2 = AdaIN(outer, style_dim)
        self.conv1 = nn.Conv2d(inner, outer, 3, 1, 1)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1)
        self.shortcut = nn.Conv2d(inner, outer, 1, bias=False) if inner != outer else nn.Identity()

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        residual, x = F.leaky_relu(self.norm1(x, style), _SLOPE), self.shortcut(x)
        if self.up:
            residual, x = _double(residual), _double(x)
        residual = self.conv2(F.leaky_relu(self.norm2(self.conv1(residual), style), _SLOPE))
        return (x + residual) * math.sqrt(0.5)


def _halve(x: Tensor) -> Tensor:
    """2×2 averages; at exactly half the size bilinear resampling is that, and twice avg_pool2d's speed on a CPU."""
    return F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


class Generator(nn.Module):
    """G(x, a) = decode(encode(x), a). The first half takes no style: one encoding serves every decoding of an image."""

    def __init__(self, options: NetworkOptions) -> None:
        super().__init__()
        halvings = int(math.log2(options.image_size)) - 4
        widths = [min(options.base_channels * 2**i, options.max_channels) for i in range(halvings + 1)]
        self.from_rgb = nn.Conv2d(3, widths[0], 3, 1, 1)
        down = [DownBlock(a, b, normalise=True, down=True) for a, b in pairwise(widths)]
        bottleneck = [DownBlock(widths[-1], widths[-1], normalise=True, down=False) for _ in range(2)]
        self.encoder = nn.Sequential(*down, *bottleneck)
        upwards = widths[::-1]
        mixing = [UpBlock(widths[-1], widths[-1], options.style_dim, up=False) for _ in range(2)]
        up = [UpBlock(a, b, options.style_dim, up=True) for a, b in pairwise(upwards)]
        self.decoder = nn.ModuleList([*mixing, *up])
        self.norm: nn.Module = InstanceNorm(widths[0])
        self.output = options.output
        self.to_rgb = nn.Conv2d(widths[0], 4 if self.output == "masked" else 3, 1)
        initialise(self)
        if self.output != "image":
            nn.init.zeros_(self.to_rgb.weight)
        if self.output == "masked" and self.to_rgb.bias is not None:
            nn.init.constant_(self.to_rgb.bias[3:], _UNCOVERED)

    def encode(self, images: Tensor) -> Tensor:
        """Content E_C(x): (B×3×S×S) to (B×C×16×16)."""
        return self.encoder(self.from_rgb(images))

    def decode(self, content: Tensor, style: Tensor, source: Tensor) -> Tensor:
        """Images (B×3×S×S) of a content (B×C×16×16) in an aggregated style (B×D_s); not clamped.

        source: the images (B×3×S×S) that ``content`` encodes, added to or covered where the network does so.
        """
        for block in self.decoder:
            content = block(content, style)
        drawn: Tensor = self.to_rgb(F.leaky_relu(self.norm(content), _SLOPE))
        if self.output == "masked":
            picture, mask = drawn.split([3, 1], dim=1)
            return source + mask.sigmoid() * (picture - source)
        return source + drawn if self.output == "residual" else drawn

    def forward(self, images: Tensor, style: Tensor) -> Tensor:
        return self.decode(self.encode(images), style, images)


def trunk_of(options: NetworkOptions, inputs: int = 3) -> tuple[nn.Sequential, int]:
    """Convolutions of E_S and D: (B×inputs×S×S) to (B×C×1×1); returns them and C."""
    halvings = int(math.log2(options.image_size)) - 2
    widths = [min(options.base_discriminator_channels * 2**i, options.max_channels) for i in range(halvings + 1)]
    blocks = [DownBlock(a, b, normalise=False, down=True) for a, b in pairwise(widths)]
    top = widths[-1]
    ends = (nn.LeakyReLU(_SLOPE), nn.Conv2d(top, top, 4), nn.LeakyReLU(_SLOPE))
    return nn.Sequential(nn.Conv2d(inputs, widths[0], 3, 1, 1), *blocks, *ends), top


def channels_last(images: Tensor) -> Tensor:
    """The fastest layout for convolutions; the generator keeps the other, in which group_norm is fast."""
    return images.contiguous(memory_format=torch.channels_last)


class StyleEncoder(nn.Module):
    """E_S: the style codes of an image, one linear head per domain, as one product."""

    def __init__(self, options: NetworkOptions) -> None:
        super().__init__()
        self.shape = (options.domains, options.style_dim)
        self.anchored = Anchors(options) if options.code_form == "anchored" else nn.Identity()
        self.trunk, top = trunk_of(options)
        self.heads = nn.Linear(top, options.domains * options.style_dim)
        initialise(self)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Style codes s (B×N×D_s) of images (B×3×S×S)."""
        codes = self.heads(self.trunk(channels_last(images)).flatten(1)).unflatten(1, self.shape)
        return self.anchored(codes)


class Discriminator(nn.Module):
    """D: one logit per domain (B×N) of images (B×3×S×S), or of pairs of each with the source it is made of.

    Where it classifies too (AC-GAN, Odena et al., ICML 2017), a second head shares the trunk: which domains are shown.
    """

    def __init__(self, options: NetworkOptions, labels: int | None = None) -> None:
        """labels: how many domains the second head tells apart; of N, all but the slack one if not said."""
        super().__init__()
        self.pairs = options.discriminator_input == "pair"
        self.trunk, top = trunk_of(options, 6 if self.pairs else 3)
        self.logits = nn.Conv2d(top, options.domains, 1)
        labels = options.domains - 1 if labels is None else labels
        self.classes = nn.Conv2d(top, labels, 1) if options.classifies else None
        initialise(self)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, sources: Tensor | None = None) -> Tensor:
        """sources: (B'×3×S×S) that pairs are made with, again and again where images are K × B'; else not looked at."""
        return self.judge(images, sources)[0]

    def judge(self, images: Tensor, sources: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As :meth:`forward`, and logits of what each image shows (B×(N−1)), or (B×0) of a D that does not classify."""
        if self.pairs and sources is not None:
            images = torch.cat([sources.repeat(len(images) // len(sources), 1, 1, 1), images], dim=1)
        seen = self.trunk(channels_last(images))
        logits = self.logits(seen).flatten(1)
        return logits, self.classes(seen).flatten(1) if self.classes is not None else logits[:, :0]


class MappingNetwork(Codes):
    """E_M: style codes of a latent z; shared layers, then one MLP per domain as batched products."""

    def __init__(self, options: Sizes) -> None:
        super().__init__(options)
        self.latent_dim = options.latent_dim
        self.anchored = Anchors(options) if options.code_form == "anchored" else nn.Identity()
        width, domains = options.mapping_width, options.domains
        sizes = [options.latent_dim, width, width, width, width]
        self.shared = nn.ModuleList([nn.Linear(a, b) for a, b in pairwise(sizes)])
        heads = [width, width, width, width, options.style_dim]
        self.weights = nn.ParameterList([nn.Parameter(torch.empty(domains, a, b)) for a, b in pairwise(heads)])
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(domains, 1, b)) for b in heads[1:]])
        initialise(self)
        for weight in self.weights:
            nn.init.normal_(weight, std=math.sqrt(2 / weight.shape[1]))

    def forward(self, latents: Tensor) -> Tensor:
        """Style codes s (B×N×D_s) of latents z (B×16)."""
        x = latents
        for layer in self.shared:
            x = F.relu(layer(x))
        x = x.expand(len(self.weights[0]), -1, -1)
        for depth, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias.expand(-1, x.shape[1], -1), F.relu(x) if depth else x, weight)
        return self.anchored(x.transpose(0, 1))


CODES: dict[CodeKind, type[Codes]] = {"mapping": MappingNetwork, "table": CodeTable, "normal": NormalCodes}


class GenerativeNetworks(nn.Module):
    """G, E_S and E_M under their names in a saved model, and the four things that translation asks of them.

    A method without one of the networks says what it can by these: what is averaged, saved and translated with. With a
    table of codes there is no E_S.
    """

    style_encoder: StyleEncoder
    mapping: Codes

    def __init__(self, options: NetworkOptions) -> None:
        super().__init__()
        kind = CODES[options.codes]
        self.generator = Generator(options)
        if kind.of_images:
            self.style_encoder = StyleEncoder(options)
        self.mapping = kind(options)

    @property
    def latent_dim(self) -> int:
        """D_z of the latents that styles are drawn from; 0 where they are not drawn: one style a domain."""
        return self.mapping.latent_dim

    @property
    def reads_styles(self) -> bool:
        """Whether images have styles of their own, which E_S reads."""
        return self.mapping.of_images

    @property
    def style_networks(self) -> tuple[nn.Module, ...]:
        """E_S, where there is one, and E_M."""
        return (self.style_encoder, self.mapping) if self.reads_styles else (self.mapping,)

    def content(self, images: Tensor) -> Tensor:
        """E_C: what stays of images (B×3×S×S) in any style, (B×C×16×16)."""
        return self.generator.encode(images)

    def own_codes(self, images: Tensor) -> Tensor:
        """E_S: the style of images (B×3×S×S) in every domain, (B×N×D_s); those of the domains where it reads none."""
        if not self.reads_styles:
            return self.drawn_codes(images.new_zeros(len(images), 0))
        return self.style_encoder(images)

    def drawn_codes(self, latents: Tensor) -> Tensor:
        """E_M: a style of every domain for each latent (B×D_z), (B×N×D_s)."""
        return self.mapping(latents)

    def render(self, content: Tensor, style: Tensor, images: Tensor) -> Tensor:
        """G: images (B×3×S×S), not clamped, of content, style (B×D_s) and the images that the content is of."""
        return self.generator.decode(content, style, images)


def aggregate(styles: Tensor, weights: Tensor) -> Tensor:
    """a = Σ_n d_n s_n / Σ_n d_n (METHOD §2).

    styles: (B×N×D_s); weights: non-negative (B×N), bool or real, not all zero in a row. Returns (B×D_s).
    """
    shares = weights.to(styles.dtype)
    shares = shares / shares.sum(dim=1, keepdim=True)
    return (shares[:, :, None] * styles).sum(dim=1)  # unlike a matrix product, float32 under autocast


def initialise(module: nn.Module) -> None:
    """He normal, fan-in, for convolution and linear weights; zero biases (METHOD §2).

    Parameters without memory are left alone: torch draws even those, slowly.
    """
    if next(module.parameters()).is_meta:
        return
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
