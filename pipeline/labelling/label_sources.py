"""Where labels come from: phrases for CLIP, labels that people gave, or the latter alone (METHOD 4); or clusters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lanit.errors import UsageError
from pipeline.labelling.known_labels import FOLDERS, Truth, folder_names, folder_truth, image_keys, read_truth
from pipeline.labelling.people import read_people
from pipeline.prompts.learned_prompts import LearnedPrompts
from pipeline.prompts.prompt_sets import PromptSet, prompt_set_of

if TYPE_CHECKING:
    from lanit.labels import RuleKind
    from pipeline.store.store import Store


@dataclass(frozen=True)
class LabelSource:
    """prompts: the domains, as phrases. rule: what labels images unless chosen. given: the labels of a table or of
    folders, where they are all the labelling there is. answers: labels by people to keep, if any."""

    prompts: PromptSet
    rule: RuleKind
    given: Truth | None = None
    answers: Truth | None = None


def check_sources(
    prompts: str | None,
    labels: str | None,
    from_folders: bool,
    from_table: Path | None,
    rule: str | None = None,
    *,
    clusters: int | None = None,
    words: Path | None = None,
    bound: float | None = None,
    without_people: bool = False,
) -> None:
    """Raise UsageError where options of ``lanit label`` contradict each other, before anything is read.

    bound: of ``--k`` or ``--threshold``.
    """
    if sum((prompts is not None, from_folders, from_table is not None, clusters is not None)) != 1:
        message = "give one of --prompts, --from-folders, --from-table and --clusters"
        raise UsageError(message, "Try: lanit label --help")
    if clusters is not None and (rule is not None or bound is not None):
        message = "--rule, --k and --threshold do not go with --clusters, which label each image once"
        raise UsageError(message, "Leave them out.")
    if clusters is None and words is not None:
        raise UsageError("--words are the names of --clusters", "Add --clusters 10, or leave --words out.")
    if prompts is None and clusters is None and labels is not None:
        raise UsageError("--labels goes with --prompts", "Leave it out, or give the phrases with --prompts FILE.")
    if labels is not None and without_people:
        raise UsageError("--labels are labels by people, and --without-people leaves those out", "Drop one of the two.")
    if rule == "given" and without_people:
        raise UsageError("--rule given has labels by people alone, and --without-people none", "Drop one of the two.")


def label_source(
    store: Store,
    prompts: PromptSet | LearnedPrompts | None,
    *,
    noun: str | None = None,
    labels: str | None = None,
    from_table: Path | None = None,
    rule: str | None = None,
) -> LabelSource:
    """Put the options of ``lanit label`` together.

    prompts: of ``--prompts``, or the names of clusters. labels: a CSV or Parquet file, or ``folders``. Without prompts,
    the domains too are taken from where the labels are: from the table from_table, or else from the folders. Raises
    LanitError where the prompts were learned with another CLIP than that of ``store``, and where ``rule`` is ``given``
    and no person said anything.
    """
    if prompts is not None:
        if isinstance(prompts, LearnedPrompts):
            prompts.check_model(store.fingerprint)
            prompts = prompts.prompts
        answers = _known(store, labels, prompts.domains) if labels is not None else None
        if rule == "given" and answers is None and not read_people(store).kept:
            message = "--rule given needs labels by people, and the store has none"
            raise UsageError(message, "Add --labels FILE, or --labels folders.")
        return LabelSource(prompts, "adaptive", answers=answers)
    if from_table is not None:
        columns, advice = read_truth(from_table, None, blanks=True).domains, "Rename that column, or leave it out."
        named = prompt_set_of(columns, str(from_table), from_table.stem, noun, advice)
        return LabelSource(named, "given", read_truth(from_table, named.domains, blanks=True))
    advice = "Say what the images show in a table instead: --from-table FILE"
    named = prompt_set_of(folder_names(image_keys(store)[1]), "the folders of the images", FOLDERS, noun, advice)
    return LabelSource(named, "given", _known(store, FOLDERS, named.domains))


def _known(store: Store, labels: str, domains: tuple[str, ...]) -> Truth:
    if labels == FOLDERS and not Path(labels).is_file():
        return folder_truth(image_keys(store)[1], domains)
    return read_truth(Path(labels), domains, blanks=True)
