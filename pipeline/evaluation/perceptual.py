"""LPIPS between translations of one source: AlexNet from a local file, the learned weights that torchmetrics ships."""

from __future__ import annotations

from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lanit.errors import LanitError
from lanit.metrics import perceptual_distance, unit_channels
from pipeline.files import sha256_file
from pipeline.stand_ins import refuse_stand_in

ALEXNET_FILE = "alexnet-owt-7be5be79.pth"
"""The name under which torchvision keeps the AlexNet that LPIPS was trained on."""

_NO_ALEXNET = f"Put torchvision's {ALEXNET_FILE} there, or leave --lpips-weights out."

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of LPIPS, for images in [-1, 1]
_ENDS = (2, 5, 8, 10, 12)  # after each ReLU
_AT_ONCE = 64  # images in AlexNet: at 256 px, 2.5 MB of activations each
_SMALLEST = 32  # pixels: below, AlexNet's last layers have nothing left


class Perceptual:
    """LPIPS with AlexNet, version 0.1 (Zhang et al., CVPR 2018)."""

    def __init__(self, weights: Path, device: torch.device) -> None:
        if not weights.is_file():
            raise LanitError(f"there are no AlexNet weights at {weights}", _NO_ALEXNET)
        self.sha256 = sha256_file(weights)
        self.device = device
        self.heads = [head.to(device) for head in _heads()]
        features = _alexnet(weights).features.to(device)
        self.layers = [features[start:end] for start, end in zip((0, *_ENDS), _ENDS, strict=False)]

    @torch.inference_mode()
    def activations(self, images: np.ndarray) -> list[Tensor]:
        """For each layer, (n×C×H×W), of images, uint8 (n×S×S×3)."""
        x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).to(self.device).float() / 127.5 - 1
        shift, scale = (x.new_tensor(values)[:, None, None] for values in (_SHIFT, _SCALE))
        x, found = (x - shift) / scale, []
        for layer in self.layers:
            x = layer(x)
            found.append(unit_channels(x))
        return found

    @torch.inference_mode()
    def spread(self, images: np.ndarray) -> Tensor:
        """Mean LPIPS over the pairs of the K images of each group: float64 (b) of uint8 (b×K×S×S×3), K ≥ 2.

        As StarGAN v2 measures diversity (Choi et al., CVPR 2020). Each image passes the network once.
        """
        groups, count = images.shape[:2]
        step = max(1, _AT_ONCE // count)
        found = []
        for start in range(0, groups, step):
            part = images[start : start + step]
            flat = self.activations(part.reshape(-1, *part.shape[2:]))
            layers = [layer.unflatten(0, part.shape[:2]) for layer in flat]
            pairs = [
                perceptual_distance([x[:, i] for x in layers], [x[:, j] for x in layers], self.heads)
                for i, j in combinations(range(count), 2)
            ]
            found.append(torch.stack(pairs).double().mean(dim=0).cpu())
        return torch.cat(found)

    @torch.inference_mode()
    def apart(self, images: np.ndarray, others: np.ndarray) -> Tensor:
        """LPIPS between images and others, one by one: float64 (b) of uint8 (b×S×S×3)."""
        found = []
        for start in range(0, len(images), _AT_ONCE):
            one, other = (self.activations(each[start : start + _AT_ONCE]) for each in (images, others))
            found.append(perceptual_distance(one, other, self.heads).double().cpu())
        return torch.cat(found)


def lpips_of(given: Path | None, size: int, styles: int, device: torch.device) -> tuple[Perceptual | None, str]:
    """LPIPS where it can be had, else none and why not. A file that was named must load, else LanitError."""
    if styles < 2:
        return None, "one translation of a source has no diversity"
    if size < _SMALLEST:
        return None, f"LPIPS needs images of {_SMALLEST} px"
    weights = given if given is not None else Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET_FILE
    if given is None and not weights.is_file():
        return None, f"no AlexNet weights at hand (--lpips-weights {ALEXNET_FILE})"
    try:
        return Perceptual(weights, device), ""
    except LanitError as error:
        if given is not None:
            raise
        return None, str(error)


def _heads() -> list[Tensor]:
    try:
        folder = files("torchmetrics")
    except ModuleNotFoundError as error:
        raise LanitError("torchmetrics is not installed", 'Run: pip install "lanit[metrics]"') from error
    with (folder / "functional" / "image" / "lpips_models" / "alex.pth").open("rb") as file:
        state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return [state[name].flatten() for name in sorted(state)]


def _alexnet(weights: Path) -> Any:
    from torchvision.models import alexnet

    refuse_stand_in(weights)
    network: nn.Module = alexnet(weights=None)
    try:
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True), strict=True)
    except Exception as error:  # torch.load and load_state_dict raise anything
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise LanitError(f"{weights} is not torchvision's AlexNet: {reason}", _NO_ALEXNET) from error
    return network.eval().requires_grad_(False)
