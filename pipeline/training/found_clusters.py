"""Labels of a run that finds its own domains (METHOD §7): none at first, then the clusters of its
guiding network, named by words, as a revision of the store that is written anew as the network learns."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from lanit.codes import GaussianCodes, StyleMoments
from lanit.errors import LanitError
from lanit.guides import cluster_margins, guide_of
from lanit.methods.clusters import ClusterOptions
from lanit.rules import Rule
from pipeline.labelling.cluster_labels import nearest_names
from pipeline.labelling.known_labels import image_keys
from pipeline.prompts.prompt_sets import PromptSet, prompt_set_of
from pipeline.showing import console
from pipeline.store.label_revisions import LabelRevision, RevisionHeader, digest_of
from pipeline.store.store import Store
from pipeline.training.refresh import refresh_line
from pipeline.training.training_run import TrainingRun
from pipeline.words.vocabulary import read_vocabulary

LEARNED = "learned"
_BLOCK = 256  # images that E looks at together: rounding depends on the number
_FEW = 0.01


def unlabelled(store: Store, run: str, options: ClusterOptions, revision: int | None) -> LabelRevision:
    """What such a run begins with: K columns without a label, under revision number 0.

    revision: one whose phrases are to be the first clusters, and whose labels by people E is to keep to. Raises
    LanitError where it has none by people, more phrases than there are clusters, or images of another time.
    """
    ids, paths = (keys.to_numpy(zero_copy_only=False) for keys in image_keys(store))
    shape = (store.ok, options.clusters)
    active, human = np.zeros(shape, bool), None
    prompts, parent = prompt_set_of(placeholders(options.clusters), "the clusters", LEARNED), None
    if revision is not None:
        known = store.revision_file(revision)
        if not known.has_human:
            message = f"nobody labelled an image of label revision {revision}, and clusters need no other labels"
            raise LanitError(message, "Leave out --revision, or say what some images show: lanit review.")
        if len(known.domains) > options.clusters:
            message = (
                f"label revision {revision} has {len(known.domains)} phrases, more than {options.clusters} clusters"
            )
            raise LanitError(message, f"Try --clusters {len(known.domains)}.")
        store.check_current(known)
        labels = known.read()
        assert labels.human is not None, "the file says so"
        human, count = np.zeros(shape, bool), len(known.domains)
        human[:, :count] = labels.human
        active[:, :count] = labels.active & labels.human
        prompts = known.prompt_set.about((*known.domains, *placeholders(options.clusters)[count:]))
        parent = revision
    nothing = np.zeros(store.ok, np.float32)
    return LabelRevision(
        number=0, parent=parent, origin=f"train:{run} step 0", rule=Rule(LEARNED, options.clusters),
        prompt_set=prompts, active=active, margin=np.zeros(shape, np.float32), similarity_base=nothing,
        image_ids=ids, paths=paths, human=human,
    )  # fmt: skip


def placeholders(count: int) -> list[str]:
    """Names of clusters before words are found for them."""
    return [f"cluster {number}" for number in range(1, count + 1)]


@dataclass(frozen=True)
class _Found:
    """active: bool (n×K), the cluster of each image, but for what people said. margin: float32 (n×K), log p_n less that
    of the likeliest other. moments: of the styles of each cluster."""

    active: np.ndarray
    margin: np.ndarray
    moments: StyleMoments


@torch.no_grad()
def _look(run: TrainingRun) -> _Found:
    """What E's average sees in every image of the store."""
    networks, images, before = run.learner.method.averaged, run.data.images, run.data.labels
    guide = guide_of(networks)
    assert guide is not None, "only such methods find clusters"
    margin = np.empty(before.active.shape, np.float32)
    moments = StyleMoments(len(before.domains), networks.latent_dim)
    for start in range(0, len(margin), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(margin)))
        pixels = torch.from_numpy(images.take(rows)).to(run.device).float() / 127.5 - 1
        look = guide.look(pixels)
        moments.add(look.style, look.logits.argmax(dim=1))
        margin[rows] = cluster_margins(look.logits).cpu().numpy()
    active = margin > 0
    if before.human is not None:
        said = before.active & before.human
        decided = said.any(axis=1)[:, None] | before.human
        active = np.where(decided, said, active)
    return _Found(active, margin, moments)


