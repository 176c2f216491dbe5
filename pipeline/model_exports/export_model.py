"""``lanit export-model``: a trained model as a folder to keep, to share, and to run without lanit."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.decoding.grids import write_png
from pipeline.files import sealed, sha256_file, write_bytes, write_json
from pipeline.model_exports.bundle_folder import (
    CARD_NAME,
    CONFIG_NAME,
    DOMAINS_NAME,
    EXAMPLES_NAME,
    METRICS_NAME,
    ONNX_FOLDER,
    PROMPTS_NAME,
    appearing_export,
    files_of,
)
from pipeline.model_exports.card_header import Publication
from pipeline.model_exports.examples import make_examples
from pipeline.model_exports.model_card import model_card
from pipeline.model_exports.run_metrics import OF_MODEL, WEIGHTS, read_metrics
from pipeline.models.bundle import Bundle, check_prompts, fill_bundle, find_bundle, load_bundle
from pipeline.prompts.prompt_sets import PromptSet


@dataclass(frozen=True)
class ExportModelReport:
    """files: bytes of each, by POSIX path in ``out``. onnx: of each network, the largest absolute difference between
    its output in onnxruntime and in torch; none where no ONNX was asked for. page_alone: whether the page beside them
    holds them too, and opens from a disk; else it needs a server. warnings: figures that were left out."""

    out: str
    model: str
    domains: int
    image_size: int
    half: bool
    files: dict[str, int]
    onnx: dict[str, float] | None
    page_alone: bool | None
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def export_model(
    model: str | Path,
    out: Path,
    *,
    onnx: bool = False,
    half: bool = False,
    license: str | None = None,
    datasets: Sequence[str] = (),
    examples: Sequence[str | Path] = (),
    clip: str | None = None,
    overwrite: bool = False,
    note: Callable[[str], None] | None = None,
) -> ExportModelReport:
    """Write ``model`` as the folder ``out``, which appears whole; equal models give equal bytes.

    It holds the bundle that training writes, ``prompts.json`` (a prompt file for lanit label), learned prompts and
    ``metrics.json`` where the run has some, ``domains.csv``, ``config.json`` and a model card; with ``onnx`` also the
    networks as ONNX, and a page that translates with them in a browser.
    half: networks as float16, at half the size; the ONNX files hold the same rounded weights, in float32.
    license, datasets: for the card, see :class:`Publication`. examples: pictures to show on it before and after, and
    to pick from on the page, see :func:`make_examples`; clip: where to find the model's CLIP, for them.
    overwrite: replace an earlier export. note: told what is going on, where that takes time.
    Raises LanitError where there is no such model, it or its prompts are damaged, ``out`` is taken, or ONNX is not what
    torch computes.
    """
    publication = Publication(license, tuple(datasets))
    if onnx:
        from pipeline.model_exports.browser_page import write_browser_page
        from pipeline.model_exports.onnx_networks import check_installed, write_onnx

        check_installed()
    with appearing_export(out, overwrite) as folder:
        source = find_bundle(model)
        bundle = load_bundle(source)
        check_prompts(source, bundle)
        metrics, warnings = read_metrics(bundle, source)
        differences = alone = None
        fill_bundle(folder, bundle, half=half)
        write_json(folder / CONFIG_NAME, config_of(bundle))
        shown = make_examples(folder, bundle, examples, clip)
        if shown is not None:
            write_png(folder / EXAMPLES_NAME, shown.grid)
        write_json(folder / PROMPTS_NAME, prompt_file(bundle.prompt_set))
        write_bytes(folder / DOMAINS_NAME, domain_table(bundle).encode())
        if metrics:
            of_model = {OF_MODEL: sha256_file(folder / WEIGHTS)}
            write_json(folder / METRICS_NAME, sealed(metrics | of_model))
        if onnx:
            if note:
                note("writing the networks as ONNX, and comparing them with torch")
            differences = write_onnx(folder / ONNX_FOLDER, load_bundle(folder))
            alone = write_browser_page(folder / ONNX_FOLDER, bundle.options.latent_dim, shown)
        card = model_card(bundle, metrics, differences, half=half, examples=shown, publication=publication)
        write_bytes(folder / CARD_NAME, card.encode())
    return ExportModelReport(
        out=str(out),
        model=str(model),
        domains=len(bundle.prompt_set.domains),
        image_size=bundle.options.image_size,
        half=half,
        files={name: (out / name).stat().st_size for name in files_of(out)},
        onnx=differences,
        page_alone=alone,
        warnings=warnings,
    )


def config_of(bundle: Bundle) -> dict[str, Any]:
    """``config.json``: what a hub or a program asks first; ``model.json`` has all of it."""
    return {
        "model_type": "lanit",
        "image_size": bundle.options.image_size,
        "domains": list(bundle.prompt_set.domains),
        "clip": bundle.fingerprint.architecture,
    }


def prompt_file(prompts: PromptSet) -> dict[str, Any]:
    """The set as written, as a JSON prompt file: read back, it has the same digest, unless prompts were learned."""
    domains: list[Any] = []
    for phrase, offset, weight in zip(prompts.domains, prompts.offsets, prompts.weights, strict=True):
        settings = ({"offset": offset} if offset else {}) | ({"weight": weight} if weight != 1 else {})
        domains.append({"phrase": phrase, **settings} if settings else phrase)
    return {
        "name": prompts.name,
        "domains": domains,
        "templates": list(prompts.templates),
        "bases": list(prompts.bases),
    }


def domain_table(bundle: Bundle) -> str:
    """``domains.csv``, in the order of the networks: training images of each domain and their share of all, the offset
    its labels begin at, and the domains that no image shows beside it, which give way when it is added."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("index", "domain", "images", "share", "offset", "never_with"))
    domains, counts = bundle.prompt_set.domains, bundle.training.get("images_per_domain", {})
    images = bundle.training.get("images")
    for index, (domain, offset) in enumerate(zip(domains, bundle.prompt_set.offsets, strict=True)):
        count = counts.get(domain)
        share = round(count / images, 4) if images and count is not None else None
        never = "; ".join(name for name, out in zip(domains, bundle.exclusive[index].tolist(), strict=True) if out)
        writer.writerow((index, domain, count, share, f"{offset:g}", never))
    return text.getvalue()
