"""What training leaves on disk: checkpoints to continue from, and the model bundle to use.

Tensors are safetensors, the rest is JSON; a folder appears whole, by one rename. Everything loads strictly.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from lanit.errors import LanitError
from lanit.networks import GenerativeNetworks, NetworkOptions
from pipeline.folders import remove_ours
from pipeline.labelling.learned_prompts import FILE_NAME as PROMPTS_FILE
from pipeline.labelling.learned_prompts import learned_prompts_bytes, read_learned_prompts
from pipeline.labelling.prompt_sets import PromptSet
from pipeline.store.schemas import Fingerprint
from pipeline.training.run_folder import (
    BUNDLE_FILES,
    CHECKPOINT_FILES,
    CONFIG,
    MODEL,
    MODEL_FILES,
    STATE_FILE,
    checkpoint_folder,
    checkpoints,
    step_of,
)
from pipeline.training.tensor_folders import Tensors, check_files, fill_folder, read_document, write_folder

BUNDLE_VERSION = 1
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


def save_bundle(folder: Path, bundle: Bundle, *, half: bool = False) -> None:
    """Write ``bundle`` as a folder, which replaces an older one whole; see :func:`fill_bundle`."""
    write_folder(folder, MODEL_FILES, *_contents(bundle, half))


def fill_bundle(folder: Path, bundle: Bundle, *, half: bool = False) -> None:
    """Write ``bundle`` into a folder that is there, with the file of its prompts where they were learned.

    half: store the networks as float16, at half the size.
    """
    fill_folder(folder, *_contents(bundle, half))


def _contents(bundle: Bundle, half: bool) -> tuple[tuple[str, dict[str, object]], Tensors, dict[str, bytes]]:
    """``model.json``, the tensors and the other files of a bundle."""
    tensors = {f"networks.{name}": value for name, value in bundle.networks.state_dict().items()}
    if half:
        tensors = {name: value.half() for name, value in tensors.items()}
    tensors |= {"domains_embedding": bundle.domains_embedding, "base_embedding": bundle.base_embedding}
    tensors["exclusive"] = bundle.exclusive
    document: dict[str, object] = {
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
    return ("model.json", document), {"model.safetensors": tensors}, files


def find_bundle(model: str | Path) -> Path:
    """The bundle folder that ``model`` names: ``sample``, a run folder, its ``model/``, any bundle, or a repository of
    the Hugging Face hub, as owner/name or hf-hub:owner/name, which is fetched through the hub's cache.

    Raises LanitError where there is none.
    """
    if str(model) == "sample":
        return SAMPLE_MODEL
    folder = Path(model)
    for candidate in (folder / MODEL, folder):
        if (candidate / "model.json").is_file():
            return candidate
    if folder.is_dir() and (folder / CONFIG).is_file():
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
    """Read a bundle. Raises LanitError where it is missing, of another version, damaged, or does not load whole.

    It may come from anybody: no more memory is asked for than its own tensors fill.
    """
    folder = find_bundle(model)
    anew = _how_to_renew(folder)
    document, digests = read_document(folder / "model.json", anew)
    version = document.get("bundle_version")
    if version != BUNDLE_VERSION:
        raise LanitError(
            f"{folder} has bundle version {version}; this lanit reads {BUNDLE_VERSION}",
            "Use the lanit that wrote it, or train again.",
        )
    shapes = _shapes(folder / "model.safetensors", anew)
    try:
        options = NetworkOptions(**document["networks"])
        prompts, fingerprint = (
            PromptSet.from_json(document["prompt_set"]),
            Fingerprint.from_json(document["fingerprint"]),
        )
        spec, architecture = _text(document, "clip_spec"), document["clip_architecture"]
        if architecture is not None:
            architecture = _text(document, "clip_architecture")
        training = _checked_training(document["training"])
        _check_domains(options, prompts, fingerprint, shapes)
        with torch.device("meta"):  # sizes without memory
            expected = GenerativeNetworks(options).state_dict()
    except (LanitError, ArithmeticError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = error.message if isinstance(error, LanitError) else str(error).split("\n")[0]
        raise LanitError(f"the model {folder} is damaged: {reason}", anew) from error
    _check_shapes(
        {name: tuple(value.shape) for name, value in expected.items()},
        {name.removeprefix("networks."): shape for name, shape in shapes.items() if name not in _EXTRA},
        folder,
        anew,
    )
    check_files(folder, BUNDLE_FILES, digests, anew)
    tensors = read_tensors(folder / "model.safetensors")
    extra = [tensors.pop(name) for name in _EXTRA]
    networks = GenerativeNetworks(options)
    load_strictly(networks, {name.removeprefix("networks."): value.float() for name, value in tensors.items()}, folder)
    networks.eval().requires_grad_(False)
    return Bundle(
        networks=networks,
        options=options,
        prompt_set=prompts,
        fingerprint=fingerprint,
        clip_spec=spec,
        clip_architecture=architecture,
        exclusive=extra[0].bool(),
        domains_embedding=extra[1].float(),
        base_embedding=extra[2].float(),
        training=training,
    )


def check_prompts(folder: Path, bundle: Bundle) -> None:
    """Raise LanitError where the file of learned prompts beside a model is missing, damaged, or of other prompts.

    The model itself does not need it: it is for ``lanit label``.
    """
    anew = _how_to_renew(folder)
    path, learned = folder / PROMPTS_FILE, bundle.prompt_set.learned is not None
    if path.is_file() != learned:
        raise LanitError(f"{path} is missing" if learned else f"{path} does not belong to the model beside it", anew)
    if not learned:
        return
    try:
        prompts = read_learned_prompts(path).prompts
    except LanitError as error:
        raise LanitError(error.message, anew) from error
    if prompts.digest() != bundle.prompt_set.digest():
        raise LanitError(f"{path} holds other prompts than the model beside it", anew)


_EXTRA = ("exclusive", "domains_embedding", "base_embedding")


def _how_to_renew(folder: Path) -> str:
    """What to do about a damaged bundle."""
    if (folder.parent / CONFIG).is_file():
        return "Run the same lanit train command again: it writes the model anew from its checkpoint."
    return "Export or fetch it again, or use --model sample."


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document[name]
    if not isinstance(value, str):
        raise ValueError(f"{name} is no text")
    return value


def _checked_training(training: Any) -> dict[str, Any]:
    """What people are told of the training. Raises ValueError where a number in it is none."""
    if not isinstance(training, dict):
        raise ValueError("training is no object")
    counts = training.get("images_per_domain", {})
    if not isinstance(counts, dict) or not isinstance(training.get("options", {}), dict):
        raise ValueError("training holds no counts or options by name")
    numbers = {name: training[name] for name in _NUMBERS if name in training} | counts
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{name} in training is no number")
    return training


_NUMBERS = ("steps", "images_seen", "seconds", "images", "labelled", "label_revision")


def _check_domains(
    options: NetworkOptions, prompts: PromptSet, fingerprint: Fingerprint, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Raises ValueError where networks, prompts and text embeddings are not of the same domains."""
    count, size = len(prompts.domains), fingerprint.embedding_dim
    wanted = {
        "networks": ((options.domains,), (count + 1,)),
        "exclusive": (shapes["exclusive"], (count, count)),
        "domains_embedding": (shapes["domains_embedding"], (count, size)),
        "base_embedding": (shapes["base_embedding"], (size,)),
    }
    for name, (found, expected) in wanted.items():
        if found != expected:
            raise ValueError(f"{name} of {found}, not {expected}, for {count} prompts")


