"""What training leaves on disk: checkpoints to continue from, and the model bundle to use.

Tensors are safetensors, the rest is JSON; a folder appears whole, by one rename. Everything loads strictly.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lanit.errors import LanitError
from lanit.networks import GenerativeNetworks, NetworkOptions
from pipeline.files import read_json
from pipeline.labelling.learned_prompts import FILE_NAME as PROMPTS_FILE
from pipeline.labelling.learned_prompts import learned_prompts_bytes
from pipeline.labelling.prompt_sets import PromptSet
from pipeline.store.schemas import Fingerprint

BUNDLE_VERSION = 1
BUNDLE_FILES = ("model.json", "model.safetensors")
SAMPLE_MODEL = Path(__file__).parents[1] / "assets" / "sample-generator"


@dataclass(frozen=True)
class Bundle:
    """A trained model: networks, and what is needed to use them.

    exclusive: bool (N×N), domains that the training labels never show together (:func:`lanit.labels.exclusive_pairs`).
    domains_embedding (N×k), base_embedding (k): the prompts' text embeddings when it was saved, for CLIP labels.
    training: steps, images seen, seconds, options and the like, for people.
    """

    networks: GenerativeNetworks
    options: NetworkOptions
    prompt_set: PromptSet
    fingerprint: Fingerprint
    clip_spec: str
    clip_architecture: str | None
    exclusive: Tensor
    domains_embedding: Tensor
    base_embedding: Tensor
    training: dict[str, Any]


def write_folder(
    folder: Path,
    tensors: Mapping[str, Mapping[str, Tensor]],
    documents: Mapping[str, object],
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Write safetensors, JSON and other files into a folder that replaces ``folder`` whole, by rename."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    retired = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, group in tensors.items():
            save_file({key: value.detach().contiguous().cpu() for key, value in group.items()}, temporary / name)
        for name, document in documents.items():
            (temporary / name).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        for name, data in (files or {}).items():
            (temporary / name).write_bytes(data)
        for path in temporary.iterdir():
            path.chmod(0o644)  # safetensors makes its files private
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        if folder.exists():
            folder.replace(retired)
        temporary.replace(folder)
    except (OSError, SafetensorError) as error:
        raise LanitError(
            f"cannot write {folder}: {error}", "Free some space and run the same command again."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)


def save_bundle(folder: Path, bundle: Bundle, *, half: bool = False) -> None:
    """Write ``bundle`` as a folder, with the file of its prompts where they were learned.

    half: store the networks as float16, at half the size.
    """
    tensors = {f"networks.{name}": value for name, value in bundle.networks.state_dict().items()}
    if half:
        tensors = {name: value.half() for name, value in tensors.items()}
    tensors |= {"domains_embedding": bundle.domains_embedding, "base_embedding": bundle.base_embedding}
    tensors["exclusive"] = bundle.exclusive
    document = {
        "bundle_version": BUNDLE_VERSION,
        "networks": asdict(bundle.options),
        "prompt_set": bundle.prompt_set.to_json(),
        "fingerprint": bundle.fingerprint.to_json(),
        "clip_spec": bundle.clip_spec,
        "clip_architecture": bundle.clip_architecture,
        "training": bundle.training,
    }
    files = {}
    if bundle.prompt_set.learned is not None:
        context = torch.from_numpy(bundle.prompt_set.learned.array().copy())
        files[PROMPTS_FILE] = learned_prompts_bytes(bundle.prompt_set, context, bundle.fingerprint)
    write_folder(folder, {"model.safetensors": tensors}, {"model.json": document}, files)


def find_bundle(model: str | Path) -> Path:
    """The bundle folder that ``model`` names: ``sample``, a run folder, its ``model/``, any bundle, or a repository of
    the Hugging Face hub, as owner/name or hf-hub:owner/name, which is fetched through the hub's cache.

    Raises LanitError where there is none.
    """
    if str(model) == "sample":
        return SAMPLE_MODEL
    folder = Path(model)
    for candidate in (folder / "model", folder):
        if (candidate / "model.json").is_file():
            return candidate
    if folder.is_dir() and (folder / "config.json").is_file():
        raise LanitError(f"the run {folder} has no model yet", "Run the same lanit train command again to continue it.")
    if not folder.exists() and (fetched := _fetch_bundle(str(model))) is not None:
        return fetched
    raise LanitError(f"there is no model at {folder}", "Give a run folder of lanit train, or --model sample.")


def _fetch_bundle(model: str) -> Path | None:
    """The cached bundle of a repository, or none where ``model`` cannot name one."""
    from pipeline.hub import PREFIX, fetch, find_repository

    repository = find_repository(model)
    if repository is None:
        return None
    known = "" if model.startswith(PREFIX) else f"there is no folder {model}, and "
    folder = fetch(repository, BUNDLE_FILES, known)
    if not all((folder / name).is_file() for name in BUNDLE_FILES):
        raise LanitError(f"{repository} on the Hugging Face hub holds no model of lanit", "Check the name.")
    return folder


def load_bundle(model: str | Path) -> Bundle:
    """Read a bundle. Raises LanitError where it is missing, of another version, or does not load whole."""
    folder = find_bundle(model)
    document = read_json(folder / "model.json", "Train again, or use --model sample.")
    version = document.get("bundle_version") if isinstance(document, dict) else None
    if version != BUNDLE_VERSION:
        raise LanitError(
            f"{folder} has bundle version {version}; this lanit reads {BUNDLE_VERSION}",
            "Use the lanit that wrote it, or train again.",
        )
    tensors = read_tensors(folder / "model.safetensors")
    try:
        options = NetworkOptions(**document["networks"])
        extra = [tensors.pop(name) for name in ("exclusive", "domains_embedding", "base_embedding")]
        bundle = Bundle(
            networks=GenerativeNetworks(options),
            options=options,
            prompt_set=PromptSet.from_json(document["prompt_set"]),
            fingerprint=Fingerprint.from_json(document["fingerprint"]),
            clip_spec=document["clip_spec"],
            clip_architecture=document["clip_architecture"],
            exclusive=extra[0],
            domains_embedding=extra[1].float(),
            base_embedding=extra[2].float(),
            training=document["training"],
        )
        _check_domains(bundle)
    except (KeyError, TypeError, ValueError) as error:
        raise LanitError(f"the model {folder} is damaged: {error}", "Train again, or use --model sample.") from error
    load_strictly(
        bundle.networks, {name.removeprefix("networks."): value.float() for name, value in tensors.items()}, folder
    )
    bundle.networks.eval().requires_grad_(False)
    return bundle


def _check_domains(bundle: Bundle) -> None:
    """Raises ValueError where networks, prompts and text embeddings are not of the same domains."""
    count, size = len(bundle.prompt_set.domains), bundle.fingerprint.embedding_dim
    wanted = {
        "networks": ((bundle.options.domains,), (count + 1,)),
        "exclusive": (tuple(bundle.exclusive.shape), (count, count)),
        "domains_embedding": (tuple(bundle.domains_embedding.shape), (count, size)),
        "base_embedding": (tuple(bundle.base_embedding.shape), (size,)),
    }
    for name, (found, expected) in wanted.items():
        if found != expected:
            raise ValueError(f"{name} of {found}, not {expected}, for {count} prompts")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file. Raises LanitError where it is missing or damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise LanitError(
            f"cannot read {path}: {error}", "The file is damaged: use another checkpoint or train again."
        ) from error


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], origin: Path) -> None:
    """Load all of ``state`` into all of ``module``; raises LanitError that names the first differences."""
    own = module.state_dict()
    differences = [f"{name} is missing" for name in own if name not in state]
    differences += [f"{name} is unknown" for name in state if name not in own]
    differences += [
        f"{name} is {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if differences:
        shown = "; ".join(differences[:3]) + (f"; and {len(differences) - 3} more" if len(differences) > 3 else "")
        raise LanitError(
            f"{origin} is of another architecture: {shown}",
            "Use the options it was trained with, or another --out.",
        )
    module.load_state_dict(dict(state))


def latest_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a run, or none."""
    found = _checkpoints(run)
    return found[-1] if found else None


