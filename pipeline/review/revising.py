"""What a press makes: a revision with other offsets, or a line in the prompt file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lanit.errors import UsageError
from pipeline.files import write_bytes
from pipeline.prompts.prompt_sets import PromptSet, read_prompt_set
from pipeline.review.prompt_file import with_offsets, with_phrase
from pipeline.review.trying import check_phrase
from pipeline.review.workplace import Workplace


def revise(place: Workplace, offsets: Mapping[int, float]) -> dict[str, Any]:
    """Label the store by the phrases of the revision shown, with other ``offsets``, those added since, and what people
    say; then go on with that revision.

    Returns its number, whether it is new, and for each phrase how many labels it gained and lost. Raises UsageError
    where the rule takes no offsets or no text decides the labels, LanitError without a CLIP.
    """
    from pipeline.labelling.label import HowToLabel, label

    with place.revising:
        before = place.labelling
        rule = before.revision.rule
        if not rule.by_similarity:
            message = f"a revision of {rule.describe()} is not made of phrases"
            raise UsageError(message, "What people say is kept; lanit label applies it.")
        prompts = _prompts(before.revision.prompt_set, offsets, place.added)
        made = label(place.store, place.clip, prompts, HowToLabel(rule))
        place.show(made.revision)
        changes = []
        for n, name in enumerate(place.labelling.revision.domains):
            now = place.labelling.columns[n].labels
            was = before.columns[n].labels if n < len(before.revision.domains) else ~(now | True)
            changes.append({"name": name, "gained": int((now & ~was).sum()), "lost": int((was & ~now).sum())})
        place.added.clear()
        return {"revision": made.revision, "created": made.created, "changes": changes, "people": made.people.applied}


def _prompts(prompts: PromptSet, offsets: Mapping[int, float], added: list[str]) -> PromptSet:
    moved = tuple(offsets.get(n, own) for n, own in enumerate(prompts.offsets)) + (0.0,) * len(added)
    weights = prompts.weights + (1.0,) * len(added)
    return replace(prompts, domains=prompts.domains + tuple(added), offsets=moved, weights=weights)


def add_phrase(place: Workplace, text: str) -> dict[str, Any]:
    """Put a phrase at the end of the prompt file, which is replaced whole; the next revision has it.

    Raises UsageError where no prompt file was named or it can be no phrase, LanitError where the file cannot be read or
    written; it is then as it was.
    """
    with place.revising:
        if place.prompts is None:
            message = "the page was started without a prompt file"
            raise UsageError(message, "Start it again: lanit review --prompts FILE")
        phrase = check_phrase(place, text)
        before = read_prompt_set(str(place.prompts))
        if phrase.casefold() not in (each.casefold() for each in before.domains):
            write_bytes(place.prompts, with_phrase(place.prompts, phrase))
        place.added.append(phrase)
        return {"file": place.prompts.name, "phrase": phrase}


def write_offsets(place: Workplace) -> dict[str, Any]:
    """Write the offsets of the revision shown to the lines of the prompt file that have its phrases; the file is
    replaced whole, and its comments stay.

    Returns its name and how many lines changed. Raises UsageError where no prompt file was named, LanitError where the
    file cannot be read or written; it is then as it was.
    """
    with place.revising:
        if place.prompts is None:
            message = "the page was started without a prompt file"
            raise UsageError(message, "Start it again: lanit review --prompts FILE")
        before, shown = read_prompt_set(str(place.prompts)), place.labelling.revision.prompt_set
        wanted = {phrase.casefold(): offset for phrase, offset in zip(shown.domains, shown.offsets, strict=True)}
        own = zip(before.domains, before.offsets, strict=True)
        changed = {phrase: wanted[phrase.casefold()] for phrase, offset in own
                   if wanted.get(phrase.casefold(), offset) != offset}  # fmt: skip
        if changed:
            write_bytes(place.prompts, with_offsets(place.prompts, changed))
        return {"file": place.prompts.name, "written": len(changed)}
