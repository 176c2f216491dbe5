"""Stage ``label``: prompts to a label revision, from stored embeddings alone (METHOD §1)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from lanit.errors import LanitError
from lanit.labels import Rule
from pipeline.inspection.compare import Comparison, compare_labels
from pipeline.inspection.inspect_labels import inspect_labels
from pipeline.inspection.statistics import LabelStatistics
from pipeline.labelling.known_labels import image_keys
from pipeline.labelling.label_decisions import Decider, Decision, decide_here
from pipeline.labelling.learned_prompts import prompt_learner
from pipeline.labelling.nearest_words import LearnedWord, learned_words
from pipeline.store.label_revisions import (
    LabelBlock,
    LabelRevision,
    Overrides,
    RevisionFile,
    RevisionHeader,
    digest_of,
    with_overrides,
    write_revision,
)
from pipeline.text_towers import OpaqueText

if TYPE_CHECKING:
    from pipeline.clip_models import ClipModel
    from pipeline.labelling.known_labels import Truth
    from pipeline.labelling.prompt_sets import PromptSet
    from pipeline.store.store import Store


@dataclass(frozen=True)
class LabelReport:
    """What ``lanit label`` did, or would do in a dry run; then ``revision`` is 0.

    created: false in a dry run, and where the newest revision already says exactly this.
    images = labelled + unlabelled + failed; failed: images without an embedding, which carry no label.
    unknown_words: words of the prompts that this CLIP never saw, where it says so.
    human: labels that people set, on or off. not_in_store: rows of the given labels that name no image here.
    human_left_in: the revision before this one where it holds labels by people and this one does not.
    comparison: with the newest revision, in a dry run. learned: what learned prompts are near to; else empty.
    """

    revision: int
    created: bool
    dry_run: bool
    images: int
    labelled: int
    unlabelled: int
    failed: int
    prompt_set: str
    unknown_words: tuple[str, ...]
    human: int
    not_in_store: int
    human_left_in: int | None
    statistics: LabelStatistics
    comparison: Comparison | None
    learned: tuple[LearnedWord, ...]

    def to_json(self) -> dict[str, Any]:
        nested = ("unknown_words", "statistics", "comparison", "learned")
        values = {name: value for name, value in vars(self).items() if name not in nested}
        return values | {
            "unknown_words": list(self.unknown_words),
            "statistics": self.statistics.to_json(),
            "comparison": self.comparison.to_json() if self.comparison else None,
            "learned": [asdict(word) for word in self.learned],
        }


@dataclass(frozen=True)
class _Given:
    """Labels by people, joined to the images of a store. values: int8 (n×N), −1 where CLIP's stand."""

    values: np.ndarray
    not_in_store: int = 0

    def overrides(self, block: LabelBlock) -> np.ndarray:
        given: np.ndarray = self.values[block.start : block.start + block.rows]
        return given


def label(
    store: Store,
    clip: ClipModel,
    prompts: PromptSet,
    rule: Rule,
    progress: Callable[[int, int], None] | None = None,
    *,
    given: Truth | None = None,
    dry_run: bool = False,
    decide: Decider | None = None,
    centres: torch.Tensor | None = None,
) -> LabelReport:
    """Label every embedded image of ``store`` and write a new revision, unless the newest is already the same.

    given: labels by people, which replace CLIP's. dry_run: write nothing; compare with the newest revision instead.
    decide: what works the labels out; none for this process. centres: of the rule ``clusters``, unit-norm (N×k).
    progress: called with (rows done, rows in all). No image is opened: labels are a pure function of embeddings,
    prompts, rule and what people gave (METHOD 4). What prompts have learned is used. Raises LanitError where ``clip``
    is not the model that filled the store, where a prompt is longer than its context, or where no given label belongs
    to an image; the store is then as it was.
    """
    store.check_fingerprint(clip.fingerprint)
    known = _join(store, given, prompts.domains) if given is not None else None
    texts = text_embeddings(clip, prompts)
    blocks = label_blocks(store, texts, prompts, rule, known.overrides if known else None, progress, decide, centres)
    header = _header(store, texts, prompts, rule, "label", None, known.values if known else None, centres)
    before = store.revisions()
    newest = _newest(store)
    comparison = None
    if dry_run:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "labels.parquet"
            write_revision(path, header, blocks)
            made = RevisionFile.open(path, 0, store.fingerprint)
            statistics = inspect_labels(made)
            comparison = compare_labels(newest, made) if newest else None
    else:
        made = store.revision_file(store.write_labels(header, blocks))
        statistics = inspect_labels(made)
    return LabelReport(
        revision=made.number,
        created=made.number not in (0, *before),
        dry_run=dry_run,
        images=store.rows,
        labelled=made.rows - statistics.label_counts[0],
        unlabelled=statistics.label_counts[0],
        failed=store.rows - made.rows,
        prompt_set=prompts.name,
        unknown_words=tuple(clip.unknown_words([*prompts.domains, *prompts.templates])),
        human=statistics.human,
        not_in_store=known.not_in_store if known else 0,
        human_left_in=newest.number if newest and newest.has_human and not made.has_human else None,
        statistics=statistics,
        comparison=comparison,
        learned=learned_words(clip, prompts) if prompts.learned is not None else (),
    )


