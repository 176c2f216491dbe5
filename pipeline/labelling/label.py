"""Stage ``label``: prompts to a label revision, from stored embeddings alone (METHOD §1)."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lanit.labels import EmbeddedPrompts
from lanit.linear_head import LinearHead, as_array
from lanit.rules import Rule
from pipeline.labelling.chance import phrases_of_chance, warn_of_chance
from pipeline.labelling.fill_request import Fill, kept_rows
from pipeline.labelling.known_labels import image_keys
from pipeline.labelling.label_decisions import Decider, Decision, decide_here
from pipeline.labelling.people import add_answers, read_people
from pipeline.labelling.people_labels import AppliedLabels, PeopleCounts, answers_of, apply_people
from pipeline.progress import Progress
from pipeline.prompts.embed_prompts import prompt_vectors
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
from pipeline.store.store_clip import warn_of_strangers

if TYPE_CHECKING:
    from pipeline.clip.models import ClipModel
    from pipeline.labelling.known_labels import Truth
    from pipeline.prompts.nearest_words import LearnedWord
    from pipeline.prompts.prompt_sets import PromptSet
    from pipeline.store.fill_figures import FillFigures
    from pipeline.store.store import Store


@dataclass(frozen=True)
class HowToLabel:
    """What decides labels beside the prompts. rule: for images of which nobody says anything.

    given: labels of a table or of folders, which replace CLIP's in this revision alone. answers: labels by people,
    which are kept, and replace any other here and in later revisions. people: whether those kept do so here.
    refit: whether offsets are fitted to what people said first, by :func:`pipeline.inspection.label_report`.
    fill: how a head is fitted to what is known, which then decides the rest. head: of the rule ``clusters``. decide:
    what works the labels out; none for this process.
    """

    rule: Rule = field(default_factory=Rule)
    given: Truth | None = None
    answers: Truth | None = None
    people: bool = True
    refit: bool = False
    fill: Fill | None = None
    head: LinearHead | None = None
    decide: Decider | None = None


@dataclass(frozen=True)
class Labelled:
    """What :func:`label` made, or :func:`trial` would. revision: its number, 0 in a trial. file: where it lies.

    created: false in a trial, and where the newest revision already says exactly this.
    images: of the store; failed: those without an embedding, which carry no label.
    unknown_words: words of the prompts that this CLIP never saw, where it says so.
    chance: phrases that tell no more than chance, where similarities decide. warnings: sentences about them and the
    images.
    people: labels by people. not_in_store: rows of the labels given that name no image here.
    learned: what learned prompts are near to; else empty. embedded: the prompts, as CLIP saw them; head: what decided
    beside them, if anything did.
    """

    revision: int
    file: RevisionFile
    created: bool
    images: int
    failed: int
    unknown_words: tuple[str, ...]
    chance: tuple[str, ...]
    warnings: tuple[str, ...]
    people: PeopleCounts
    not_in_store: int
    learned: tuple[LearnedWord, ...]
    embedded: EmbeddedPrompts
    head: LinearHead | None


def label(
    store: Store, clip: ClipModel, prompts: PromptSet, how: HowToLabel | Rule, progress: Progress | None = None
) -> Labelled:
    """Label every embedded image of ``store`` and write a new revision, unless the newest is already the same.

    how: or the rule alone. No image is opened: labels are a pure function of embeddings, prompts, rule and what people
    said (METHOD 4). What prompts have learned is used. Raises LanitError where ``clip`` is not the model that filled
    the store, where a prompt is longer than its context, or where no label that was given belongs to an image; the
    store is then as it was.
    """
    work = _prepare(store, clip, prompts, how, keep=True)
    before = store.revisions()
    number = store.write_labels(work.header, work.blocks(progress))
    return work.result(store.revision_file(number), number not in before)


@contextlib.contextmanager
def trial(
    store: Store, clip: ClipModel, prompts: PromptSet, how: HowToLabel | Rule, progress: Progress | None = None
) -> Iterator[Labelled]:
    """What :func:`label` would make, for as long as the block lasts; the store stays as it is."""
    work = _prepare(store, clip, prompts, how, keep=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.parquet"
        write_revision(path, work.header, work.blocks(progress))
        yield work.result(RevisionFile.open(path, 0, store.fingerprint), created=False)


@dataclass(frozen=True)
class _Work:
    """A revision about to be made. known: labels that replace CLIP's, if there are any."""

    store: Store
    clip: ClipModel
    prompts: PromptSet
    how: HowToLabel
    embedded: EmbeddedPrompts
    header: RevisionHeader
    known: _Known | None
    head: LinearHead | None
    people: PeopleCounts
    not_in_store: int

    def blocks(self, progress: Progress | None) -> Iterator[LabelBlock]:
        overrides = self.known.overrides if self.known else None
        rule, decide = self.header.rule, self.how.decide
        return label_blocks(self.store, self.embedded, rule, overrides, progress, decide, self.head)

    def result(self, revision: RevisionFile, created: bool) -> Labelled:
        chance: tuple[str, ...] = ()
        if self.header.rule.by_similarity:
            chance = phrases_of_chance(self.store, self.clip, self.prompts, self.embedded)
        return Labelled(
            revision=revision.number,
            file=revision,
            created=created,
            images=self.store.rows,
            failed=self.store.rows - revision.rows,
            unknown_words=tuple(self.clip.unknown_words([*self.prompts.domains, *self._templates])),
            chance=chance,
            warnings=(*warn_of_strangers(self.store, self.clip), *warn_of_chance(chance)),
            people=self.people,
            not_in_store=self.not_in_store,
            learned=self._learned_words(),
            embedded=self.embedded,
            head=self.head,
        )

    def _learned_words(self) -> tuple[LearnedWord, ...]:
        if self.prompts.learned is None:
            return ()
        from pipeline.prompts.nearest_words import learned_words

        return self.clip.run(learned_words, self.prompts)

    @property
    def _templates(self) -> tuple[str, ...]:
        """Those that decide labels: clusters are named in templates, which are none of the user's words."""
        return () if self.header.rule.kind == "clusters" else self.prompts.templates