def _shapes(path: Path, hint: str) -> dict[str, tuple[int, ...]]:
    """Of each tensor of a safetensors file, by its header alone. Raises LanitError where it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise LanitError(f"cannot read {path}: {error}", hint) from error


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
    own, given = (
        {name: tuple(value.shape) for name, value in tensors.items()} for tensors in (module.state_dict(), state)
    )
    _check_shapes(own, given, origin, "Use the options it was trained with, or another --out.")
    module.load_state_dict(dict(state))


def _check_shapes(
    own: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]], origin: Path, hint: str
) -> None:
    """Raise LanitError, with ``hint``, that names the first differences of what ``origin`` holds."""
    differences = [f"{name} is missing" for name in own if name not in given]
    differences += [f"{name} is unknown" for name in given if name not in own]
    differences += [
        f"{name} is {given[name]}, not {own[name]}" for name in own if name in given and given[name] != own[name]
    ]
    if differences:
        shown = "; ".join(differences[:3]) + (f"; and {len(differences) - 3} more" if len(differences) > 3 else "")
        raise LanitError(
            f"{origin} is of another architecture: {shown}",
            hint,
        )


def latest_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a run, or none."""
    found = checkpoints(run)
    return found[-1] if found else None


def newest_whole_checkpoint(
    run: Path, run_digest: str | None, warn: Callable[[str], None]
) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint of a run that is as it was written, with its state; none where the run has no checkpoint.

    warn: told of newer ones that are damaged. Raises LanitError where all are.
    """
    damaged: list[LanitError] = []
    for checkpoint in reversed(checkpoints(run)):
        try:
            found = checkpoint, read_state(checkpoint, run_digest)
        except LanitError as error:
            damaged.append(error)
            continue
        for reason in damaged:
            warn(f"{reason.message}; going on from {checkpoint.name}, and the steps since then are done again")
        return found
    if damaged:
        raise damaged[0]
    return None


def read_state(checkpoint: Path, run_digest: str | None) -> dict[str, Any]:
    """The state of a checkpoint, all of whose files are those that it was written with; run_digest: of its run.

    Raises LanitError where it is damaged, or of another run. One of an older lanit has no digests to compare.
    """
    anew = f"Train in another --out; a model in {checkpoint.parents[1] / MODEL} can still be used."
    state, digests = read_document(checkpoint / STATE_FILE, anew)
    if state.pop("run", None) != run_digest or state.get("step") != step_of(checkpoint):
        raise LanitError(f"the checkpoint {checkpoint} is of another run or another step", anew)
    missing = [name for name in digests if not (checkpoint / name).is_file()]
    if missing:
        raise LanitError(f"the checkpoint {checkpoint} is damaged: {missing[0]} is missing", anew)
    check_files(checkpoint, CHECKPOINT_FILES, digests, anew)
    return state


def save_checkpoint(
    run: Path,
    step: int,
    groups: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, object],
    keep: int,
    besides: Collection[int] = (),
) -> Path:
    """Write ``run/checkpoints/step-…``, and forget older ones as :func:`forget_checkpoints` does."""
    folder = checkpoint_folder(run, step)
    tensors = {f"{name}.safetensors": group for name, group in groups.items()}
    write_folder(folder, CHECKPOINT_FILES, (STATE_FILE, state), tensors)
    forget_checkpoints(run, step, keep, besides)
    return folder


def forget_checkpoints(run: Path, step: int, keep: int, besides: Collection[int] = ()) -> None:
    """Remove all checkpoints up to ``step`` but the newest ``keep`` and those of the steps ``besides``.

    Later ones are damaged, or the run would have gone on from them; it replaces them as it comes to them.
    """
    past = [folder for folder in checkpoints(run) if (step_of(folder) or 0) <= step]
    for old in past[: -max(keep, 1)]:
        if step_of(old) not in besides:
            remove_ours(old, CHECKPOINT_FILES.__contains__)
