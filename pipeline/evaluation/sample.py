"""Which images of a store an evaluation rests on: drawn by seed, the same for every model that is compared."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lanit.errors import LanitError
from lanit.guides import Guide, guide_of
from lanit.metrics import cosine_distance
from pipeline.decoding.grids import to_float
from pipeline.files import sha256_bytes
from pipeline.models.bundle import Bundle
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.store.image_cache import DrawnImages
from pipeline.store.label_revisions import RevisionFile
from pipeline.store.store import Store
from pipeline.store.store_images import StoreImages

BLOCK = 16
"""Images in a network at once. The rounding of a network depends on that number, so it is the same whatever
``--batch-size`` is; at 16 a network of this kind is about as fast as it gets on a CPU, and fits any GPU."""

_DECODERS = 4

_Item = TypeVar("_Item")
_Loaded = TypeVar("_Loaded")

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class RealLabels:
    """What the images of a store carry. active: bool (n×N), in store order. origin: where it comes from, for people.
    others: prompts of the domains that they have besides those of the model; none where they have none. of_clusters:
    whether an image has just one, which nobody asked for."""

    active: Bools = field(repr=False)
    origin: str
    others: PromptSet | None = None
    of_clusters: bool = False

    def digest(self) -> str:
        return sha256_bytes(np.packbits(self.active).tobytes() + repr(self.active.shape).encode())


def real_labels(store: Store, bundle: Bundle, revision: int | None) -> RealLabels:
    """Labels of the images of ``store`` in the model's domains.

    Those of the named revision, else of the newest that ``lanit label`` wrote for just these domains, else of the
    newest at all where it has them among others, else what the model's own prompts say by METHOD (1); of a model that
    found its domains itself, the clusters that its run wrote here, else what its guiding network says: a store of test
    images need not be labelled. Raises LanitError where the revision has other domains, or is not of the images that
    the store holds now.
    """
    domains = bundle.prompt_set.domains
    found = store.newest_labels(domains) if revision is None else store.revision_file(revision)
    guide = guide_of(bundle.networks)
    if guide is not None and revision is None:
        found = _of_run(store, bundle)
        if found is None:
            return RealLabels(_by_guide(store, bundle, guide), "the model's guiding network", of_clusters=True)
    if found is None and len(domains) == 1:
        newest = store.newest_labels() if store.revisions() else None
        found = newest if newest is not None and domains[0] in newest.domains else None
    if found is None:
        return RealLabels(_by_prompts(store, bundle), "the model's own prompts")
    if len(domains) == 1 and domains[0] in found.domains:
        return _one_of(store, found, domains[0])
    if found.domains != domains:
        raise LanitError(
            f"label revision {found.number} is of other domains ({', '.join(found.domains)})",
            f"The model knows {', '.join(domains)}: name a revision of those, or leave --revision out.",
        )
    store.check_current(found)
    blocks = [block.active for block in found.blocks(active=True)]
    clusters = found.rule.kind in ("clusters", "learned")
    return RealLabels(np.concatenate(blocks), f"label revision {found.number}", of_clusters=clusters)


def _of_run(store: Store, bundle: Bundle) -> RevisionFile | None:
    """The clusters that the model's run wrote into this store, if they are those of the images of now."""
    number = bundle.training.get("label_revision")
    if number not in store.revisions():
        return None
    found = store.revision_file(number)
    of_run = found.rule.kind == "learned" and found.domains == bundle.prompt_set.domains
    return found if of_run and store.is_current(found) else None


@torch.no_grad()
def _by_guide(store: Store, bundle: Bundle, guide: Guide) -> Bools:
    device = next(guide.parameters()).device
    blocks = read_blocks(store, np.arange(store.ok), bundle.options.image_size, 16 * BLOCK)
    parts = [(guide.margins(to_float(block).to(device)) > 0).cpu().numpy() for block in blocks]
    return np.concatenate(parts) if parts else np.empty((0, len(bundle.prompt_set.domains)), bool)


def _one_of(store: Store, found: RevisionFile, word: str) -> RealLabels:
    """The labels of one word of a revision, for a model of that word."""
    store.check_current(found)
    column = found.domains.index(word)
    active = np.concatenate([block.active[:, [column]] for block in found.blocks(active=True)])
    rest = [number for number in range(len(found.domains)) if number != column]
    others = found.prompt_set.of_domains(rest) if rest else None
    return RealLabels(active, f"label revision {found.number}", others)


def _by_prompts(store: Store, bundle: Bundle) -> Bools:
    parts = [bundle.prompts.labels(torch.tensor(part)).numpy() for part in store.embedding_parts()]
    return np.concatenate(parts) if parts else np.empty((0, len(bundle.prompt_set.domains)), bool)


def generator_of(seed: int, what: str) -> np.random.Generator:
    """Random numbers for one purpose: those of another purpose, or of another domain, do not move them."""
    return np.random.default_rng([seed, zlib.crc32(what.encode())])


def torch_generator_of(seed: int, what: str) -> torch.Generator:
    """The same for torch."""
    return torch.Generator().manual_seed(int(generator_of(seed, what).integers(2**62)))


def draw(rows: Ints, most: int, seed: int, what: str) -> Ints:
    """At most ``most`` of ``rows`` (0: all of them), without replacement, in rising order."""
    if not most or len(rows) <= most:
        return rows
    return np.sort(generator_of(seed, what).choice(rows, most, replace=False))


def read_rows(store: Store, rows: Ints, size: int) -> np.ndarray:
    """The middle squares of images of the store, uint8 (len(rows)×size×size×3). Raises LanitError where one is
    gone, or another since it was embedded."""
    return np.concatenate([np.empty((0, size, size, 3), np.uint8), *read_blocks(store, rows, size, BLOCK)])


def read_blocks(store: Store, rows: Ints, size: int, at_once: int) -> Iterator[np.ndarray]:
    """The same, :data:`BLOCK` images a time: all of them need not fit in memory. at_once: images that are read."""
    images = DrawnImages(StoreImages(store, rows), size)
    for part in batches(len(rows), max(at_once // BLOCK, 1) * BLOCK):
        taken = images.take(np.arange(part.start, part.stop)).transpose(0, 2, 3, 1)
        for block in batches(len(taken)):
            yield np.ascontiguousarray(taken[block])


def read_ahead(load: Callable[[_Item], _Loaded], items: Sequence[_Item], at_once: int) -> Iterator[_Loaded]:
    """What ``load`` gives for each of ``items``, in their order; ``at_once`` of them are loaded by threads."""
    with ThreadPoolExecutor(_DECODERS) as pool:
        for part in batches(len(items), at_once):
            yield from pool.map(load, items[part])


def blocks(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """``items``, ``size`` of them a list; the last may be shorter."""
    rest = iter(items)
    while block := list(islice(rest, size)):
        yield block


def batches(count: int, size: int = BLOCK) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def mean_distance_between(features: Tensor, seed: int, pairs: int = 2000) -> float:
    """Mean cosine distance of pairs of different rows, drawn: float (n×d), n ≥ 2."""
    rng = generator_of(seed, "pairs")
    first = rng.integers(0, len(features), pairs)
    second = (first + rng.integers(1, len(features), pairs)) % len(features)
    return float(cosine_distance(features[first], features[second]).mean())
