"""Where labels come from: phrases for CLIP, labels that people gave, or the latter alone (METHOD 4); or clusters."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lanit.errors import UsageError
from lanit.rules import K_MEANS, Rule
from pipeline.labelling.fill_request import Fill
from pipeline.labelling.image_folders import image_folders
from pipeline.labelling.known_labels import FOLDERS, Truth, fitted, folder_names, folder_truth, image_keys, read_truth
from pipeline.labelling.people import read_people
from pipeline.prompts.learned_prompts import LearnedPrompts, read_prompts
from pipeline.prompts.prompt_sets import STANDARD_INPUT, PromptSet, prompt_set_of, prompt_set_of_words
from pipeline.stability.views import Stabilise

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.clip.models import ClipModel
    from pipeline.labelling.label import HowToLabel
    from pipeline.store.store import Store


@dataclass(frozen=True)
class LabelRequest:
    """What ``lanit label`` was asked for; each option as it was typed, none where it was not.

    phrases: those typed after the command, or "-" alone for standard input.
    rule: as :meth:`lanit.rules.Rule.parse` takes it. people: whether labels by people that the store keeps count;
    offsets_from_people: whether offsets are fitted to them.
    fill: whether labels that are not known follow from those that are; keep: the share of the latter to take.
    by: how clusters are found. seed: of the clusters, and of that share. stabilise: by crops of some images.
    """

    phrases: tuple[str, ...] = ()
    prompts: str | None = None
    noun: str | None = None
    rule: str | None = None
    labels: str | None = None
    from_folders: bool = False
    from_table: Path | None = None
    clusters: int | None = None
    by: str | None = None
    words: Path | None = None
    people: bool = True
    offsets_from_people: bool = False
    fill: bool = False
    keep: float | None = None
    seed: int = 0
    stabilise: Stabilise = field(default_factory=Stabilise)

    def check(self) -> None:
        """Raise UsageError where the options contradict each other, before anything is read."""
        by_words = (bool(self.phrases), self.prompts is not None)
        if sum((*by_words, self.from_folders, self.from_table is not None, self.by_clusters)) != 1:
            message = "give phrases, or one of --prompts, --from-folders, --from-table and --clusters"
            raise UsageError(message, "Try: lanit label --help")
        if self.by_clusters and self.rule is not None:
            raise UsageError("--rule does not go with --clusters, which label each image once", "Leave --rule out.")
        if self.stabilise.learn and self.stabilise.offsets:
            raise UsageError(
                "--learn-prompts learns offsets, too, and --choose-offsets chooses them", "Drop one of the two."
            )
        if not self.by_clusters and self.by is not None:
            raise UsageError("--by is how --clusters are found", "Add --clusters 10, or leave --by out.")
        if self.by_clusters:
            Rule("clusters", self.clusters or 0, by=self.by or K_MEANS)
        if not self.by_clusters and self.words is not None:
            raise UsageError("--words are the names of --clusters", "Add --clusters 10, or leave --words out.")
        if self.labels is not None and (self.from_folders or self.from_table is not None):
            raise UsageError("--labels goes with phrases", "Leave it out, or give the phrases with --prompts FILE.")
        if self.labels is not None and not self.people:
            message = "--labels are labels by people, and --without-people leaves those out"
            raise UsageError(message, "Drop one of the two.")
        if self.rule_or(Rule()).kind == "given" and not self.people:
            message = "--rule given has labels by people alone, and --without-people none"
            raise UsageError(message, "Drop one of the two.")
        self._check_fill()
        if self.offsets_from_people and not (self.phrases or self.prompts):
            raise UsageError("--offsets-from-people goes with phrases", "Give them with --prompts FILE.")
        if self.offsets_from_people and (self.stabilise.offsets or not self.people):
            option = "--choose-offsets" if self.stabilise.offsets else "--without-people"
            raise UsageError(f"--offsets-from-people does not go with {option}", "Drop one of the two.")

    def _check_fill(self) -> None:
        from_labels = self.from_folders or self.from_table is not None
        if self.fill and self.by_clusters:
            raise UsageError("--fill goes with known labels, not with --clusters", "Drop one of the two.")
        if self.fill and not from_labels and not self.people:
            message = "--fill learns from labels by people, and --without-people leaves those out"
            raise UsageError(message, "Drop one of the two.")
        if self.fill and self.rule is not None and Rule.parse(self.rule).kind not in ("adaptive", "argmax"):
            message = f"--fill decides by the adaptive rule or by argmax, not by {self.rule}"
            raise UsageError(message, "Leave --rule out.")
        if self.keep is not None and not (self.fill and from_labels):
            message = "--keep takes a share of known labels, to see what --fill makes of them"
            raise UsageError(message, "Try: lanit label --from-table FILE --fill --keep 0.1")

    @property
    def filling(self) -> Fill | None:
        """What --fill and --keep come to."""
        return Fill(1.0 if self.keep is None else self.keep, self.seed) if self.fill else None

    @property
    def by_clusters(self) -> bool:
        return self.clusters is not None

    def rule_or(self, usual: Rule) -> Rule:
        """The rule asked for, or else ``usual``."""
        return usual if self.rule is None else Rule.parse(self.rule)


LabelSource = tuple[PromptSet, "HowToLabel"]
"""The domains, as phrases, and what decides labels beside them."""


def label_source(store: Store, request: LabelRequest) -> LabelSource | None:
    """What a checked request comes to; none for clusters, which CLIP has to name (:func:`cluster_source`).

    Without prompts, the domains too are taken from where the labels are: from a table, or else from the folders. Raises
    LanitError where the prompts were learned with another CLIP than that of ``store``, and where the rule is ``given``
    and no person said anything.
    """
    from pipeline.labelling.label import HowToLabel

    if request.by_clusters:
        return None
    if request.prompts is not None or request.phrases:
        prompts = _prompts(request)
        if isinstance(prompts, LearnedPrompts):
            prompts.check_model(store.fingerprint)
            prompts = prompts.prompts
        answers, rule = _answers(store, request, prompts), request.rule_or(Rule())
        if (rule.kind == "given" or request.fill) and answers is None and not read_people(store).kept:
            asked = "--fill" if request.fill else "--rule given"
            message = f"{asked} needs labels by people, and the store has none"
            raise UsageError(message, "Add --labels FILE, or --labels folders.")
        return prompts, HowToLabel(
            rule, answers=answers, people=request.people, refit=request.offsets_from_people, fill=request.filling
        )
    if request.from_table is not None:
        given = read_truth(request.from_table, None, blanks=True)
        advice = "Rename that column or class, or leave it out."
        named = prompt_set_of(given.domains, str(request.from_table), request.from_table.stem, request.noun, advice)
        given = told(replace(given, domains=named.domains), store, image_keys(store))
    else:
        names = folder_names(image_folders(store))
        advice = "Say what the images show in a table instead: --from-table FILE"
        named = prompt_set_of(names, "the folders of the images", FOLDERS, request.noun, advice)
        given = _known(store, FOLDERS, named.domains)
    rule = Rule("argmax" if _are_classes(given) else "adaptive") if request.fill else Rule("given")
    return named, HowToLabel(request.rule_or(rule), given=given, people=request.people, fill=request.filling)


def _are_classes(given: Truth) -> bool:
    """Whether each image has just one of several labels, so that the others will have one, too."""
    return given.known is None and given.labels.shape[1] > 1 and bool((given.labels.sum(axis=1) == 1).all())


def _prompts(request: LabelRequest) -> PromptSet | LearnedPrompts:
    name = STANDARD_INPUT if request.phrases == (STANDARD_INPUT,) else request.prompts
    return prompt_set_of_words(request.phrases, request.noun) if name is None else read_prompts(name, request.noun)


def cluster_source(store: Store, request: LabelRequest, clip: ClipModel) -> LabelSource:
    """The clusters of the images of ``store``, each named by a word."""
    from pipeline.labelling.cluster_labels import find_clusters
    from pipeline.labelling.label import HowToLabel
    from pipeline.showing import console
    from pipeline.words.vocabulary import read_vocabulary

    words = read_vocabulary(request.words)
    with console.progress("reading words", "words") as advance:
        found = find_clusters(
            store,
            clip,
            request.clusters or 0,
            words,
            noun=request.noun,
            seed=request.seed,
            by=request.by or K_MEANS,
            progress=advance,
        )
    answers = _answers(store, request, found.prompts)
    return found.prompts, HowToLabel(found.rule, answers=answers, people=request.people, head=found.head)


def _answers(store: Store, request: LabelRequest, prompts: PromptSet) -> Truth | None:
    return _known(store, request.labels, prompts.domains) if request.labels is not None else None


def _known(store: Store, labels: str, domains: tuple[str, ...]) -> Truth:
    if labels == FOLDERS and not Path(labels).is_file():
        folders = image_folders(store)
        if folders.shared:
            from pipeline.showing import console

            console.note(f"{folders.shared:,} images have copies in other folders, and the labels of all of them")
        return folder_truth(folders, domains)
    return told(read_truth(Path(labels), domains, blanks=True), store, image_keys(store))


def told(truth: Truth, store: Store | None, keys: tuple[pa.ChunkedArray, pa.ChunkedArray]) -> Truth:
    """``truth`` of a table with the names of images as the store has them; what it was taken for is told.

    store: none where it is away. keys: image_id and path of the images.
    """
    from pipeline.showing import console

    found = fitted(truth, store, *keys)
    console.note(found.understood)
    return found
