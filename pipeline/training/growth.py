"""A run that begins with the networks of another, for images of its size or of half of it (:mod:`lanit.growing`)."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from lanit.errors import UsageError
from lanit.methods.method import Options
from lanit.methods.stargan import StarganOptions
from pipeline.files import read_json
from pipeline.models.bundle import load_bundle
from pipeline.models.run_folder import CONFIG
from pipeline.models.tensor_folders import read_tensors
from pipeline.showing import console
from pipeline.training.checkpoints import newest_whole_checkpoint


def inner_networks(settings: Options, size: int, domains: tuple[str, ...]) -> dict[str, Tensor] | None:
    """The networks of the newest checkpoint of the run that ``settings`` name to grow from; none where they name none.

    size: of the images to learn from, pixels. domains: to learn. Raises UsageError where that run is of another size or
    of other domains, LanitError where the folder holds no run, or a damaged one.
    """
    if not isinstance(settings, StarganOptions) or not settings.grow:
        return None
    run = Path(settings.grow)
    bundle = load_bundle(run)
    its = bundle.options.image_size
    if its not in (size, size // 2):
        raise UsageError(f"the run {run} is of {its} px, not of {size // 2} or {size}", f"Add --size {2 * its}.")
    if bundle.prompt_set.domains != domains:
        raise UsageError(f"the run {run} learned other phrases, or in another order", "Leave out grow.")
    a_run = "Name the folder of a run, with its checkpoints."
    newest = newest_whole_checkpoint(run, read_json(run / CONFIG, a_run).get("run"), console.warn)
    if newest is None:
        raise UsageError(f"{run} holds a model, but no checkpoint to grow from", a_run)
    return read_tensors(newest[0] / "networks.safetensors")
