"""Images to features: CLIP, which every store has at hand, or Inception where its weights are.

Nothing is downloaded here: weights that are no local file are an error that says where to get them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lanit.errors import LanitError
from pipeline.clip.batch_encoder import BatchEncoder
from pipeline.clip.fingerprint import Fingerprint
from pipeline.clip.models import ClipModel
from pipeline.evaluation.figures import ExtractorFacts
from pipeline.extras import install
from pipeline.files import sha256_file
from pipeline.stand_ins import refuse_stand_in

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
"""The name under which torch-fidelity keeps the weights it publishes; the Inception of the FID paper."""

_NO_INCEPTION = f"Put torch-fidelity's {INCEPTION_FILE} there, or take the features that need no file: --features clip"


class Extractor(Protocol):
    """Features of images; ``facts`` say which."""

    @property
    def facts(self) -> ExtractorFacts: ...

    def __call__(self, images: np.ndarray) -> Tensor:
        """Float32 (n×d), on the CPU, of images, uint8 (n×H×W×3): a block, all of it at once."""


class ClipFeatures:
    """Unit-norm CLIP embeddings, as the store holds them."""

    def __init__(self, clip: ClipModel) -> None:
        self.clip = clip
        self._encoder = BatchEncoder(clip)

    @property
    def facts(self) -> ExtractorFacts:
        return clip_facts(self.clip.fingerprint)

    def __call__(self, images: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        return self.encode(list(self.clip.preprocessing.resize(pixels)))

    def encode(self, pixels: Sequence[Tensor]) -> Tensor:
        """Of images that are resized already, uint8 (3×s×s)."""
        return torch.cat(self._encoder.launch(pixels)).cpu()


def clip_facts(fingerprint: Fingerprint) -> ExtractorFacts:
    """Which CLIP it is, and how images reach it."""
    how = fingerprint.preprocessing
    resize = f"{how['resize_mode']} side to {how['size']} px, {how['interpolation']}, antialiased, 8 bits"
    name = f"CLIP {fingerprint.architecture}, {fingerprint.activation}, {fingerprint.precision}"
    return ExtractorFacts(name, fingerprint.weights_sha256, resize, fingerprint.embedding_dim)


class InceptionFeatures:
    """Pooled features (2048) of the Inception network of the FID paper, by torch-fidelity, from a local file."""

    def __init__(self, weights: Path, device: torch.device) -> None:
        if not weights.is_file():
            raise LanitError(
                f"there are no Inception weights at {weights}; --inception-weights names others", _NO_INCEPTION
            )
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise LanitError("torch-fidelity is not installed", f"Run: {install('metrics')}") from error
        try:
            torch.load(weights, map_location="cpu", weights_only=True)  # torch-fidelity would unpickle anything
            network: Any = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(weights)
            )
        except Exception as error:  # torch.load and load_state_dict raise anything
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            refuse_stand_in(weights)
            raise LanitError(f"{weights} is not torch-fidelity's Inception: {reason}", _NO_INCEPTION) from error
        self.network = network.to(device).eval()
        self.device = device
        self.facts = ExtractorFacts(
            "Inception of the FID paper, pool3, by torch-fidelity",
            sha256_file(weights),
            "both sides to 299 px, bilinear as in TensorFlow 1, not antialiased",
            2048,
        )

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        (features,) = self.network(pixels.to(self.device))
        return features.float().cpu()


def inception_weights(given: Path | None) -> Path:
    """The file of ``--inception-weights``, else where torch-fidelity would have put it."""
    return given if given is not None else Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
