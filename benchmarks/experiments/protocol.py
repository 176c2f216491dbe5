"""One protocol for every arm: translations guided by held-out references, measured by CLIP and by an independent judge.

For each true domain n, sources are held-out images that lack n, references held-out images that truly carry it. The
style is E_S(reference), aggregated by the label that the arm's own rule gives the reference; of a method that finds its
own domains, E's, which is one whatever the label. So no arm is asked for a name of its domains. The translations are
compared with other held-out images that truly carry n: images of even number serve as sources and references, those of
odd number as the real ones, so that an image copied from a reference gains nothing. Pairs are the same for all arms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.experiments.labelling import LabelOf
from benchmarks.experiments.worlds import World, embed_pictures, judged
from lanit.guides import guide_of
from lanit.inference import drawn_codes, edited, translate
from lanit.labels import with_slack
from lanit.metrics import density_coverage, frechet_distance, moments
from lanit.networks import GenerativeNetworks, aggregate
from pipeline.decoding.grids import to_float, to_uint8
from pipeline.models.translator import Translator

NEIGHBOURS = 5
_PAIRS_SEED = 2**20
_BATCH = 100
Scores = dict[str, list[float]]
"""A figure for each domain: ``mfid`` (CLIP features), ``mfid_judge`` (the judge's), ``density``, ``coverage``,
``recognised``, ``others`` (share of the other domains on which the judge and the reference's truth agree)."""


@dataclass(frozen=True)
class Pairs:
    """Row numbers in the held-out images: int64 (t) sources and references of one domain, and its real images."""

    sources: np.ndarray
    references: np.ndarray
    real: np.ndarray


def draw_pairs(truth: np.ndarray, domain: int, count: int) -> Pairs:
    """The pairs of ``domain``: a function of the held-out truth, bool (m×N), and of ``count`` alone.

    Every source and every reference is used before one is used again.
    """
    carries = truth[:, domain]
    even = np.arange(len(truth)) % 2 == 0
    rng = np.random.default_rng([_PAIRS_SEED, domain])
    sources, references = (_repeated(rng, np.flatnonzero(even & rows), count) for rows in (~carries, carries))
    return Pairs(sources, references, np.flatnonzero(~even & carries))


def _repeated(rng: np.random.Generator, rows: np.ndarray, count: int) -> np.ndarray:
    rounds = -(-count // len(rows))
    return np.concatenate([rng.permutation(rows) for _ in range(rounds)])[:count]


def labels_of_held_out(world: World, networks: GenerativeNetworks, label_of: LabelOf) -> np.ndarray:
    """Labels of the held-out images, bool (m×N): by a guiding network where there is one, else by ``label_of``."""
    guide = guide_of(networks)
    if guide is None:
        return label_of(world.held_embeddings, world.held_truth)
    with torch.no_grad():
        margins = [guide.margins(images) for images in to_float(world.pictures).split(_BATCH)]
    labels: np.ndarray = (torch.cat(margins) > 0).numpy()
    return labels


def score_references(world: World, networks: GenerativeNetworks, held_labels: np.ndarray, count: int) -> Scores:
    """Figures of reference-guided translation by ``networks``, ``count`` images a domain."""

    def translate(pairs: Pairs) -> np.ndarray:
        sources, references = world.pictures[pairs.sources], world.pictures[pairs.references]
        return translate_pairs(networks, sources, references, held_labels[pairs.references])

    return score_translations(world, translate, count)


@torch.no_grad()
def translate_pairs(
    networks: GenerativeNetworks, sources: np.ndarray, references: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Sources in the styles of references, uint8 (t×S×S×3) all three; labels: of the references, bool (t×N)."""
    made = []
    weights = with_slack(torch.from_numpy(labels))
    for rows in torch.arange(len(sources)).split(_BATCH):
        codes = networks.own_codes(to_float(references[rows.numpy()]))
        images = networks.generator(to_float(sources[rows.numpy()]), aggregate(codes, weights[rows]))
        made.append(to_uint8(images))
    return np.concatenate(made)


def score_translations(world: World, translate: Callable[[Pairs], np.ndarray], count: int) -> Scores:
    """Figures of whatever ``translate`` makes, uint8 (t×S×S×3), of the pairs of each domain."""
    scores: Scores = {}
    for domain in range(len(world.domains)):
        pairs = draw_pairs(world.held_truth, domain, count)
        found = _score(world, domain, translate(pairs), pairs)
        for name, value in found.items():
            scores.setdefault(name, []).append(value)
    return scores


def _score(world: World, domain: int, made: np.ndarray, pairs: Pairs) -> dict[str, float]:
    real = torch.from_numpy(world.held_embeddings[pairs.real])
    fake = torch.from_numpy(embed_pictures(world.clip, made))
    seen, features = judged(world.judge, made)
    density, coverage = density_coverage(real, fake, NEIGHBOURS)
    wanted = world.held_truth[pairs.references]
    others = np.arange(seen.shape[1]) != domain
    return {
        "mfid": frechet_distance(moments(fake), moments(real)),
        "mfid_judge": frechet_distance(moments(features), moments(world.held_features[torch.from_numpy(pairs.real)])),
        "density": density,
        "coverage": coverage,
        "recognised": float(seen[:, domain].mean()),
        "others": float((seen == wanted)[:, others].mean()),
    }


def score_latents(world: World, translator: Translator, held_labels: np.ndarray, count: int) -> list[float]:
    """Share of latent-guided translations in which the judge recognises the domain that was added, for each domain.

    As ``lanit translate --add``, with a latent for each image; the sources' own labels come from the arm's rule.
    """
    shares = []
    for domain in range(len(world.domains)):
        rows = draw_pairs(world.held_truth, domain, count).sources
        own = torch.from_numpy(held_labels[rows])
        latents = torch.randn(
            len(rows), translator.networks.latent_dim, generator=torch.Generator().manual_seed(domain)
        )
        add = (torch.arange(len(world.domains)) == domain).float()
        made = []
        for batch in torch.arange(len(rows)).split(_BATCH):
            images = to_float(world.pictures[rows[batch.numpy()]])
            target = edited(own[batch], add, torch.zeros_like(own[0]), translator.exclusive)
            codes = drawn_codes(translator.networks, latents[batch])
            made.append(to_uint8(translate(translator.networks, images, target, codes[None])[0]))
        shares.append(float(judged(world.judge, np.concatenate(made))[0][:, domain].mean()))
    return shares


def score_bounds(world: World, count: int) -> dict[str, Scores]:
    """What no model is needed for: the sources as they are, and real images (the references themselves)."""
    return {
        "sources": score_translations(world, lambda pairs: world.pictures[pairs.sources], count),
        "references": score_translations(world, lambda pairs: world.pictures[pairs.references], count),
    }
