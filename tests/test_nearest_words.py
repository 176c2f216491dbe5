"""The nearest words of learned prompts: cosines in CLIP's table of tokens, by hand."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from lanit.errors import LanitError
from lanit.prompts import PromptLearner
from pipeline.clip.models import load_clip
from pipeline.clip.text_towers import OpaqueText
from pipeline.prompts.learned_prompts import with_context
from pipeline.prompts.nearest_words import learned_words
from pipeline.prompts.prompt_sets import PromptSet

PROMPTS = PromptSet(("red", "green"), ("a big photo of {}.", "the {} image"), ("a big photo.", "the image"), "test")


def context_of(clip: Any, prompts: PromptSet = PROMPTS) -> torch.Tensor:
    return PromptLearner(clip.text, prompts.domains, prompts.templates, prompts.bases).context.detach().clone()


def by_hand(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.double(), b.double()
    return float((a * b).sum() / math.sqrt(float((a * a).sum() * (b * b).sum())))


def test_prompts_that_learned_nothing_are_nearest_to_their_own_words(tiny_clip: Any) -> None:
    words = learned_words(tiny_clip, PROMPTS, context_of(tiny_clip))
    assert [(word.template, word.position, word.initial) for word in words] == [
        *((PROMPTS.templates[0], n, word) for n, word in enumerate(("a", "big", "photo", "of"))),
        (PROMPTS.templates[1], 0, "the"),
    ]
    for word in words:
        assert word.nearest[0].token == word.initial
        assert word.nearest[0].cosine == pytest.approx(1, abs=1e-5)
        assert word.moved == 0


def test_cosines_and_distances_are_those_computed_one_by_one(tiny_clip: Any) -> None:
    context = context_of(tiny_clip)
    table = tiny_clip.model.token_embedding.weight
    ids = [tiny_clip.tokenizer.encode(text)[0] for text in ("a", "big", "photo", "of")]
    target, other = (tiny_clip.tokenizer.encode(text)[0] for text in ("striped", "cat"))
    context[0, 1] = 3 * table[target] + 0.001
    context[0, 2] = -2 * table[other]
    words = learned_words(tiny_clip, PROMPTS, context, count=7)
    texts = [tiny_clip.text.token_text(n) for n in range(len(table))]
    assert words[1].nearest[0].token == "striped"
    assert "cat" not in [near.token for near in words[2].nearest]
    for position, word in enumerate(words[:4]):
        assert word.length == pytest.approx(float(table[ids[position]].norm()), rel=1e-5)
        assert word.moved == pytest.approx(float((context[0, position] - table[ids[position]]).norm()), rel=1e-5)
        cosines = [near.cosine for near in word.nearest]
        assert len(cosines) == 7
        assert cosines == sorted(cosines, reverse=True)
        for near in word.nearest:
            matches = [n for n, text in enumerate(texts) if text == near.token]
            assert any(
                math.isclose(by_hand(table[n], context[0, position]), near.cosine, abs_tol=1e-4) for n in matches
            )


def test_tokens_without_an_embedding_and_words_never_seen_are_no_neighbours(tiny_clip: Any) -> None:
    """Of the sample CLIP most embeddings are zero, and its start, end and padding are no words."""
    sample = load_clip("sample")
    prompts = PromptSet(("smiling",), ("a face with {}.",), ("a face with.",), "test")
    context = torch.randn(context_of(sample, prompts).shape, generator=torch.Generator().manual_seed(0))
    (first, *_) = learned_words(sample, prompts, context, count=1000)
    tokens = {near.token for near in first.nearest}
    assert tokens == {"eye-", "glasses", "a", "with"} | (set(sample.vocabulary or ()) - {"eyeglasses"})
    assert all(math.isfinite(near.cosine) for near in first.nearest)
    unlisted = dataclasses.replace(sample, vocabulary=None)
    (first, *_) = learned_words(unlisted, prompts, context, count=1000)
    others = {near.token for near in first.nearest} - tokens
    assert "." in others, "without a list, whatever has an embedding"
    assert not any("_of_text" in token for token in others)
    assert len(others) < 10


def test_pieces_of_words_are_marked_and_always_printable(tiny_clip: Any) -> None:
    tower = tiny_clip.text
    assert [tower.token_text(token) for token in tower.tokenize("photo eyeglasses")] == ["photo", "eye-", "glasses"]
    texts = [tower.token_text(token) for token in range(49408)]
    assert all(text and text.isprintable() for text in texts)
    table = tower.token_table()
    assert (table.dtype, tuple(table.shape), table.requires_grad) == (torch.float32, (49408, 16), False)


def test_learned_sets_need_no_context_and_others_are_refused(tiny_clip: Any) -> None:
    context = context_of(tiny_clip) + 0.1
    assert learned_words(tiny_clip, with_context(PROMPTS, context)) == learned_words(tiny_clip, PROMPTS, context)
    with pytest.raises(LanitError, match="have learned nothing"):
        learned_words(tiny_clip, PROMPTS)
    opaque = dataclasses.replace(tiny_clip, make_text=lambda model, _: OpaqueText(model, "test"))
    with pytest.raises(LanitError, match="cannot be used with the text tower"):
        learned_words(opaque, PROMPTS, context)


def test_a_word_that_the_model_never_saw_has_no_length(tiny_clip: Any) -> None:
    sample = load_clip("sample")
    prompts = PromptSet(("smiling",), ("drawing with {}.",), ("drawing with.",), "test")
    words = learned_words(sample, prompts, context_of(sample, prompts))
    assert (words[0].length, words[0].moved) == (0, 0)
    assert all(near.cosine == 0 for near in words[0].nearest)
    assert words[1].nearest[0].token == "with"
