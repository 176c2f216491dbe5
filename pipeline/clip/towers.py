"""The two sides of a CLIP: modules at once, weights when a side is used, a digest of them without either."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_IMAGES = "visual."  # what open_clip's names of an image tower begin with; all others are of the text side


class Uninitialised(TorchFunctionMode):
    """Modules that are made inside leave the memory of their parameters untouched, so that it takes none: drawing
    initial weights that others replace costs more than reading these. Buffers are computed as ever."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        target = args[0] if args else (kwargs or {}).get("tensor")  # as torch.nn.init hands it over
        if isinstance(target, nn.Parameter) and name.endswith("_") and not name.endswith(("__", "requires_grad_")):
            return target
        return func(*args, **(kwargs or {}))


class Towers:
    """A frozen model of open_clip in evaluation mode, whose sides get their weights when they are first used.

    Safe in threads.
    """

    def __init__(
        self,
        model: nn.Module,
        weights: Mapping[str, Tensor] | None = None,
        device: torch.device | str = "cpu",
        images_dtype: torch.dtype = torch.float32,
    ) -> None:
        """weights: by the names of the model, on the CPU, mapped from a file where that can be; none for a model that
        has its own. images_dtype: of the image tower."""
        self._model, self._dtype, self.device = model, images_dtype, torch.device(device)
        self._waiting: dict[bool, dict[str, Tensor]] = {True: {}, False: {}}
        for name, tensor in (weights or {}).items():
            self._waiting[name.startswith(_IMAGES)][name] = tensor
        self._lock = threading.Lock()

    @property
    def image_parameters(self) -> int:
        """How many numbers the image tower consists of."""
        return sum(each.numel() for name, each in self._model.named_parameters() if name.startswith(_IMAGES))

    def images(self) -> Any:
        """The model, whose ``encode_image`` may be called."""
        return self._filled(of_images=True)

    def texts(self) -> Any:
        """The model, all of which but its image tower may be used."""
        return self._filled(of_images=False)

    def whole(self) -> Any:
        """The model."""
        self.images()
        return self.texts()

    def to(self, device: torch.device) -> None:
        """Move what there is, and what is to come."""
        with self._lock:
            self.device = device
            for of_images, waiting in self._waiting.items():
                if not waiting:
                    self._move(of_images=of_images)

    def _filled(self, *, of_images: bool) -> Any:
        with self._lock:
            if self._waiting[of_images]:
                with torch.inference_mode(False):  # else gradients could never pass what is made here
                    self._model.load_state_dict(self._waiting[of_images], strict=False)
                    self._move(of_images=of_images)
                self._waiting[of_images] = {}  # a mapped file is let go with the last of its tensors
        return self._model

    def _move(self, *, of_images: bool) -> None:
        for name, child in self._model.named_children():
            if (f"{name}." == _IMAGES) is not of_images:
                continue
            if of_images:
                child.to(self._dtype).to(memory_format=torch.channels_last)
            child.to(self.device)
        if of_images:
            return
        for parameter in self._model.parameters(recurse=False):
            parameter.data = parameter.data.to(self.device)
        for name, buffer in self._model.named_buffers(recurse=False):
            setattr(self._model, name, buffer.to(self.device))


def check_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Raise RuntimeError unless ``weights`` are all that ``model`` has, in its shapes."""
    expected = model.state_dict()
    missing, unknown = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if missing or unknown:
        first = f"it lacks {missing[0]}" if missing else f"it has {unknown[0]}"
        raise RuntimeError(f"{len(missing)} keys are missing and {len(unknown)} not known; {first}")
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise RuntimeError(f"size mismatch for {name}: {tuple(tensor.shape)}, not {tuple(expected[name].shape)}")


def weights_digest(model: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over the state that ``model`` would have with ``weights``, which its modules need not: names, types,
    shapes and bytes in the order of the names. Independent of the kind of file."""
    digest = hashlib.sha256()
    for name, like in sorted(model.state_dict().items()):
        tensor = weights[name].detach().to("cpu", like.dtype).contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
