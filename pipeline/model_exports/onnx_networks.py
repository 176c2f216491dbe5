"""The networks of a model as ONNX files, compared with torch as soon as they are written.

``onnx/networks.json`` says what each takes and returns, and how styles are mixed: METHOD §2.
"""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lanit.errors import LanitError
from lanit.guides import Guide, guide_of
from lanit.networks import NetworkOptions
from pipeline.computing.quiet import quiet
from pipeline.extras import install
from pipeline.files import write_bytes, write_json
from pipeline.models.bundle import Bundle

TOLERANCE = 1e-4
"""Largest absolute difference from torch, in float32, above which an export is refused."""

_OPSET = 18
_MODULES = ("onnx", "onnxscript", "onnxruntime")
_CHECKED_BATCHES = (1, 3)
_CHECK_SEED = 0

_IMAGE_MEANING = "RGB; an 8-bit value v is v / 127.5 - 1; the middle square of a picture, resized to this size"
_AGGREGATION = (
    "style = sum over n of weights[:, n] * styles[:, n] / sum over n of weights[:, n], with non-negative weights in "
    "the order of 'domains', the slack domain last; where an image shall have no domain, the weight of the slack "
    "domain is 1, else it is 0. styles come from a reference image (style_encoder) or from a latent (mapping); when "
    "editing, take the image's own styles for the domains it keeps, and others for those it gets."
)


_ONE_STYLE = (
    "style = sum over n of weights[n] * styles[n] / sum over n of weights[n], with non-negative weights in the order "
    "of 'domains', the slack domain last; where an image shall have no domain, the weight of the slack domain is 1, "
    "else it is 0. styles are constants: each domain has one."
)


@dataclass(frozen=True)
class _Port:
    """An input or output. shape: without the batch; range: of the values, or how they are distributed."""

    name: str
    shape: tuple[int, ...]
    range: str
    meaning: str

    def to_json(self) -> dict[str, Any]:
        return {
            "shape": ["batch", *self.shape],
            "type": "float32",
            "range": self.range,
            "meaning": self.meaning,
        }


@dataclass(frozen=True)
class _Network:
    name: str
    module: nn.Module
    inputs: tuple[_Port, ...]
    output: _Port


def check_installed() -> None:
    """Raises LanitError where a package that ONNX needs is missing."""
    missing = [name for name in _MODULES if importlib.util.find_spec(name) is None]
    if missing:
        raise LanitError(f"ONNX needs {', '.join(missing)}", f"Install them: {install('onnx')}")


def write_onnx(folder: Path, bundle: Bundle) -> dict[str, float]:
    """Write ``generator.onnx``, ``style_encoder.onnx``, ``mapping.onnx`` and ``networks.json`` into ``folder``.

    A model that found its domains itself has ``guide.onnx`` too, which labels images. Where a domain has one style,
    there is no mapping, nor an encoder where none reads one: ``networks.json`` has them.

    The batch is dynamic, all else fixed. Returns the largest absolute difference of each network between onnxruntime
    and torch, over batches of uneven sizes. Raises LanitError where one is above :data:`TOLERANCE`.
    """
    check_installed()
    networks = _networks(bundle)
    differences = {}
    for network in networks:
        data = _converted(network)
        differences[network.name] = _largest_difference(network, data)
        write_bytes(folder / f"{network.name}.onnx", data)
    for name, difference in differences.items():
        if not difference <= TOLERANCE:  # NaN fails too
            raise LanitError(
                f"the ONNX file of the {name} differs from torch by {difference:.1e}, more than {TOLERANCE:g}",
                "Export without --onnx, or with other versions of torch, onnxscript and onnxruntime.",
            )
    write_json(folder / "networks.json", description(bundle, differences))
    return differences