@dataclass(frozen=True)
class _Known:
    """Labels that replace CLIP's. given: of a table, int8 (n×N), −1 where CLIP's stand. people: over those."""

    domains: int
    given: np.ndarray | None
    people: AppliedLabels | None

    def overrides(self, block: LabelBlock) -> np.ndarray:
        return self.values(block.start, block.rows)

    def values(self, start: int, rows: int) -> np.ndarray:
        """Of ``rows`` images from ``start`` on: int8 (rows×N), 1 on, 0 off, −1 where nobody says anything."""
        none = np.full((rows, self.domains), -1, np.int8)
        values = none if self.given is None else self.given[start : start + rows]
        if self.people is None:
            return values
        said = self.people.values(start, rows, self.domains)
        return np.where(said >= 0, said, values)

    def decisive(self) -> list[np.ndarray]:
        """What the digest of a revision covers."""
        people = self.people
        given = [] if self.given is None else [self.given]
        return given + ([] if people is None else [people.rows, people.columns, people.on])


def _prepare(store: Store, clip: ClipModel, prompts: PromptSet, how: HowToLabel | Rule, *, keep: bool) -> _Work:
    """keep: whether answers are written to the disk, which is the last thing done here."""
    how = HowToLabel(how) if isinstance(how, Rule) else how
    store.check_fingerprint(clip.fingerprint)
    given = None if how.given is None else how.given.values(how.given.align(*image_keys(store)), prompts.domains)
    left_out = None
    if given is not None and how.fill is not None:
        kept = kept_rows(given, image_keys(store)[0].to_pylist(), how.fill)[:, None]
        given, left_out = np.where(kept, given, -1).astype(np.int8), np.where(kept, -1, given).astype(np.int8)
    answers, not_in_store = None, 0
    if how.answers is not None:
        answers, not_in_store = answers_of(how.answers, store, prompts.domains)
    embedded = prompt_vectors(clip, prompts)
    applied, counts = None, PeopleCounts()
    if how.people:
        people = read_people(store)
        if keep and (answers is not None or (people.given and not people.stored)):
            people = add_answers(store, [] if answers is None else answers)
        elif answers is not None:
            people = people.plus(answers)
        found = apply_people(people, store, prompts.domains)
        applied, counts = (found if len(found.rows) else None), found.counts
    known = None if given is None and applied is None else _Known(len(prompts.domains), given, applied)
    head, rule, figures = how.head, how.rule, None
    if how.fill is not None:
        from pipeline.labelling.fill import fill

        values = (known or _Known(len(prompts.domains), None, None)).values(0, store.ok)
        filled = fill(store, embedded, prompts.domains, rule, values, left_out, how.fill)
        head, figures, rule = filled.head, filled.figures, Rule("filled") if filled.head else rule
    header = _header(store, embedded, prompts, rule, "label", None, known, head, figures)
    return _Work(
        store=store, clip=clip, prompts=prompts, how=how, embedded=embedded, header=header, known=known, head=head,
        people=counts, not_in_store=not_in_store,
    )  # fmt: skip


