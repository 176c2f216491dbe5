"""Label revisions with labels of our own, written the way that production writes them."""

from __future__ import annotations

import numpy as np

from lanit.rules import Rule
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.store.label_revisions import BLOCK_ROWS, LabelBlock, RevisionHeader, digest_of
from pipeline.store.store import Store


def add_labels(
    store: Store,
    active: np.ndarray,
    margin: np.ndarray,
    similarity_base: np.ndarray | None = None,
    *,
    prompts: PromptSet,
    rule: Rule | None = None,
    origin: str = "label",
    parent: int | None = None,
    human: np.ndarray | None = None,
) -> int:
    """The number of a revision of just these labels. active: bool (n×N); margin: float (n×N); similarity_base: float32
    (n), 0 unless given; human: bool (n×N), labels that people set; for the n images with status ok, in store order."""
    base = np.zeros(store.ok, np.float32) if similarity_base is None else similarity_base
    images, margin = store.ok_images(), margin.astype(np.float32)
    digest = digest_of(store.parts_array(), active, margin, base)
    header = RevisionHeader(store.fingerprint, prompts, rule or Rule(), origin, parent, digest, human=human is not None)

    def blocks():  # type: ignore[no-untyped-def]
        for start in range(0, store.ok, BLOCK_ROWS):
            rows, keys = slice(start, start + BLOCK_ROWS), images.slice(start, BLOCK_ROWS)
            yield LabelBlock(
                start, len(keys), active=active[rows], margin=margin[rows], similarity_base=base[rows],
                human=None if human is None else human[rows],
                image_ids=keys["image_id"].combine_chunks(), paths=keys["path"].combine_chunks(),
            )  # fmt: skip

    return store.write_labels(header, blocks())
