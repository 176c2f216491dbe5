"""Learned prompts as a small file that ``lanit label --prompts`` takes back (METHOD 12, 15).

A safetensors file with one tensor, ``context``, float32 (M×L×w), and under the metadata key ``lanit`` a JSON document:
``kind`` = ``learned prompts``, ``version``, ``prompt_set`` without what was learned, the ``fingerprint`` of the CLIP
that they were learned with, ``prompts_sha256``, :meth:`PromptSet.digest` of the whole, and a seal of the document.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lanit.errors import LanitError, UsageError
from pipeline.clip.fingerprint import Fingerprint
from pipeline.files import read_json, sealed, unsealed
from pipeline.prompts.learned_context import LearnedContext
from pipeline.prompts.prompt_sets import PromptSet, built_in_names, read_prompt_set
from pipeline.stand_ins import refuse_stand_in

if TYPE_CHECKING:
    from torch import Tensor

    from lanit.prompts import PromptLearner, TextTower

FILE_NAME = "prompts.safetensors"
_KIND, _VERSION = "learned prompts", 1
_METADATA_KEY = "lanit"
_HINT = f"Give the {FILE_NAME} of a run that learned its prompts, or a file of phrases."


@dataclass(frozen=True)
class LearnedPrompts:
    """A file of learned prompts. prompts: the set, with what was learned. fingerprint: of the CLIP it was learned with.
    source: the file."""

    prompts: PromptSet
    fingerprint: Fingerprint
    source: Path

    def check_model(self, fingerprint: Fingerprint) -> None:
        """Raise LanitError, naming both models, unless they were learned with the model of ``fingerprint``."""
        if not self.fingerprint.same_model(fingerprint):
            differences = ", ".join(self.fingerprint.differences(fingerprint))
            raise LanitError(
                f"the prompts {self.source} were learned with {self.fingerprint.describe()}, "
                f"not with {fingerprint.describe()}: {differences} differ",
                "Name a store of that CLIP with --store, or give the phrases with --prompts FILE.",
            )


def with_context(prompts: PromptSet, context: Tensor) -> PromptSet:
    """``prompts`` with learned embeddings, (M×L×w) on any device, in the place of its templates' words."""
    return replace(prompts, learned=LearnedContext.of(context.detach().float().cpu().numpy()))


def prompt_learner(tower: TextTower, prompts: PromptSet) -> PromptLearner:
    """The learner of a set, which begins with what the set has learned before.

    Raises LanitError where a prompt is longer than the context of ``tower``, or where what was learned does not fit it.
    """
    import torch

    from lanit.prompts import PromptLearner

    context = torch.from_numpy(prompts.learned.array().copy()) if prompts.learned is not None else None
    return PromptLearner(tower, prompts.domains, prompts.templates, prompts.bases, context)


def learned_prompts_bytes(prompts: PromptSet, context: Tensor, fingerprint: Fingerprint) -> bytes:
    """The file of ``prompts`` with the learned ``context``, float (M×L×w); equal arguments give equal bytes.

    Raises LanitError where the context is not finite or of other templates.
    """
    from safetensors.numpy import save

    learned = LearnedContext.of(context.detach().float().cpu().numpy())
    if learned.shape[0] != len(prompts.templates):
        raise LanitError(f"learned prompts of {learned.shape} do not fit {len(prompts.templates)} templates")
    document = {
        "kind": _KIND,
        "version": _VERSION,
        "prompt_set": replace(prompts, learned=None).to_json(),
        "fingerprint": fingerprint.to_json(),
        "prompts_sha256": replace(prompts, learned=learned).digest(),
    }
    return save({"context": learned.array()}, {_METADATA_KEY: json.dumps(sealed(document), ensure_ascii=False)})


def read_learned_prompts(path: Path) -> LearnedPrompts:
    """Read a file of :func:`learned_prompts_bytes`. Raises LanitError where it is missing, damaged or another file."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise LanitError(f"there is no file of learned prompts '{path}'", _HINT)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata: dict[str, str] = file.metadata() or {}
            document: Any = json.loads(metadata.get(_METADATA_KEY, "{}"))
            if isinstance(document, dict):
                document = unsealed(document)
            if not isinstance(document, dict) or document.get("kind") != _KIND:
                raise LanitError(f"'{path}' is no file of learned prompts", _HINT)
            if document["version"] != _VERSION:
                message = f"'{path}' has version {document['version']} of learned prompts; this lanit reads {_VERSION}"
                raise LanitError(message, "Use the lanit that wrote it.")
            learned = LearnedContext.of(file.get_tensor("context"))
        prompts = replace(PromptSet.from_json(document["prompt_set"]), learned=learned)
        fingerprint = Fingerprint.from_json(document["fingerprint"])
        whole = prompts.digest() == document["prompts_sha256"] and learned.shape[0] == len(prompts.templates)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        refuse_stand_in(path)
        raise LanitError(f"the learned prompts '{path}' are damaged ({error})", _HINT) from error
    if not whole:
        raise LanitError(f"the learned prompts '{path}' are damaged (their digest differs)", _HINT)
    return LearnedPrompts(prompts, fingerprint, path)


def find_learned_prompts(name: str) -> Path | None:
    """The file of learned prompts that ``name`` says: itself, or in a run or model folder; none where it is no such.

    Raises LanitError where it is the folder of a run or a model whose prompts were not learned.
    """
    path = Path(name)
    if path.suffix.lower() == ".safetensors":
        return path
    if not path.is_dir() or name in built_in_names():
        return None
    for candidate in (path / "model" / FILE_NAME, path / FILE_NAME):
        if candidate.is_file():
            return candidate
    if any((path / known).is_file() for known in ("config.json", "model.json", "model/model.json")):
        raise LanitError(f"'{name}' has no learned prompts", "Give its phrases, with --prompts FILE.")
    return None


def read_prompts(name: str, noun: str | None = None) -> PromptSet | LearnedPrompts:
    """What ``--prompts`` names: a prompt file, a built-in set, or learned prompts by their file, run or model.

    noun: of ``--noun``; raises UsageError with learned prompts, whose templates are what was learned.
    """
    path = find_learned_prompts(name)
    if path is None:
        return read_prompt_set(name, noun)
    if noun is not None:
        raise UsageError("--noun does not go with learned prompts, which have templates of their own", "Leave it out.")
    found = read_learned_prompts(path)
    if path != Path(name) and path.with_name("model.json").is_file():
        _check_model_beside(path, found.prompts)
    return found


def _check_model_beside(path: Path, prompts: PromptSet) -> None:
    """Raise LanitError where the prompts in a model's folder are not those of the model."""
    document = read_json(path.with_name("model.json"), _HINT)
    try:
        own = PromptSet.from_json(document["prompt_set"])
    except (LanitError, KeyError, TypeError, ValueError) as error:
        raise LanitError(f"{path.with_name('model.json')} is damaged", _HINT) from error
    if own.digest() != prompts.digest():
        raise LanitError(f"{path} holds other prompts than the model beside it", _HINT)