def relabel(
    store: Store,
    before: LabelRevision,
    embedded: EmbeddedPrompts,
    origin: str,
    prompts: PromptSet | None = None,
) -> int:
    """Write a revision like ``before``, by prompts embedded anew (METHOD 15), and return its number.

    Rule, offsets and weights stay, and so do the labels by people that ``before`` has, whatever they said since; of
    clusters, and of labels filled in, all labels do, since no text decides them. ``before`` labels the images that the
    store holds now.
    prompts: the set that was embedded, such as that of ``before`` with what it has learned; that of ``before`` if left
    out.
    """
    rule, prompts, known = before.rule, prompts or before.prompt_set, None
    if before.human is not None:
        values = np.where(before.human, before.active, -1).astype(np.int8)
        known = _Known(len(before.domains), values, None)
    header = _header(store, embedded, prompts, rule, origin, before.number, known, fill=before.fill)
    again = Rule("given") if rule.by_head else rule
    blocks = label_blocks(store, embedded, again, known.overrides if known else None)
    if rule.by_head:
        blocks = (
            block.relabelled(before.active[block.start : block.start + block.rows], block.human if known else None)
            for block in blocks
        )
    return store.write_labels(header, blocks)


def _header(
    store: Store,
    embedded: EmbeddedPrompts,
    prompts: PromptSet,
    rule: Rule,
    origin: str,
    parent: int | None,
    known: _Known | None,
    head: LinearHead | None = None,
    fill: FillFigures | None = None,
) -> RevisionHeader:
    """What the revision will say about itself; the digest covers everything that decides the labels."""
    decisive = [
        store.parts_array(),
        as_array(embedded.domains),
        as_array(embedded.base),
        *([] if known is None else known.decisive()),
    ]
    decisive += [] if head is None else [as_array(values) for values in head.decisive]
    return RevisionHeader(
        fingerprint=store.fingerprint, prompt_set=prompts, rule=rule, origin=origin, parent=parent,
        inputs_sha256=digest_of(*decisive), human=known is not None, fill=fill,
    )  # fmt: skip


def label_blocks(
    store: Store,
    embedded: EmbeddedPrompts,
    rule: Rule,
    overrides: Overrides | None = None,
    progress: Progress | None = None,
    decide: Decider | None = None,
    head: LinearHead | None = None,
) -> Iterator[LabelBlock]:
    """Labels of every embedded image, in store order and in blocks; no more than a few parts are in memory at once.

    overrides: labels that people gave. decide: what works the labels out; none for this process.
    head: of the rules ``clusters`` and ``filled``.
    """
    decision = Decision(rule, embedded.arrays(), None if head is None else head.arrays())
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