def description(bundle: Bundle, differences: dict[str, float]) -> dict[str, Any]:
    """``networks.json``: domains in order, inputs and outputs with shapes and ranges, how styles are mixed."""
    domains, nets = bundle.prompt_set.domains, bundle.networks
    constant = {} if nets.latent_dim else {"styles": nets.drawn_codes(torch.zeros(1, 0))[0].tolist()}
    return {
        "format_version": 1,
        "image_size": bundle.options.image_size,
        "domains": list(domains),
        "slack_domain": len(domains),
        "never_together": [[domains[a], domains[b]] for a, b in bundle.exclusive.nonzero().tolist() if a < b],
        "networks": {
            f"{network.name}.onnx": {
                "inputs": {port.name: port.to_json() for port in network.inputs},
                "outputs": {network.output.name: network.output.to_json()},
                "largest_difference_from_torch": differences[network.name],
            }
            for network in _networks(bundle)
        },
        "aggregation": _AGGREGATION if nets.latent_dim else _ONE_STYLE,
        **constant,
        "opset": _OPSET,
    }


def _networks(bundle: Bundle) -> tuple[_Network, ...]:
    options: NetworkOptions = bundle.options
    size = (3, options.image_size, options.image_size)
    image = _Port("image", size, "[-1, 1]", _IMAGE_MEANING)
    style = _Port("style", (options.style_dim,), "unbounded", "an aggregated style")
    nets = bundle.networks
    latent = _Port("latent", (nets.latent_dim,), "standard normal", "one draw for each image, or one for all")
    styles = _Port("styles", (options.domains, options.style_dim), "unbounded", "a style for each domain, slack last")
    translation = _Port(
        "translation", size, "about [-1, 1]: clamp it", "the image in that style, as 'image' is written"
    )
    made = [_Network("generator", nets.generator, (image, style), translation)]
    if nets.reads_styles:
        made.append(_Network("style_encoder", nets.style_encoder, (image,), styles))
    if nets.latent_dim:
        made.append(_Network("mapping", nets.mapping, (latent,), styles))
    guide = guide_of(nets)
    if guide is not None:
        said = "log p of each domain minus that of the likeliest other: above 0 for the domain of the image"
        margins = _Port("margins", (options.domains - 1,), "unbounded", said)
        made.append(_Network("guide", _Margins(guide), (image,), margins))
    return tuple(made)


class _Margins(nn.Module):
    """A guiding network as a labeller."""

    def __init__(self, guide: Guide) -> None:
        super().__init__()
        self.guide = guide

    def forward(self, images: Tensor) -> Tensor:
        return self.guide.margins(images)


def _converted(network: _Network) -> bytes:
    """The network as a serialised ONNX model of one file, without traces of the machine it was made on."""
    batch = torch.export.Dim("batch", min=1)
    with quiet(logging.WARNING):
        program = torch.onnx.export(
            network.module,
            _example(network, 2),
            input_names=[port.name for port in network.inputs],
            output_names=[network.output.name],
            dynamic_shapes=tuple({0: batch} for _ in network.inputs),
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _forget_origin(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _forget_origin(model: Any) -> None:
    """Remove what the exporter notes for debugging: source lines, with the paths of this machine."""
    graph = model.graph
    for noted in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        for field in ("metadata_props", "doc_string"):
            noted.ClearField(field)
    for function in model.functions:
        for noted in (function, *function.node):
            for field in ("metadata_props", "doc_string"):
                noted.ClearField(field)


def _example(network: _Network, count: int) -> tuple[Tensor, ...]:
    """Inputs of ``count`` images: pictures uniform in [-1, 1], all else standard normal."""
    randomness = torch.Generator().manual_seed(_CHECK_SEED + count)
    return tuple(
        torch.rand(count, *port.shape, generator=randomness) * 2 - 1
        if len(port.shape) == 3
        else torch.randn(count, *port.shape, generator=randomness)
        for port in network.inputs
    )


@torch.no_grad()
def _largest_difference(network: _Network, data: bytes) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    differences = []
    for count in _CHECKED_BATCHES:
        inputs = _example(network, count)
        fed = {port.name: value.numpy() for port, value in zip(network.inputs, inputs, strict=True)}
        (made,) = session.run([network.output.name], fed)
        differences.append(float(np.abs(made - network.module(*inputs).numpy()).max()))
    return max(differences) if all(np.isfinite(differences)) else float("nan")
