"""A trained model as a folder: networks, prompts and the CLIP they were trained with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lanit.errors import LanitError
from lanit.labels import EmbeddedPrompts
from lanit.methods.table import DEFAULT_METHOD, NETWORKS, networks_name
from lanit.networks import GenerativeNetworks, NetworkOptions
from lanit.options import check_settings
from pipeline.clip.fingerprint import Fingerprint
from pipeline.models.run_folder import (
    BUNDLE_FILES,
    CONFIG,
    MODEL,
    MODEL_FILES,
)
from pipeline.models.tensor_folders import (
    Tensors,
    _check_shapes,
    _shapes,
    check_files,
    fill_folder,
    load_strictly,
    read_document,
    read_tensors,
    write_folder,
)
from pipeline.prompts.embed_prompts import with_texts
from pipeline.prompts.learned_prompts import FILE_NAME as PROMPTS_FILE
from pipeline.prompts.learned_prompts import learned_prompts_bytes, read_learned_prompts
from pipeline.prompts.prompt_sets import PromptSet

BUNDLE_VERSION = 1


SAMPLE_MODEL = Path(__file__).parents[1] / "assets" / "sample-generator"


@dataclass(frozen=True)
class Bundle:
    """A trained model: networks, and what is needed to use them.

    exclusive: bool (N×N), domains that the training labels never show together (:func:`lanit.labels.exclusive_pairs`).
    prompts: ``prompt_set`` as its CLIP saw it when the model was saved, for labels; on the CPU.
    training: steps, images seen, seconds, options and the like, for people.
    """

    networks: GenerativeNetworks
    options: NetworkOptions
    prompt_set: PromptSet
    fingerprint: Fingerprint
    clip_spec: str
    clip_architecture: str | None
    exclusive: Tensor
    prompts: EmbeddedPrompts
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
    tensors |= {"domains_embedding": bundle.prompts.domains, "base_embedding": bundle.prompts.base}
    tensors["exclusive"] = bundle.exclusive
    document: dict[str, object] = {
        "bundle_version": BUNDLE_VERSION,
        "networks": _sizes(bundle.options),
        **_kind(bundle.options),
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


def _kind(options: NetworkOptions) -> dict[str, str]:
    """Which networks they are, where not those of every model before there were others."""
    name = networks_name(options)
    return {} if name == DEFAULT_METHOD else {"networks_of": name}


def _sizes(options: NetworkOptions) -> dict[str, object]:
    """As JSON. What came after version 1 is left out at its default, so that older programs read what they know, and
    what is of the discriminator, which is no part of a model."""
    default = NetworkOptions()
    return {
        name: value
        for name, value in asdict(options).items()
        if name != "classifies" and (name not in _ADDED_SIZES or value != getattr(default, name))
    }


_ADDED_SIZES = {"codes", "code_form", "discriminator_input"}


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
    from pipeline.clip.hub import PREFIX, fetch, find_repository

    repository = find_repository(model)
    if repository is None:
        return None
    known = "" if model.startswith(PREFIX) else f"there is no folder {model}, and "
    folder = fetch(repository, (*BUNDLE_FILES, CONFIG), known)  # by the latter the hub counts downloads
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
        sizes, build = _networks_of(document)
        options = sizes(**document["networks"])
        check_settings(options)
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
            expected = build(options).state_dict()
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
    networks = build(options)
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
        prompts=with_texts(prompts, extra[1].float(), extra[2].float()),
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


def _networks_of(document: Mapping[str, Any]) -> tuple[type[NetworkOptions], type[GenerativeNetworks]]:
    name = document.get("networks_of", DEFAULT_METHOD)
    if name not in NETWORKS:
        raise ValueError(f"this lanit knows no networks of '{name}'")
    return NETWORKS[name]


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
