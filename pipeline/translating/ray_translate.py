"""Translating on a Ray cluster: a process there sends back the images with their rows."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from lanit.errors import LanitError
from pipeline.computing.ray_cluster import Workforce
from pipeline.computing.ray_engine import EngineWorker, RayEngine
from pipeline.files import sha256_file
from pipeline.inputs.opening import open_source
from pipeline.models.bundle import find_bundle, load_bundle
from pipeline.models.translator import Translator, load_labeller
from pipeline.translating.naming import SCRATCH_NAME
from pipeline.translating.source_images import SourceImage
from pipeline.translating.translating_steps import Reader, TranslateJob, local_engine

_AGAIN = "Install the same lanit and give the same files on all."


def translate_worker(job: TranslateJob) -> EngineWorker[SourceImage]:
    """What translates in a process.

    Raises LanitError where the model or the CLIP found here is another, or the folder of results is not.
    """
    torch.set_num_threads(job.processors)
    if sha256_file(find_bundle(job.model) / "model.safetensors") != job.model_sha256:
        raise LanitError(f"the model {job.model} is not the same on every node of the cluster", _AGAIN)
    out = Path(job.out)
    if not (out / SCRATCH_NAME).is_dir():
        raise LanitError(f"a node of the cluster does not see {out}", "Give a folder of a shared file system.")
    translator = Translator(load_bundle(job.model), torch.device(job.device))
    clip = load_labeller(translator.bundle, job.clip, translator.device) if job.fingerprint else None
    size = translator.bundle.options.image_size
    reader = Reader.of(job, {source: open_source(source, column) for source, column in job.sources}, size)
    return EngineWorker(local_engine(job, translator, clip, reader), "translated")


def ray_engine(job: TranslateJob, workforce: Workforce) -> RayEngine[SourceImage]:
    """What translates on a cluster."""
    return RayEngine(workforce, job.threads, lambda _: partial(translate_worker, job))
