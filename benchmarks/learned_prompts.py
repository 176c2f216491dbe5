"""Do prompts that learn from two crops get better, and does the guard know when? Scored by the truth of drawn faces.

    python -m benchmarks.learned_prompts --work DIR [--faces 1000] [--seeds 921 922 923]

Five starts, of which four are poor, in worlds of clean faces of each seed, and in four of spoiled ones (noisy, small,
of a warm cast, dark) of the first. Half of the images teach and the other half judges, as in ``lanit label
--learn-prompts``; macro F1 is of all.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.stable_templates import SPOILS, f1, heads, of_template, spoiled_faces, stored
from lanit.rules import Rule
from pipeline.clip.models import load_clip
from pipeline.prompts.prompt_sets import PromptSet, read_prompt_set
from pipeline.sample_world.dataset import write_faces
from pipeline.sample_world.faces import ATTRIBUTES, draw_faces
from pipeline.stability.crops import make_views
from pipeline.stability.prompt_learning import learn_prompts

STARTS = (
    "a face with gray hair and {}.",
    "a face with bangs and eyeglasses and {}.",
    "a face with red hair and {}.",
    "a face with black hair and a mustache and {}.",
    "a face with {}.",
)
WORSE = 0.002


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--faces", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="*", default=[921, 922, 923])
    asked = parser.parse_args()
    clip, phrases = load_clip("sample"), read_prompt_set("sample-faces")
    heads("world", "start", "F1", "F1 learned", "κ", "κ learned", "taken")
    gains: list[tuple[bool, float]] = []
    for seed in asked.seeds:
        folder = asked.work / f"clean-{seed}"
        write_faces(folder / "faces", asked.faces, seed, 64)
        gains += world(f"clean, seed {seed}", folder, seed, asked.faces, clip, phrases)
    for name, spoil in SPOILS.items():
        folder = asked.work / f"{name}-{asked.seeds[0]}"
        spoiled_faces(folder / "faces", asked.faces, spoil, asked.seeds[0])
        gains += world(name, folder, asked.seeds[0], asked.faces, clip, phrases)
    for taken in (True, False):
        chosen = [gain for was, gain in gains if was == taken]
        worse, better = sum(gain < -WORSE for gain in chosen), sum(gain > WORSE for gain in chosen)
        print(f"\n{'taken' if taken else 'refused'}: {len(chosen)}, of which better {better}, worse {worse}", end="")
        if chosen:
            print(f"; mean {np.mean(chosen):+.3f}, least {min(chosen):+.3f}, most {max(chosen):+.3f}")


def world(name: str, folder: Path, seed: int, faces: int, clip: Any, phrases: PromptSet) -> list[tuple[bool, float]]:
    """Whether what was learned was taken, and its gain in F1, from each start."""
    store = stored(folder, clip)
    truth = draw_faces(seed, range(faces), 64)[1][:, [ATTRIBUTES.index(domain) for domain in phrases.domains]]
    views, embeddings, gains = make_views(store, clip), store.embeddings(), []
    for start in STARTS:
        own = of_template(phrases, start)
        found = learn_prompts(views, clip, own, Rule())
        before, after = (f1(embeddings, truth, clip, prompts) for prompts in (own, found.learned))
        taken = "yes" if found.accepted else "alike" if found.alike else "no"
        print(
            f"| {name} | {start} | {before:.3f} | {after:.3f} | {found.before:.3f} | {found.after:.3f} | {taken} |",
            flush=True,
        )
        gains.append((found.accepted, after - before))
    return gains


if __name__ == "__main__":
    main()
