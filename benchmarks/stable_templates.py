"""Does picking templates and offsets by the agreement of two crops help labels? Scored by the truth of drawn faces.

    python -m benchmarks.stable_templates --work DIR [--faces 1000] [--seeds 301 302 303 304 305]

Each of seven poor templates, and two good ones, is the user's own in a store of each seed; what the agreement picks
among its candidates, and the offsets it then finds, are scored by macro F1. With ``--spoiled`` the faces are noisy,
small, of a warm cast, or dark, which takes CLIP out of its world; there offsets are found on one half of the images and
scored on the other. The folder is kept, so that the same command goes on.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.stats import spearmanr
from sklearn.metrics import f1_score

from lanit.labels import Rule
from lanit.sentences import without_phrase
from pipeline.clip.models import load_clip
from pipeline.embedding.embed import EmbedOptions, embed
from pipeline.prompts.embed_prompts import embed_prompts
from pipeline.prompts.prompt_sets import PromptSet, read_prompt_set
from pipeline.sample_world.dataset import write_faces
from pipeline.sample_world.faces import ATTRIBUTES, draw_faces
from pipeline.stability.choices import choose_offsets, compare_templates, with_offsets, with_templates
from pipeline.stability.crops import make_views
from pipeline.stability.views import Views
from pipeline.store.store import Store

POOR = (
    "a face with gray hair and {}.",
    "a face with bangs and eyeglasses and {}.",
    "a face with red hair and {}.",
    "a face with black hair and a mustache and {}.",
    "a bald face with {}.",
    "a smiling face with {}.",
    "a face with brown hair and {}.",
)
GOOD = ("a face with {}.", "{}.")
CLEAN_SEEDS = (301, 302, 303, 304, 305)
SPOILED_SEED = 303


def noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image + 0.35 * 255 * rng.standard_normal(image.shape)


def small(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    low = Image.fromarray(image).resize((20, 20), Image.Resampling.BOX)
    return np.asarray(low.resize(image.shape[1::-1], Image.Resampling.BICUBIC), float)


def cast(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image * np.array([1.0, 0.75, 0.45]) + np.array([40.0, 10.0, 0.0])


def dark(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image * 0.25


SPOILS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "noise": noise, "low": small, "cast": cast, "dark": dark,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--faces", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(CLEAN_SEEDS))
    parser.add_argument("--spoiled", action="store_true")
    asked = parser.parse_args()
    clip, phrases = load_clip("sample"), read_prompt_set("sample-faces")
    if asked.spoiled:
        spoiled_worlds(asked.work, asked.faces, clip, phrases)
    else:
        clean_worlds(asked.work, asked.faces, asked.seeds, clip, phrases)


def clean_worlds(work: Path, faces: int, seeds: list[int], clip: Any, phrases: PromptSet) -> None:
    heads("template", "seed", "F1", "F1 picked", "F1 picked, with offsets", "ρ of κ with F1")
    picked, moved = [], []
    for seed in seeds:
        folder = work / f"clean-{seed}"
        write_faces(folder / "faces", faces, seed, 64)
        store, truth = stored(folder, clip), truth_of(folder, phrases)
        views = make_views(store, clip)
        embeddings = store.embeddings()
        for template in POOR + GOOD:
            own = of_template(phrases, template)
            choice = compare_templates(views, clip, own, Rule())
            best = with_templates(own, choice.taken)
            final = with_offsets(best, choose_offsets(views, clip, best, Rule()))
            scores = [f1(embeddings, truth, clip, prompts) for prompts in (own, best, final)]
            each = [
                f1(embeddings, truth, clip, replace(own, templates=c.templates, bases=c.bases))
                for c in choice.candidates
            ]
            rho = spearmanr([c.score for c in choice.candidates], each).statistic
            print(
                f"| {template} | {seed} | {scores[0]:.3f} | {scores[1]:.3f} | {scores[2]:.3f} | {rho:.2f} |", flush=True
            )
            if template in POOR:
                picked.append(scores[1])
            else:
                moved.append(scores[2] - scores[0])
    print(f"\nleast of {len(picked)} poor templates after picking: {min(picked):.3f}")
    print(f"change of good templates, picked and with offsets: {min(moved):+.4f} to {max(moved):+.4f}")


def spoiled_worlds(work: Path, faces: int, clip: Any, phrases: PromptSet) -> None:
    heads("world", "template", "half", "F1", "offsets alone", "picked", "picked, with offsets")
    gains, alone = [], []
    for name, spoil in SPOILS.items():
        folder = work / f"spoiled-{name}"
        spoiled_faces(folder / "faces", faces, spoil)
        store = stored(folder, clip)
        truth = draw_faces(SPOILED_SEED, range(faces), 64)[1][:, [ATTRIBUTES.index(d) for d in phrases.domains]]
        views = make_views(store, clip, most=faces)
        order = np.argsort(store.images(["image_id"])["image_id"].to_numpy())  # the rows of the views
        embeddings = store.embeddings()[order]
        truth = truth[order]
        for half in (0, 1):
            found, scored = np.arange(faces) % 2 == half, np.arange(faces) % 2 != half
            part = Views(np.ascontiguousarray(views.crops[:, found]), views.name)
            for template in POOR + GOOD:
                own = of_template(phrases, template)
                best = with_templates(own, compare_templates(part, clip, own, Rule()).taken)
                sets = (own, with_offsets(own, choose_offsets(part, clip, own, Rule())), best,
                        with_offsets(best, choose_offsets(part, clip, best, Rule())))  # fmt: skip
                a, b, c, d = (f1(embeddings[scored], truth[scored], clip, each) for each in sets)
                print(f"| {name} | {template} | {half} | {a:.3f} | {b:.3f} | {c:.3f} | {d:.3f} |", flush=True)
                gains.append(d - a)
                if template in GOOD:
                    alone.append(b - a)
    print(f"\nmean gain of picking with offsets: {statistics.mean(gains):+.3f}; least {min(gains):+.3f}")
    print(f"worse than the start by more than 0.002: {sum(gain < -0.002 for gain in gains)} of {len(gains)}")
    print(f"mean gain of offsets alone under good templates: {statistics.mean(alone):+.3f}; least {min(alone):+.3f}")


def heads(*names: str) -> None:
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}", flush=True)


def stored(folder: Path, clip: Any) -> Store:
    if not (folder / "store" / "store.json").exists():
        embed([str(folder / "faces")], folder / "store", clip, EmbedOptions())
    return Store.open(folder / "store")


def truth_of(folder: Path, phrases: PromptSet) -> np.ndarray:
    """Bool (n×N), in the order of the names, which is the store's."""
    lines = (folder / "faces" / "truth.csv").read_text().splitlines()
    columns = [lines[0].split(",").index(domain) for domain in phrases.domains]
    return np.array([[line.split(",")[n] == "1" for n in columns] for line in lines[1:]])


def spoiled_faces(
    out: Path, count: int, spoil: Callable[[np.ndarray, np.random.Generator], np.ndarray], seed: int = SPOILED_SEED
) -> None:
    if out.exists() and len(list(out.iterdir())) == count:
        return
    out.mkdir(parents=True, exist_ok=True)
    images, _ = draw_faces(seed, range(count), 64)
    for number, image in enumerate(images):
        changed = spoil(image, np.random.default_rng(number)).clip(0, 255).astype(np.uint8)
        Image.fromarray(changed).save(out / f"face-{number:05d}.png")


def of_template(phrases: PromptSet, template: str) -> PromptSet:
    return PromptSet(phrases.domains, (template,), (without_phrase(template),), "one template")


def f1(embeddings: np.ndarray, truth: np.ndarray, clip: Any, prompts: PromptSet) -> float:
    import torch

    labels = embed_prompts(clip, prompts).labels(torch.from_numpy(embeddings)).numpy()
    return float(f1_score(truth, labels, average="macro", zero_division=0))


if __name__ == "__main__":
    main()
