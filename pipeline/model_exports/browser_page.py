"""The page that translates in a browser: ``onnx/translate.html``, by ONNX Runtime Web, without a network.

What runs the networks lies in the page, and so do networks of up to :data:`MOST_INSIDE` bytes: one file, which opens
from a disk. Larger ones are read from beside it, which browsers do from a server only; the page says what to type.
"""

from __future__ import annotations

import base64
import json
from importlib.resources import files
from pathlib import Path

from markupsafe import Markup

from pipeline.files import read_json, write_bytes
from pipeline.model_exports.bundle_folder import ONNX_FOLDER, PAGE_NAME
from pipeline.model_exports.examples import Examples
from pipeline.showing.pages import render_page

MOST_INSIDE = 64 << 20
RUNTIME_VERSION = "1.30.0"
_RUNTIME = {"runtime.mjs": "ort.wasm.bundle.min.mjs", "runtime.wasm.gz": "ort-wasm-simd-threaded.wasm.gz"}
_COARSE = 64  # pixels: smaller results are shown as the squares that they are


def write_browser_page(folder: Path, latent_dim: int, examples: Examples | None) -> bool:
    """Write the page into the folder of the ONNX files; returns whether they are inside it.

    latent_dim: of what the mapping network takes. examples: their sources can be picked on the page.
    """
    about = read_json(folder / "networks.json")
    names = list(about["networks"])
    inlined = sum((folder / name).stat().st_size for name in names) <= MOST_INSIDE
    inside = {name: _asset(f"onnxruntime-web/{asset}") for name, asset in _RUNTIME.items()}
    if inlined:
        inside |= {name: (folder / name).read_bytes() for name in names}
    told = {name: about[name] for name in ("image_size", "domains", "never_together")} | {"latent_dim": latent_dim}
    values = {
        "title": ", ".join(about["domains"][:4]),
        "size": about["image_size"],
        "domains": about["domains"],
        "coarse": about["image_size"] <= _COARSE,
        "examples": [] if examples is None else list(examples.sources),
        "inlined": inlined,
        "folder": ONNX_FOLDER,
        "page": PAGE_NAME,
        "version": RUNTIME_VERSION,
        "about": Markup(json.dumps(told).replace("<", "\\u003c")),
        "inside": {name: base64.b64encode(data).decode() for name, data in inside.items()},
        "css": Markup(_asset("translate.css").decode()),
        "script": Markup(_asset("translate.js").decode()),
        "worker": Markup(_asset("translate-worker.js").decode()),
    }
    write_bytes(folder / PAGE_NAME, render_page("translate.html", values).encode())
    return inlined


def _asset(name: str) -> bytes:
    return (files("pipeline") / "assets" / name).read_bytes()
