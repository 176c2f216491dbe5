"""What this machine has of what lanit needs: versions, devices, caches, the network, extras, the store."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lanit.errors import LanitError
from pipeline.clip.presets import PRESETS
from pipeline.clip.reach import HUB_WEIGHTS
from pipeline.extras import install

State = Literal["ok", "missing", "problem"]

NEEDED = (
    "torch", "torchvision", "open_clip_torch", "huggingface_hub", "safetensors", "numpy", "threadpoolctl", "pillow",
    "simplejpeg", "pyarrow", "fsspec", "filelock", "pandas", "typer", "rich", "jinja2",
)  # fmt: skip
_INDEXES = ("faiss-gpu", "faiss-cpu")  # one of them
EXTRAS: dict[str, tuple[str, tuple[str, ...]]] = {
    "dicom": ("medical images", ("pydicom",)),
    "heic": ("the format of iPhones", ("pillow-heif",)),
    "transformers": ("SigLIP and other CLIPs that read text with it", ("transformers", "sentencepiece", "protobuf")),
    "review": ("lanit review", ("starlette", "uvicorn", "umap-learn")),
    "play": ("lanit play", ("gradio",)),
    "video": ("lanit translate --as mp4", ("av",)),
    "onnx": ("lanit export-model --onnx", ("onnx", "onnxscript", "onnxruntime")),
    "lance": ("lanit export --to lance, and its import", ("pylance",)),
    "metrics": ("lanit evaluate --features inception, LPIPS", ("timm", "torch-fidelity", "torchmetrics")),
    "mcp": ("lanit mcp", ("mcp",)),
    "tensorboard": ("lanit train --log tensorboard", ("tensorboard",)),
    "trackio": ("lanit train --log trackio", ("trackio",)),
    "wandb": ("lanit train --log wandb", ("wandb",)),
    "ray": ("--engine ray", ("ray",)),
    "s3": ("inputs behind s3://", ("s3fs",)),
    "gcs": ("inputs behind gs://", ("gcsfs",)),
    "azure": ("inputs behind az:// and abfs://", ("adlfs",)),
}
"""Of each extra what it is for, and its packages; those of tests are left out."""

_LEAST_FREE = 2e9  # bytes


@dataclass(frozen=True)
class Check:
    """kind: what it belongs to. name, found: for people. state: ``missing`` where something optional is, ``problem``
    where lanit will not work as it should; then hint says what to type."""

    kind: Literal["versions", "devices", "models", "network", "extras", "store"]
    name: str
    found: str
    state: State = "ok"
    hint: str = ""


@dataclass(frozen=True)
class Examination:
    checks: tuple[Check, ...]

    @property
    def problems(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.state == "problem")

    def to_json(self) -> dict[str, Any]:
        return {"checks": [asdict(check) for check in self.checks], "problems": len(self.problems)}


def examine(store: Path) -> Examination:
    """Everything that can be told without loading a model; nothing is written and no file fetched. store: its folder,
    which need not be there."""
    checks = [*_versions(), *_devices(), *_models(), _network(), *_extras(), *_store(store)]
    return Examination(tuple(checks))


def _versions() -> Iterator[Check]:
    yield Check("versions", "lanit", version_of("lanit") or "run from its source")
    new = sys.version_info >= (3, 11)
    hint = "" if new else "Install Python 3.11 or newer."
    yield Check("versions", "Python", f"{platform.python_version()}, {platform.platform()}", _or_problem(new), hint)
    for name in NEEDED:
        found = version_of(name)
        hint = "" if found else f"pip install {name}"
        yield Check("versions", name, found or "not installed", _or_problem(found is not None), hint)
    found = next((f"{name} {version}" for name in _INDEXES if (version := version_of(name))), None)
    hint = "" if found else "pip install faiss-cpu"
    yield Check("versions", "faiss", found or "not installed", _or_problem(found is not None), hint)


def _devices() -> Iterator[Check]:
    yield Check("devices", "cpu", f"{os.cpu_count()} processors, {platform.machine()}")
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check(
            "devices", "torch", f"cannot be imported ({error})", "problem", "pip install --force-reinstall torch"
        )
        return
    built = getattr(torch.version, "cuda", None)
    if not torch.cuda.is_available():
        why = f"torch is built for CUDA {built}, and finds no GPU" if built else "torch is built without CUDA"
        yield Check("devices", "cuda", f"none: {why}; everything runs on the CPU", "missing")
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        yield Check("devices", f"cuda:{number}", f"{properties.name}, {properties.total_memory / 1e9:.0f} GB")


def _models() -> Iterator[Check]:
    import huggingface_hub
    import huggingface_hub.constants as places

    cache = Path(places.HF_HUB_CACHE)
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    hint = "" if free > _LEAST_FREE else "Make room, or set HF_HOME to another disk."
    yield Check("models", "cache", f"{cache}, {free / 1e9:.0f} GB free", _or_problem(free > _LEAST_FREE), hint)
    for name, preset in PRESETS.items():
        repository, _, revision = preset.repository.partition("@")
        files = (
            huggingface_hub.try_to_load_from_cache(repository, file, revision=revision or None) for file in HUB_WEIGHTS
        )
        here = any(isinstance(file, str) for file in files)
        found = "in the cache" if here else "fetched when it is first used"
        yield Check("models", name, f"{preset.clip}: {found}", "ok" if here else "missing")


def _network() -> Check:
    import huggingface_hub.constants as places

    from pipeline.clip.hub import hub_answers

    if places.HF_HUB_OFFLINE:
        return Check("network", "Hugging Face", "HF_HUB_OFFLINE is set: the cache alone is used", "missing")
    if hub_answers():
        return Check("network", "Hugging Face", f"{places.ENDPOINT} answers, or a proxy stands before it")
    hint = "Give weights that you have: --clip FILE or FOLDER; --clip sample needs none."
    return Check("network", "Hugging Face", f"{places.ENDPOINT} cannot be reached", "missing", hint)


def _extras() -> Iterator[Check]:
    for extra, (purpose, packages) in EXTRAS.items():
        lacking = [name for name in packages if version_of(name) is None]
        if lacking:
            yield Check("extras", extra, f"{purpose}: lacks {', '.join(lacking)}", "missing", install(extra))
        else:
            yield Check("extras", extra, purpose)


def _store(folder: Path) -> Iterator[Check]:
    from pipeline.clip.reach import check_reachable
    from pipeline.store.store import Store

    if not folder.exists():
        yield Check("store", str(folder), "not there yet", "missing", "lanit embed photos/")
        return
    try:
        store = Store.open(folder)
    except LanitError as error:
        yield Check("store", str(folder), error.message, "problem", error.hint)
        return
    images = f"{store.rows:,} images, {store.ok:,} with an embedding, {len(store.revisions())} label revisions"
    yield Check("store", str(folder), images)
    try:
        check_reachable(store.clip_spec)
    except LanitError as error:
        yield Check("store", "its CLIP", error.message, "problem", error.hint)
    else:
        yield Check("store", "its CLIP", store.clip_spec)


def version_of(package: str) -> str | None:
    """The version of an installed package; none where it is not."""
    try:
        return importlib.metadata.version(re.split(r"[\[<>=]", package)[0])
    except importlib.metadata.PackageNotFoundError:
        return None


def _or_problem(right: bool) -> State:
    return "ok" if right else "problem"
