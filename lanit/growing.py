"""Networks that begin with what others have learned, for the same image size or for half of it (progressive growing,
Karras et al., ICLR 2018, in one step and without a fade: a generator that adds to its input, or covers it, begins
there)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from lanit.errors import UsageError

_SIZED = {
    "generative.generator.encoder": 1,
    "generative.style_encoder.trunk": 2,
    "discriminator.trunk": 2,
}
"""Rows of layers that begin with some for the largest size alone, and how many: what follows has moved by one."""
_NEW = ("generative.generator.from_rgb.", "generative.generator.norm.", "generative.generator.to_rgb.")


def grow(networks: nn.Module, inner: Mapping[str, Tensor]) -> None:
    """Put the tensors of networks for images of half the size into ``networks`` (:class:`lanit.objectives.Networks`),
    all but the layers at full size, which those have not; or those of networks for the same size, all of them.
    ``inner`` has the same domains, and of half the size twice the channels at its own full size, so that layers of one
    size are equal. Raises UsageError where they are not.
    """
    kept: dict[str, Tensor] = {}
    last = _last_of_decoder(networks.state_dict())
    same = _last_of_decoder(inner) == last
    hint = "Networks of half the size have twice the channels and all else alike: small-32 grows to small-64."
    if same:
        hint = "Networks of one size are to be alike in all: give this run the options of that one, with --config."
    for name, tensor in networks.state_dict().items():
        source = name if same else _inner_name(name, last)
        if source is None:
            continue
        found = inner.get(source)
        if found is None or found.shape != tensor.shape:
            here = "×".join(map(str, tensor.shape))
            there = "missing" if found is None else "×".join(map(str, found.shape))
            raise UsageError(f"those networks do not fit into these: {source} is {there} there and {here} here", hint)
        kept[name] = found
    with torch.no_grad():
        networks.load_state_dict(kept, strict=False)


def _last_of_decoder(names: Iterable[str]) -> int:
    return max(int(name.split(".")[3]) for name in names if ".decoder." in name)


def _inner_name(name: str, last: int) -> str | None:
    """What a tensor is called in networks of half the size; none where they have no such layer. last: of the decoder's
    layers, the one at full size."""
    if name.startswith((*_NEW, f"generative.generator.decoder.{last}.")):
        return None
    for row, new in _SIZED.items():
        if name.startswith(f"{row}."):
            number, _, rest = name.removeprefix(f"{row}.").partition(".")
            return None if int(number) < new else f"{row}.{int(number) - 1}.{rest}"
    return name
