"""Two kinds of photographs: do presets of other systems, content transfer, Fader and LANIT turn one into the other?

    python -m benchmarks.photographs.two_kinds --work DIR --data DIR [--kinds mask smiling eyeglasses] [--arms …]

Masks: faces with and without one; smiling, eyeglasses: faces of CelebA. One half of the photographs and their truth is
for the judge, a plain classifier that nothing else reads; the other half lies in two folders, which are the labels, and
the test faces are for judging. LANIT and content transfer read how from a test face of the other kind, the others have
one look. With and without a mask, faces differ in sharpness and framing too, so that judge can be pleased by those.
The folder is kept, so that the same command goes on; its pictures stay out of the project.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from benchmarks.experiments.animals_models import Photographs
from benchmarks.experiments.worlds import CELEBA, Judge, fitted, judge_of
from benchmarks.photographs import faces_data
from lanit.inference import draw_latents, drawn_codes, target_style
from lanit.networks import GenerativeNetworks
from pipeline.clip.models import load_clip
from pipeline.decoding.grids import labelled_grid, to_float, to_uint8, write_png
from pipeline.embedding.embed import embed
from pipeline.labelling.label import label
from pipeline.labelling.label_sources import LabelRequest, label_source
from pipeline.models.bundle import load_bundle
from pipeline.showing import console
from pipeline.store.store import Store
from pipeline.training.train_options import SYSTEMS, options_from
from pipeline.training.training import train

MASK = "mask"
KINDS = (MASK, "smiling", "eyeglasses")
UNPAIRED = tuple(name for name, values in SYSTEMS.items() if "pairs" not in values)
_CONTENT = {"method": "content"}
ARMS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "content": ("small-32", _CONTENT),
    "fader": ("small-32", _CONTENT | {"output": "image", "guide": "constant", "adversarial": 0.0}),
    "lanit": ("small-32", {"domain": 0.0}),
    **{name: (f"small-32,{name}", {}) for name in UNPAIRED},
}
_SIZE, _JUDGED, _BATCH, _SHOWN = 32, 200, 50, 10


@dataclass(frozen=True)
class Kind:
    """A kind of photographs and its opposite. column: its place in the truth that the judge knows, bool (n×N)."""

    name: str
    column: int
    store: Store
    judge: Judge
    held: Photographs


def kind_of(name: str, work: Path, data: Path, epochs: int) -> Kind:
    """Its photographs in two folders, embedded and labelled, and its judge, unless the work folder has them."""
    known, other, held = _masks(data) if name == MASK else _faces(data)
    names = (MASK,) if name == MASK else CELEBA
    column = names.index(name)
    judge = judge_of(work / f"judge-{'masks' if name == MASK else 'celeba'}", names, known, held, epochs)
    root, store = work / name, work / name / "store"
    folders = {True: root / name, False: root / f"no {name}"}
    for side, folder in folders.items():
        folder.mkdir(parents=True, exist_ok=True)
        for row in np.flatnonzero(other.truth[:, column] == side):
            Image.fromarray(other.pictures[row]).save(folder / f"{row:05d}.png")
    clip = load_clip("sample")  # which knows drawn faces: a store needs some embedding, and nothing here reads it
    embed(list(folders.values()), store, clip)
    source = label_source(Store.open(store), LabelRequest(from_folders=True))
    assert source is not None
    label(Store.open(store), clip, *source)
    return Kind(name, column, Store.open(store), judge, held)


def _faces(data: Path) -> tuple[Photographs, Photographs, Photographs]:
    """Known, unlabelled and held out, at ``_SIZE`` pixels."""
    tables = (*faces_data.read_faces(data / "celeba10k-train.parquet"),
              faces_data.read_held_out(data / "celeba10k-test.parquet"))  # fmt: skip
    known, other, held = (Photographs(fitted(part.pictures(), _SIZE), part.truth(CELEBA)) for part in tables)
    return known, other, held


def _masks(data: Path) -> tuple[Photographs, Photographs, Photographs]:
    train, held = (_photographs(data / f"facemask-{part}.parquet") for part in ("train", "test"))
    order = np.random.default_rng(0).permutation(len(train.truth))
    known, other = (Photographs(train.pictures[rows], train.truth[rows]) for rows in np.array_split(order, 2))
    return known, other, held


def _photographs(file: Path) -> Photographs:
    table = pq.read_table(file)
    opened = [Image.open(io.BytesIO(cell)).convert("RGB") for cell in table["jpeg"].to_pylist()]
    pictures = np.concatenate([fitted(np.asarray(picture)[None], _SIZE) for picture in opened])
    return Photographs(pictures, (np.array(table["class"].to_pylist()) == "with mask")[:, None])


@torch.no_grad()
def turned(
    networks: GenerativeNetworks, domains: tuple[str, ...], images: Tensor, guides: Tensor, asked: str
) -> Tensor:
    """Float32 (B×3×S×S) in [-1, 1], all three. asked: the folder to come from; where it is no domain, none is added."""
    weights = torch.tensor([[float(name == asked) for name in domains]])
    made = []
    for part, guide in zip(images.split(_BATCH), guides.split(_BATCH), strict=True):
        if networks.mapping.of_images:
            codes = networks.own_codes(guide)
        else:
            codes = drawn_codes(networks, draw_latents(networks.latent_dim, 0, 1)).expand(len(part), -1, -1)
        made.append(networks.generator(part, target_style(codes, weights.expand(len(part), -1))).clamp(-1, 1))
    return torch.cat(made)


def judged(kind: Kind, run: Path) -> tuple[dict[str, float], list[np.ndarray]]:
    """Figures of ``_JUDGED`` translations each way, and rows of pictures to look at.

    recognised: the share in which the judge sees what was asked for; others: on how many of the other attributes it
    and the source's truth agree; change: L1 to the source, of 255.
    """
    bundle = load_bundle(run)
    carries = kind.held.truth[:, kind.column]
    figures, shown = dict[str, float](), list[np.ndarray]()
    for name, wanted in (("added", True), ("removed", False)):
        rng = np.random.default_rng(wanted)
        sources, guides = (_repeated(rng, carries == side) for side in (not wanted, wanted))
        images, references = (to_float(kind.held.pictures[rows]) for rows in (sources, guides))
        asked = kind.name if wanted else f"no {kind.name}"
        made = turned(bundle.networks, bundle.prompt_set.domains, images, references, asked)
        others = np.arange(kind.held.truth.shape[1]) != kind.column
        for prefix, looked_at in ((name, made), (f"{name}, sources", images)):
            seen = kind.judge.view(looked_at)[0].numpy()
            figures[prefix] = float((seen[:, kind.column] == wanted).mean())
            if others.any():
                figures[f"{prefix}: others"] = float((seen == kind.held.truth[sources])[:, others].mean())
        figures[f"{name}: change"] = float((made - images).abs().mean()) * 127.5
        columns = (kind.held.pictures[sources], kind.held.pictures[guides], to_uint8(made))
        shown += list(np.stack([column[:_SHOWN] for column in columns], axis=1))
    return figures, shown


def _repeated(rng: np.random.Generator, rows: np.ndarray) -> np.ndarray:
    found = np.flatnonzero(rows)
    return np.concatenate([rng.permutation(found) for _ in range(-(-_JUDGED // len(found)))])[:_JUDGED]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--judge-epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for name in given.kinds:
        kind = kind_of(name, given.work, given.data, given.judge_epochs)
        console.note(f"{name}: {kind.judge.described}")
        for arm in given.arms:
            preset, changes = ARMS[arm]
            quiet = {"evaluate_every": 0, "sample_every": 0, "checkpoint_every": 0, "precision": "float32"}
            sizes = {"channels": given.channels, "max_channels": 4 * given.channels, "batch_size": 8}
            word = {"present": name} if "method" in changes else {}
            options = options_from(preset, changes | word | quiet | sizes | {"steps": given.steps, "seed": given.seed})
            began, run = time.process_time(), given.work / name / f"{arm}-{given.steps}-{given.seed}"
            train(kind.store, run, options, load_clip("sample"), device="cpu")
            seconds = time.process_time() - began
            figures, shown = judged(kind, run)
            write_png(run.with_suffix(".png"), labelled_grid(shown, ["source", "guide", "translation"]))
            line = "  ".join(f"{key} {value:.3f}" for key, value in figures.items())
            print(f"{name} {arm:9} {seconds:5.0f} s  {line}", flush=True)


if __name__ == "__main__":
    main()
