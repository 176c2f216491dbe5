"""Clusters that a run found, against those of k-means on features that no CLIP made: which are nearer to true classes?

    python -m benchmarks.learned_clusters --store STORE --truth FILE [--domains A B ...] [--revision N ...]

truth: a table of labels; domains: those of it of which each image has exactly one, all unless named. Without revisions,
all of the rule ``learned``. k-means: of the first 50 principal components of the pixels, at 32 px, seeds 0 to 4, as
many clusters. AMI: adjusted mutual information; accuracy: of the best matching of clusters and classes one-to-one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from benchmarks.stable_templates import heads
from lanit.matching import Matching, match
from pipeline.labelling.known_labels import image_keys, read_truth
from pipeline.store.image_cache import open_sized_images
from pipeline.store.store import Store

_SIZE, _COMPONENTS, _SEEDS = 32, 50, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--domains", nargs="*")
    parser.add_argument("--revision", type=int, nargs="*")
    asked = parser.parse_args()
    store, given = Store.open(asked.store), read_truth(asked.truth, None)
    truth = given.values(given.align(*image_keys(store)), asked.domains or given.domains).argmax(axis=1)
    heads("clusters", "number", "AMI", "accuracy")
    revisions = [store.revision_file(number) for number in asked.revision or store.revisions()]
    counts = set()
    for revision in (each for each in revisions if each.rule.kind == "learned"):
        found = revision.read().active.argmax(axis=1)
        counts.add(len(revision.domains))
        _row(f"revision {revision.number}, {revision.origin}", len(revision.domains), [match(found, truth)])
    images = open_sized_images(store, _SIZE, 100.0)
    pixels = np.concatenate(
        [images.take(rows) for rows in np.array_split(np.arange(len(images)), len(images) // 512 + 1)]
    )
    features = PCA(_COMPONENTS, random_state=0).fit_transform(pixels.reshape(len(pixels), -1) / 255)
    for count in sorted(counts):
        means = (KMeans(count, n_init=10, random_state=seed).fit_predict(features) for seed in range(_SEEDS))
        _row("k-means of pixels", count, [match(found, truth) for found in means])


def _row(name: str, count: int, found: list[Matching]) -> None:
    ami, accuracy = np.mean([(each.mutual_information, each.accuracy) for each in found], axis=0)
    print(f"| {name} | {count} | {ami:.3f} | {accuracy:.3f} |", flush=True)


if __name__ == "__main__":
    main()