def _checkpoints(run: Path) -> list[Path]:
    """Oldest first; a folder without ``state.json`` never is one."""
    return sorted(path.parent for path in (run / "checkpoints").glob("step-*/state.json"))


def save_checkpoint(
    run: Path,
    step: int,
    groups: Mapping[str, Mapping[str, Tensor]],
    state: object,
    keep: int,
    besides: Collection[int] = (),
) -> Path:
    """Write ``run/checkpoints/step-…`` and remove all but the newest ``keep`` and those of the steps ``besides``."""
    folder = run / "checkpoints" / f"step-{step:08d}"
    write_folder(folder, {f"{name}.safetensors": group for name, group in groups.items()}, {"state.json": state})
    spared = {run / "checkpoints" / f"step-{other:08d}" for other in besides}
    for old in _checkpoints(run)[: -max(keep, 1)]:
        if old not in spared:
            shutil.rmtree(old, ignore_errors=True)
    return folder


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimiser as named tensors: ``<parameter index>.<field>``."""
    state = optimiser.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value) for index, fields in state.items() for name, value in fields.items()
    }


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor], origin: Path) -> None:
    """Put back what :func:`optimiser_tensors` took. Raises LanitError where it is of other parameters.

    Every moment takes its parameter's memory layout: the fused Adam walks both as they lie in memory.
    """
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        if int(index) >= len(parameters) or (value.ndim and value.shape != parameters[int(index)].shape):
            raise LanitError(
                f"{origin} is of another architecture: optimiser state {key} is {tuple(value.shape)}",
                "Use the options it was trained with, or another --out.",
            )
        like = parameters[int(index)]
        state.setdefault(int(index), {})[name] = torch.empty_like(like).copy_(value) if value.ndim else value
    incomplete = [index for index, fields in state.items() if set(fields) != {"step", "exp_avg", "exp_avg_sq"}]
    if incomplete:
        raise LanitError(
            f"{origin} is damaged: the optimiser state of parameter {incomplete[0]} is not whole",
            "Train again, in another --out.",
        )
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