def _names(run: TrainingRun, active: np.ndarray) -> PromptSet:
    """The phrases that people used, and for every other cluster the word nearest to its images; one without images
    keeps its number."""
    store, first = run.labels.store, run.labels.first
    given = sum(name != number for name, number in zip(first.domains, placeholders(len(first.domains)), strict=True))
    names = list(first.domains)
    sums, total, start = np.zeros((len(names), store.embedding_dim)), np.zeros(store.embedding_dim), 0
    for part in store.embedding_parts():
        sums += active[start : start + len(part)].T.astype(np.float32) @ part
        total, start = total + part.sum(axis=0, dtype=np.float64), start + len(part)
    filled = np.flatnonzero(active.any(axis=0))
    open_ = [int(n) for n in filled if n >= given]
    if open_:
        centres = sums[open_] / np.linalg.norm(sums[open_], axis=1, keepdims=True)
        mean = (total / max(start, 1)).astype(np.float32)
        words = nearest_names(store, run.clip, centres.astype(np.float32), mean, read_vocabulary(), names[:given])
        for n, word in zip(open_, words, strict=True):
            names[n] = word
    return first.prompt_set.about(names)


def rehearse_clusters(run: TrainingRun) -> None:
    """Do all of what follows before the first step but write it, which is only tried; styles can then be drawn."""
    begun, line = time.monotonic(), {}
    found = None
    with run.processes.first_alone():
        if run.processes.first:
            run.labels.store.check_labels_writable()
            found = _look(run)
            _names(run, found.active)
            flips = np.zeros(found.active.shape[1], np.int64)
            line = refresh_line("refresh rehearsed", 0, run.data.labels, flips, begun)
    _fit(run, found)
    run.files.add_line(run.learner.clock, line)


def refresh_clusters(run: TrainingRun) -> None:
    """Label the store by E's average, name the clusters, and draw styles from what it sees in them from now on."""
    begun, before, found, number = time.monotonic(), run.data.labels, None, 0
    with run.processes.first_alone():
        if run.processes.first:
            found = _look(run)
            number = _write(run, found)
            _warn_of_few(found.active, before.number == 0)
    _fit(run, found)
    run.use_labels(run.processes.shared(number))
    labels = run.data.labels
    flips = (labels.active != before.active).sum(axis=0)
    run.files.add_line(run.learner.clock, refresh_line("refresh", labels.number, labels, flips, begun))


def _fit(run: TrainingRun, found: _Found | None) -> None:
    moments = run.processes.shared(None if found is None else found.moments)
    codes = run.learner.method.averaged.mapping
    assert isinstance(codes, GaussianCodes), "guided networks draw from Gaussians"
    assert moments is not None, "the first process looked"
    codes.fit(moments)


def _write(run: TrainingRun, found: _Found) -> int:
    store, before, first = run.labels.store, run.data.labels, run.labels.first
    prompts, human = _names(run, found.active), before.human
    origin = f"train:{run.labels.run} step {run.learner.clock.step}"
    parent = before.number or before.parent
    revision = LabelRevision(
        number=0, parent=parent, origin=origin, rule=first.rule, prompt_set=prompts, active=found.active,
        margin=found.margin, similarity_base=before.similarity_base, image_ids=before.image_ids, paths=before.paths,
        human=human,
    )  # fmt: skip
    decisive = [store.parts_array(), found.active, found.margin, *([] if human is None else [human])]
    header = RevisionHeader(
        fingerprint=store.fingerprint, prompt_set=prompts, rule=first.rule, origin=origin, parent=parent,
        inputs_sha256=digest_of(*decisive), human=human is not None,
    )  # fmt: skip
    return store.write_labels(header, revision.blocks(active=True, margin=True, base=True, human=True, keys=True))


def _warn_of_few(active: np.ndarray, first: bool) -> None:
    """After the warm-up: clusters that hold almost no image."""
    shares = active.mean(axis=0)
    few = int((shares < _FEW).sum())
    if first and few:
        least = ", ".join(f"{share:.1%}" for share in sorted(shares)[:5])
        console.warn(
            f"{few} of {len(shares)} clusters hold less than {_FEW:.0%} of the images ({least}): the images may be of "
            f"fewer kinds; --clusters {max(len(shares) - few, 2)} in another --out would not look for the others"
        )
