"""What do a few known labels buy, beginning at the words and without them? Scored on labels that were left out.

    python -m benchmarks.filled_labels --work DIR [--faces 3000] [--seeds 911 912 913]
    python -m benchmarks.filled_labels --store STORE --truth FILE --template "a photo of a face with {}."

Of a store and a table that knows all labels, a fifth of the images is for scoring; of the others 1, 5, 20 and 100 % are
taken to be known. Figures are macro F1. *Words*: what ``lanit label --fill`` does. *None*: the same head with nothing
to begin at; phrases of which hardly anything is known go by their words in both. Three draws of the shares each.
Without a store the images are drawn faces made noisy, of which the sample CLIP knows little.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import f1_score

from benchmarks.stable_templates import heads, noise, of_template, spoiled_faces, stored
from lanit.labels import EmbeddedPrompts
from lanit.rules import Rule
from pipeline.clip.models import load_clip
from pipeline.labelling.fill import fill
from pipeline.labelling.fill_request import Fill, kept_rows
from pipeline.labelling.known_labels import image_keys, read_truth
from pipeline.prompts.embed_prompts import embed_prompts
from pipeline.prompts.prompt_sets import PromptSet, read_prompt_set
from pipeline.sample_world.faces import ATTRIBUTES, draw_faces
from pipeline.store.store import Store

SHARES = (0.01, 0.05, 0.2, 1.0)
DRAWS = (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--faces", type=int, default=3000)
    parser.add_argument("--seeds", type=int, nargs="*", default=[911, 912, 913])
    parser.add_argument("--store", type=Path, nargs="*", default=[])
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--template", default="a face with {}.")
    asked = parser.parse_args()
    heads("world", "labels by words", *(f"{share:.0%}, words" for share in SHARES), *(f"{s:.0%}, none" for s in SHARES))
    for store in asked.store:
        opened = Store.open(store)
        given = read_truth(asked.truth, None)
        truth = given.values(given.align(*image_keys(opened)), given.domains) == 1
        clip = load_clip(opened.clip_spec)
        report(store.parent.name, opened, truth, clip, of_template(prompts_of(given.domains), asked.template))
    for seed in asked.seeds if not asked.store else []:
        clip, phrases = load_clip("sample"), read_prompt_set("sample-faces")
        folder = asked.work / f"noise-{seed}"
        spoiled_faces(folder / "faces", asked.faces, noise, seed)
        truth = draw_faces(seed, range(asked.faces), 64)[1][:, [ATTRIBUTES.index(d) for d in phrases.domains]]
        report(f"noise, seed {seed}", stored(folder, clip), truth, clip, of_template(phrases, asked.template))


def prompts_of(domains: tuple[str, ...]) -> PromptSet:
    return PromptSet(domains, ("{}.",), (".",), "phrases")


def report(name: str, store: Store, truth: np.ndarray, clip: Any, prompts: PromptSet) -> None:
    """truth: bool (n×N), in the order of the store."""
    embedded, ids = embed_prompts(clip, prompts), image_keys(store)[0].to_pylist()
    images, every = torch.from_numpy(store.embeddings()), truth.astype(np.int8)
    tested = kept_rows(every, ids, Fill(0.2, 99))
    by_words = f1_score(truth[tested], embedded.labels(images)[tested].numpy(), average="macro", zero_division=0)
    dumb = replace(embedded, scale=0.0)
    cells = []
    for start in (embedded, dumb):
        for share in SHARES:
            each = [f1(store, start, prompts, every, tested, Fill(share, draw), ids) for draw in DRAWS]
            cells.append(f"{np.mean(each):.3f} ({min(each):.3f}–{max(each):.3f})")
            print(f"<!-- {name} {share} {cells[-1]} -->", flush=True)
    print(f"| {name} | {by_words:.3f} | {' | '.join(cells)} |", flush=True)


def f1(
    store: Store, start: EmbeddedPrompts, prompts: PromptSet, every: np.ndarray, tested: np.ndarray, share: Fill,
    ids: list[str],
) -> float:  # fmt: skip
    """Macro F1 on the images ``tested``, bool (n), of what is filled in from a share of the others."""
    kept = kept_rows(np.where(tested[:, None], -1, every).astype(np.int8), ids, share)[:, None]
    known = np.where(kept, every, -1).astype(np.int8)
    left_out = np.where(tested[:, None], every, -1).astype(np.int8)
    found = fill(store, start, prompts.domains, Rule(), known, left_out, share).figures
    assert found.f1_left_out is not None
    return found.f1_left_out


if __name__ == "__main__":
    main()