def relabel(
    store: Store,
    before: LabelRevision,
    texts: tuple[torch.Tensor, torch.Tensor],
    origin: str,
    prompts: PromptSet | None = None,
) -> int:
    """Write a revision like ``before``, by other text embeddings (METHOD 15), and return its number.

    Rule, offsets and weights stay, and so do the labels that people gave; of clusters all labels do, since no text
    decides them. ``before`` labels the images that the store holds now. texts: see :func:`label_blocks`.
    prompts: the set that ``texts`` are of, such as that of ``before`` with what it has learned; that of ``before`` if
    left out.
    """
    rule, prompts = Rule(**before.rule), prompts or before.prompt_set
    known = _Given(np.where(before.human, before.active, -1).astype(np.int8)) if before.human is not None else None
    header = _header(store, texts, prompts, rule, origin, before.number, known.values if known else None)
    again = Rule("given") if rule.kind == "clusters" else rule
    blocks = label_blocks(store, texts, prompts, again, known.overrides if known else None)
    if rule.kind == "clusters":
        blocks = (
            block.relabelled(before.active[block.start : block.start + block.rows], block.human if known else None)
            for block in blocks
        )
    return store.write_labels(header, blocks)


def _join(store: Store, given: Truth, domains: tuple[str, ...]) -> _Given:
    rows = given.align(*image_keys(store))
    unused = len(given.keys) - len(np.unique(rows[rows >= 0]))
    return _Given(given.values(rows, domains), unused)


def _newest(store: Store) -> RevisionFile | None:
    """The newest revision that can be read, if there is one."""
    try:
        return store.revision_file()
    except LanitError:
        return None


def _header(
    store: Store,
    texts: tuple[torch.Tensor, torch.Tensor],
    prompts: PromptSet,
    rule: Rule,
    origin: str,
    parent: int | None,
    given: np.ndarray | None,
    centres: torch.Tensor | None = None,
) -> RevisionHeader:
    """What the revision will say about itself; the digest covers everything that decides the labels."""
    decisive = [store.parts_array(), *(text.numpy() for text in texts), *([] if given is None else [given])]
    decisive += [] if centres is None else [centres.numpy()]
    return RevisionHeader(
        store.fingerprint, prompts, rule.to_json(), origin, parent, digest_of(*decisive), given is not None
    )


def text_embeddings(clip: ClipModel, prompts: PromptSet) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit-norm text embeddings of the domains, float32 (N×k), and of the base prompt, (k), on the CPU.

    What the prompts have learned is used. A text tower that cannot learn prompts is asked for whole sentences, which is
    the same mean over templates.
    """
    with torch.no_grad():
        if isinstance(clip.text, OpaqueText) and prompts.learned is None:
            sentences = clip.encode_texts(prompts.sentences())
            means = torch.stack([group.mean(dim=0) for group in sentences.split(len(prompts.templates))])
            unit = F.normalize(means, dim=-1)
            domains, base = unit[:-1], unit[-1]
        else:
            domains, base = prompt_learner(clip.text, prompts).to(clip.device).text_features()
    return domains.float().cpu(), base.float().cpu()


def label_blocks(
    store: Store,
    texts: tuple[torch.Tensor, torch.Tensor],
    prompts: PromptSet,
    rule: Rule,
    overrides: Overrides | None = None,
    progress: Callable[[int, int], None] | None = None,
    decide: Decider | None = None,
    centres: torch.Tensor | None = None,
) -> Iterator[LabelBlock]:
    """Labels of every embedded image, in store order and in blocks; no more than a few parts are in memory at once.

    texts: unit-norm float32 embeddings of the domains (N×k) and of the base (k). overrides: labels that people gave.
    decide: what works the labels out; none for this process. centres: see :func:`label`.
    """
    decision = Decision(rule, *texts, torch.tensor(prompts.offsets), torch.tensor(prompts.weights), centres)
    start = 0
    for keys, decided in (decide or decide_here)(store, decision):
        first = 0
        for active, margin, similarity_base in decided:
            rows = len(active)
            ids, paths = (keys[name].slice(first, rows).combine_chunks() for name in ("image_id", "path"))
            block = LabelBlock(
                start, rows, active=active, margin=margin, similarity_base=similarity_base, image_ids=ids, paths=paths
            )
            yield block if overrides is None else with_overrides(block, overrides(block))
            first, start = first + rows, start + rows
            if progress is not None:
                progress(start, store.ok)
