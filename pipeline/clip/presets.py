"""CLIPs worth recommending, and transformers' names of those that open_clip has under others."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """A recommended CLIP. clip: open_clip's NAME/TAG. repository: of the hub, where open_clip has its weights from.
    licence: of the weights, as their card states it.

    parameters: of both towers, in millions. accuracy: top-1 on ImageNet without training on it, in per cent, as
    published by its authors. gigaflops: of the image tower for one image, a multiplication and its addition counted as
    two. languages: that it reads.
    """

    clip: str
    repository: str
    licence: str
    parameters: int
    accuracy: float
    gigaflops: float
    languages: str = "English"


DEFAULT = "default"

PRESETS: dict[str, Preset] = {
    DEFAULT: Preset("ViT-B-32/openai", "timm/vit_base_patch32_clip_224.openai", "MIT", 151, 63.2, 8.8),
    "fast": Preset(
        "ViT-B-32/datacomp_xl_s13b_b90k", "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K", "MIT", 151, 69.2, 8.8
    ),
    "good": Preset(
        "ViT-L-14/datacomp_xl_s13b_b90k", "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K", "MIT", 428, 79.2, 162.0
    ),
    "best": Preset(
        "ViT-SO400M-16-SigLIP2-384/webli", "timm/ViT-SO400M-16-SigLIP2-384", "Apache-2.0", 1136, 84.1, 519.0, "over 100"
    ),
    "multilingual": Preset(
        "ViT-B-16-SigLIP2-256/webli", "timm/ViT-B-16-SigLIP2-256", "Apache-2.0", 375, 79.1, 46.8, "over 100"
    ),
}
"""By what ``--clip`` takes."""

_SIGLIP = {
    "base-patch16-224": "ViT-B-16-SigLIP",
    "base-patch16-256": "ViT-B-16-SigLIP-256",
    "base-patch16-384": "ViT-B-16-SigLIP-384",
    "base-patch16-512": "ViT-B-16-SigLIP-512",
    "base-patch16-256-multilingual": "ViT-B-16-SigLIP-i18n-256",
    "large-patch16-256": "ViT-L-16-SigLIP-256",
    "large-patch16-384": "ViT-L-16-SigLIP-384",
    "so400m-patch14-224": "ViT-SO400M-14-SigLIP",
    "so400m-patch14-384": "ViT-SO400M-14-SigLIP-384",
    "so400m-patch16-256-i18n": "ViT-SO400M-16-SigLIP-i18n-256",
}
_SIGLIP2 = {
    "base-patch32-256": "ViT-B-32-SigLIP2-256",
    "base-patch16-224": "ViT-B-16-SigLIP2",
    "base-patch16-256": "ViT-B-16-SigLIP2-256",
    "base-patch16-384": "ViT-B-16-SigLIP2-384",
    "base-patch16-512": "ViT-B-16-SigLIP2-512",
    "large-patch16-256": "ViT-L-16-SigLIP2-256",
    "large-patch16-384": "ViT-L-16-SigLIP2-384",
    "large-patch16-512": "ViT-L-16-SigLIP2-512",
    "so400m-patch14-224": "ViT-SO400M-14-SigLIP2",
    "so400m-patch14-384": "ViT-SO400M-14-SigLIP2-378",
    "so400m-patch16-256": "ViT-SO400M-16-SigLIP2-256",
    "so400m-patch16-384": "ViT-SO400M-16-SigLIP2-384",
    "so400m-patch16-512": "ViT-SO400M-16-SigLIP2-512",
    "giant-opt-patch16-256": "ViT-gopt-16-SigLIP2-256",
    "giant-opt-patch16-384": "ViT-gopt-16-SigLIP2-384",
}
OF_TRANSFORMERS: dict[str, str] = {
    "openai/clip-vit-base-patch32": "ViT-B-32/openai",
    "openai/clip-vit-base-patch16": "ViT-B-16/openai",
    "openai/clip-vit-large-patch14": "ViT-L-14/openai",
    "openai/clip-vit-large-patch14-336": "ViT-L-14-336/openai",
    "facebook/metaclip-b32-400m": "ViT-B-32-quickgelu/metaclip_400m",
    "facebook/metaclip-b16-400m": "ViT-B-16-quickgelu/metaclip_400m",
    "facebook/metaclip-l14-400m": "ViT-L-14-quickgelu/metaclip_400m",
    "facebook/metaclip-b32-fullcc2.5b": "ViT-B-32-quickgelu/metaclip_fullcc",
    "facebook/metaclip-b16-fullcc2.5b": "ViT-B-16-quickgelu/metaclip_fullcc",
    "facebook/metaclip-l14-fullcc2.5b": "ViT-L-14-quickgelu/metaclip_fullcc",
    "facebook/metaclip-h14-fullcc2.5b": "ViT-H-14-quickgelu/metaclip_fullcc",
    "facebook/metaclip-2-worldwide-huge-quickgelu": "ViT-H-14-worldwide-quickgelu/metaclip2_worldwide",
    "facebook/metaclip-2-worldwide-huge-378": "ViT-H-14-worldwide-378/metaclip2_worldwide",
    "facebook/metaclip-2-worldwide-giant": "ViT-bigG-14-worldwide/metaclip2_worldwide",
    "facebook/metaclip-2-worldwide-giant-378": "ViT-bigG-14-worldwide-378/metaclip2_worldwide",
    **{f"google/siglip-{ending}": f"{name}/webli" for ending, name in _SIGLIP.items()},
    **{f"google/siglip2-{ending}": f"{name}/webli" for ending, name in _SIGLIP2.items()},
}
"""Repositories whose weights are in transformers' form: the same CLIP as open_clip has it."""


def repository_of(spec: str) -> str | None:
    """The repository of the hub that the weights of ``--clip`` SPEC are published in; none where lanit knows none."""
    if spec.startswith("hf-hub:"):
        return spec.removeprefix("hf-hub:").partition("@")[0]
    known = {preset.clip: preset.repository for preset in PRESETS.values()}
    known |= {name: preset.repository for name, preset in PRESETS.items()}
    return ({clip: name for name, clip in OF_TRANSFORMERS.items()} | known).get(spec)
