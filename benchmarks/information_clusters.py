"""Clusters by mutual information against those of k-means, on the same features: which are nearer to true classes?

    python -m benchmarks.information_clusters --store STORE... --truth FILE [--seeds 0 1 2 3 4]

truth: a table of classes, one of each image. K is their number. NMI: normalised mutual information with the classes;
accuracy: of the best matching of clusters and classes one-to-one; both over all images of the store, whose crops are
embedded where they are not yet. The head begins at the centres of k-means of each seed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import normalized_mutual_info_score

from benchmarks.stable_templates import heads
from lanit.matching import match
from pipeline.clip.models import load_clip
from pipeline.labelling.known_labels import image_keys, read_truth
from pipeline.stability.crops import make_views
from pipeline.stability.information_clusters import information_head
from pipeline.store.store import Store
from pipeline.words.kmeans import cluster_centres


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, nargs="+", required=True)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    asked = parser.parse_args()
    heads("store", "seed", "k-means: NMI", "accuracy", "mutual information: NMI", "accuracy")
    for path in asked.store:
        store = Store.open(path)
        given = read_truth(asked.truth, None)
        truth = given.values(given.align(*image_keys(store)), given.domains).argmax(axis=1)
        embeddings, views = store.embeddings(), make_views(store, load_clip(store.clip_spec))
        images, rows = torch.from_numpy(embeddings), []
        for seed in asked.seeds:
            centres = cluster_centres(embeddings, len(given.domains), seed)
            head = information_head(views, centres)
            found = [(embeddings @ centres.T).argmax(axis=1), head.labels(images).numpy().argmax(axis=1)]
            rows.append([score for each in found for score in scores(truth, each)])
            print(f"| {path.parent.name} | {seed} | {' | '.join(f'{value:.3f}' for value in rows[-1])} |", flush=True)
        print(f"| {path.parent.name} | mean | {' | '.join(f'{value:.3f}' for value in np.mean(rows, axis=0))} |")


def scores(truth: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """NMI, and the accuracy of the best matching. truth, found: int (n)."""
    return float(normalized_mutual_info_score(truth, found)), match(found, truth).accuracy


if __name__ == "__main__":
    main()
