"""Do presets of other systems do their job? Two folders of drawn faces, a preset after another, judged on other faces.

Unpaired: blond and black hair. Paired: faces without a hat and the same faces with one, beside LANIT, which learns from
the word alone. The judge was trained on drawn truth; faces that it looks at are of a world that no training saw.
``python -m benchmarks.two_domains --work DIR``; with ``--presets munit`` also settings of a system that is no
preset, because it did not do its job (docs/LOG.md).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from lanit.inference import draw_latents, drawn_codes, target_style
from pipeline.clip.models import ClipModel, load_clip
from pipeline.decoding.grids import to_float, to_uint8
from pipeline.embedding.embed import embed
from pipeline.labelling.label import label
from pipeline.labelling.label_sources import LabelRequest, label_source
from pipeline.labelling.pairs import pair
from pipeline.models.bundle import load_bundle
from pipeline.sample_world.faces import ATTRIBUTES, HAIR, Face, draw_face, sample_face
from pipeline.sample_world.judge import load_judge
from pipeline.store.store import Store
from pipeline.training.train_options import LABELLED, SYSTEMS, options_from
from pipeline.training.training import train

UNPAIRED = tuple(name for name, values in SYSTEMS.items() if "pairs" not in values)
PAIRED = ("pix2pix", "bicyclegan", "lanit")
CANDIDATES: dict[str, dict[str, Any]] = {
    "munit": LABELLED | {
        "codes": "normal", "code_form": "free", "style_dim": 8, "diversity": 0.0, "adversarial_form": "lsgan",
        "cycle": 0.0, "identity": 1.0, "content": 0.1, "style": 0.1,
    },
}  # fmt: skip
DOMAINS = {"unpaired": ("blond hair", "black hair"), "paired": ("bare", "wearing hat")}
_SIZE, _WORLD, _JUDGED, _FACES = 32, 11, 77, 200


def face(world: int, index: int, domain: str) -> Face:
    """A face of the domain, all else as it is drawn."""
    drawn = sample_face(world, index)
    truth = drawn.truth.copy()
    if domain in HAIR:
        truth[: len(HAIR)] = False
        truth[HAIR.index(domain)] = True
    else:
        truth[ATTRIBUTES.index("wearing hat")] = domain == "wearing hat"
    return Face(truth, drawn.content)


def store_of(work: Path, kind: str, faces: int, clip: ClipModel, *, words: bool) -> Store:
    """Two folders of faces, embedded and labelled by the folders; by the word "wearing hat" with ``words``."""
    root = work / f"{kind}{'-words' if words else ''}"
    for place, domain in enumerate(DOMAINS[kind]):
        folder = root / domain
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(faces):
            index = number + (place * faces if kind == "unpaired" else 0)
            picture = draw_face(face(_WORLD, index, domain), _SIZE)
            Image.fromarray(picture).save(folder / f"{number:05d}.png")
    embed([root / domain for domain in DOMAINS[kind]], root / "store", clip)
    store = Store.open(root / "store")
    request = LabelRequest(phrases=("wearing hat",), noun="face") if words else LabelRequest(from_folders=True)
    source = label_source(store, request)
    assert source is not None
    label(store, clip, *source)
    if kind == "paired" and not words:
        pair(store, DOMAINS[kind])
    return store


def judged(run: Path, kind: str) -> dict[str, float]:
    """Both directions together. recognised: the share in which the judge sees what was asked for. kept: of its other
    attributes, as drawn. partner: L1 to the same face drawn in the other domain, and before it, of the sources."""
    bundle, judge = load_bundle(run), load_judge()
    names, nets = bundle.prompt_set.domains, bundle.networks
    hair = kind == "unpaired"
    column = HAIR.index if hair else lambda _: ATTRIBUTES.index("wearing hat")
    others = [n for n in range(len(ATTRIBUTES)) if n >= len(HAIR) if hair or n != column("")]
    found: dict[str, list[float]] = {}
    for source, domain in (DOMAINS[kind], DOMAINS[kind][::-1]):
        faces = [face(_JUDGED, index, domain) for index in range(_FACES)]
        truth, partner = np.stack([each.truth for each in faces]), to_float(pictures(faces))
        images = to_float(pictures([face(_JUDGED, index, source) for index in range(_FACES)]))
        weights = torch.tensor([[float(name in (domain, domain.split()[0])) for name in names]])
        for codes in drawn_codes(nets, draw_latents(nets.latent_dim, 0, 3 if nets.latent_dim else 1)):
            style = target_style(codes[None], weights)
            with torch.no_grad():
                made = torch.cat([nets.generator(part, style.expand(len(part), -1)) for part in images.split(50)])
            seen = judge.predict(to_uint8(made))
            right = seen[:, column(domain)] == truth[:, column(domain)]
            found.setdefault(f"to {domain}", []).append(float(right.mean()))
            found.setdefault("kept", []).append(float((seen[:, others] == truth[:, others]).mean()))
            found.setdefault(f"L1 {domain}", []).append(float((made.clamp(-1, 1) - partner).abs().mean()))
        found[f"L1 before {domain}"] = [float((images - partner).abs().mean())]
    return {name: float(np.mean(values)) for name, values in found.items()}


def pictures(faces: Sequence[Face]) -> np.ndarray:
    return np.stack([draw_face(each, _SIZE) for each in faces])


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--presets", nargs="+", default=[*UNPAIRED, *PAIRED])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--faces", type=int, default=600, help="in each folder")
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    clip, stores = load_clip("sample"), dict[tuple[str, bool], Store]()
    for preset in given.presets:
        kind, words = "paired" if preset in PAIRED else "unpaired", preset == "lanit"
        if (kind, words) not in stores:
            stores[kind, words] = store_of(given.work, kind, given.faces, clip, words=words)
        named = "small-32" if words or preset in CANDIDATES else f"small-32,{preset}"
        options = options_from(
            named,
            CANDIDATES.get(preset, {}) | {
                "steps": given.steps, "seed": given.seed, "batch_size": 8, "channels": given.channels,
                "max_channels": 4 * given.channels, "evaluate_every": 0, "sample_every": 0, "checkpoint_every": 0,
            },
        )  # fmt: skip
        began, run = time.process_time(), given.work / f"run-{preset}-{given.steps}-{given.seed}"
        train(stores[kind, words], run, options, clip, device="cpu")
        seconds = time.process_time() - began
        figures = "  ".join(f"{name} {value:.3f}" for name, value in judged(run, kind).items())
        print(f"{preset:12} {seconds:6.0f} s  {figures}", flush=True)


if __name__ == "__main__":
    main()
