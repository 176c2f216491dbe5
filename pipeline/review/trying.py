"""Words read by CLIP while one looks: a search, and a phrase that is not among the prompts yet."""

from __future__ import annotations

from typing import Any

import numpy as np

from lanit.errors import UsageError, excerpt
from lanit.labels import decide
from pipeline.review.workplace import Labelling, Workplace

_BINS = 96
_COMPANIONS = 6


def find(place: Workplace, text: str | None, row: int | None, count: int) -> np.ndarray:
    """Rows nearest to a text, or to an image of the store, int64 (≤ count). Raises LanitError without a CLIP."""
    from pipeline.prompts.embed_prompts import sentence_vector

    query = sentence_vector(place.clip, text or "") if row is None else place.store.embeddings_of(np.array([row]))[0]
    return place.nearest(query, min(count, place.store.ok))


def check_phrase(place: Workplace, text: str) -> str:
    """The phrase as a prompt file has it. Raises UsageError where it can be none, or is there already."""
    from pipeline.prompts.phrase_rules import wrong_with

    phrase = " ".join(text.split())
    wrong = wrong_with(phrase)
    if wrong is not None:
        raise UsageError(f"'{excerpt(phrase)}' {wrong[0]}", wrong[1])
    known = (*place.labelling.revision.domains, *place.added)
    if phrase.casefold() in (each.casefold() for each in known):
        raise UsageError(f"'{excerpt(phrase)}' is among the phrases already", "Choose it on the left.")
    return phrase


def try_phrase(place: Workplace, text: str) -> tuple[dict[str, Any], np.ndarray]:
    """What a new phrase would catch under the rule of the revision, and every row, largest margin first.

    Raises UsageError where it can be no phrase or the rule takes none, LanitError without a CLIP.
    """
    from pipeline.prompts.embed_prompts import prompt_vectors

    labelling = place.labelling
    if not labelling.revision.rule.by_similarity:
        message = f"a revision of {labelling.revision.rule.describe()} takes no phrases"
        raise UsageError(message, "Label by phrases: lanit label --prompts FILE.")
    phrase = check_phrase(place, text)
    embedded = prompt_vectors(place.clip, labelling.revision.prompt_set.about([phrase]))
    direction = embedded.domains[0] - embedded.base
    margins = np.concatenate([part @ direction for part in place.store.embedding_parts()])
    caught, lost = _labelled(labelling, margins)
    low, high = (float(np.quantile(margins, share)) for share in (0.0005, 0.9995))
    edges = np.linspace(min(low, 0.0), max(high, 0.0) + 1e-6, _BINS + 1)
    rows = np.argsort(-margins, kind="stable")
    rows = np.concatenate([rows[caught[rows]], rows[~caught[rows]]])
    found = {
        "phrase": phrase, "caught": int(caught.sum()), "taken": lost, **_beside(labelling, caught),
        "stability": _stability(place, labelling, direction),
        "histogram": {"low": float(edges[0]), "high": float(edges[-1]), "yes": [], "no": [],
                      "all": np.histogram(np.clip(margins, edges[0], edges[-1]), edges)[0].tolist()},
        "groups": [(0, "caught, the surest first"), (int(caught.sum()), "not caught, the nearest first")],
        "can_be_added": place.prompts is not None,
    }  # fmt: skip
    return found, rows


def _labelled(labelling: Labelling, margins: np.ndarray) -> tuple[np.ndarray, list[tuple[str, int]]]:
    """Labels that the phrase would get, bool (n), and how many each other phrase would lose to it."""
    revision = labelling.revision
    if revision.rule.kind == "adaptive":
        return margins > 0, []
    prompts, caught, lost = revision.prompt_set, [], np.zeros(len(revision.domains), np.int64)
    offsets = np.array((*prompts.offsets, 0.0), np.float32)
    weights = np.array((*prompts.weights, 1.0), np.float32)
    for block in revision.blocks(margin=True, base=True):
        rows = slice(block.start, block.start + block.rows)
        both, base = np.column_stack([block.margin, margins[rows]]), block.similarity_base
        after = decide(revision.rule, both, base, offsets, weights)
        before = decide(revision.rule, both[:, :-1], base, offsets[:-1], weights[:-1])
        lost += (before & ~after[:, :-1]).sum(axis=0)
        caught.append(after[:, -1])
    order = np.argsort(-lost, kind="stable")[:_COMPANIONS]
    return np.concatenate(caught), [(revision.domains[n], int(lost[n])) for n in order if lost[n]]


def _beside(labelling: Labelling, caught: np.ndarray) -> dict[str, Any]:
    """Which phrases are on the images caught, and how many of these had none."""
    both = np.zeros(len(labelling.revision.domains), np.int64)
    unlabelled = 0
    for block in labelling.revision.blocks(active=True):
        here = caught[block.start : block.start + block.rows]
        both += block.active[here].sum(axis=0)
        unlabelled += int((~block.active[here].any(axis=1)).sum())
    order = np.argsort(-both, kind="stable")[:_COMPANIONS]
    beside = [(labelling.revision.domains[n], int(both[n])) for n in order if both[n]]
    return {"unlabelled": unlabelled, "beside": beside}


def _stability(place: Workplace, labelling: Labelling, direction: np.ndarray) -> dict[str, Any] | None:
    """κ of the labels of two crops; none where there are no crops, or under a rule that needs all phrases."""
    from pipeline.stability.agreements import agreements_of
    from pipeline.stability.views import read_views

    views = read_views(place.store)
    if views is None or labelling.revision.rule.kind != "adaptive":
        return None
    first, second = (views.crops @ direction > 0)[:, :, None]
    agreement = agreements_of(first, second)[0]
    return {"kappa": agreement.kappa, "interval": agreement.interval, "images": agreement.images}
