"""DINOv2's features from a local file, by timm: distances in which CLIP, which taught the generator, has no part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from lanit.errors import LanitError
from lanit.preprocessing import ClipPreprocessing
from pipeline.evaluation.figures import ExtractorFacts
from pipeline.files import sha256_file
from pipeline.stand_ins import refuse_stand_in

DINOV2_FILE = "dinov2_vitl14_pretrain.pth"
"""The name under which torch's hub keeps the weights that the authors publish."""

_FOLDER_FILE = "model.safetensors"
_REPOSITORY = "timm/vit_large_patch14_dinov2.lvd142m"
_GET = (
    f"Get them once, where there is a network: hf download {_REPOSITORY} {_FOLDER_FILE} --local-dir dinov2, then type "
    f"--dinov2-weights dinov2/{_FOLDER_FILE}"
)
_KNOWN = {384: "S", 768: "B", 1024: "L", 1536: "g"}
_HEAD_WIDTH = 64  # of every DINOv2
_RESIZE = ClipPreprocessing(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", "squash")


class Dinov2Features:
    """The class token of DINOv2 after its last norm (Oquab et al., TMLR 2024), at 224 px.

    So are the features of FD-DINOv2 (Stein et al., NeurIPS 2023), which are of ViT-L/14. timm resizes the position
    embeddings antialiased, which their code does not: distances differ a little from published ones.
    """

    def __init__(self, weights: Path, device: torch.device) -> None:
        """weights: of timm or of the authors, as .safetensors or .pth, or timm's folder. Raises LanitError where there
        are none, or they are of no DINOv2."""
        file = weights / _FOLDER_FILE if weights.is_dir() else weights
        if not file.is_file():
            raise LanitError(f"there are no DINOv2 weights at {file}", _GET)
        try:
            self.network, name = _network(_read(file))
        except Exception as error:  # torch.load, timm and load_state_dict raise anything
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            refuse_stand_in(file)
            raise LanitError(f"{file} is no DINOv2 of timm or of its authors: {reason}", _GET) from error
        self.network = self.network.to(device).eval().requires_grad_(False)
        self.device = device
        resize = f"both sides to {_RESIZE.size} px, {_RESIZE.interpolation}, antialiased, 8 bits"
        self.facts = ExtractorFacts(name, sha256_file(file), resize, self.network.num_features)

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        features: Tensor = self.network(_RESIZE(pixels).to(self.device))
        return features.float().cpu()


def dinov2_weights(given: Path | None) -> Path:
    """The file of ``--dinov2-weights``, else where torch's hub would have put the authors'."""
    return given if given is not None else Path(torch.hub.get_dir()) / "checkpoints" / DINOV2_FILE


def _read(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        return load_file(file)
    weights: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return weights


def _network(weights: dict[str, Tensor]) -> tuple[Any, str]:
    """timm's network of the sizes that the weights have, with them, and what it is called."""
    import timm
    from timm.models.vision_transformer import checkpoint_filter_fn

    width = weights["cls_token"].shape[-1]
    depth = len({name.split(".")[1] for name in weights if name.startswith("blocks.")})
    registers = bool({"reg_token", "register_tokens"} & weights.keys())
    gated = any(".w12." in name or (".mlp.fc1.weight" in name and _is_gated(weights, name)) for name in weights)
    network: Any = timm.create_model(
        f"vit_{'giant' if gated else 'small'}_patch14{'_reg4' if registers else ''}_dinov2", num_classes=0,
        img_size=_RESIZE.size, embed_dim=width, depth=depth, num_heads=width // _HEAD_WIDTH,
    )  # fmt: skip
    network.load_state_dict(checkpoint_filter_fn(weights, network))
    size = f"ViT-{_KNOWN[width]}/14" if width in _KNOWN else f"ViT of {depth} blocks, {width} wide"
    return network, f"DINOv2 {size}{' with registers' if registers else ''}, class token, by timm"


def _is_gated(weights: dict[str, Tensor], name: str) -> bool:
    """Whether an MLP is gated, as that of ViT-g/14 is: its first layer then makes twice what its second takes."""
    second = weights.get(name.replace("fc1", "fc2"))
    return second is not None and weights[name].shape[0] == 2 * second.shape[1]
