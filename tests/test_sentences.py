"""CLIP reads the sentence that a prompt file writes, whatever its marks; the base is that without the phrase."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from lanit.errors import LanitError
from lanit.prompts import PromptLearner
from lanit.sentences import touches_phrase, without_phrase
from pipeline.clip.models import load_clip
from pipeline.prompts.embed_prompts import embed_prompts
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.training.run_setup import _warn_of_touching

TEMPLATES = (
    "a photo of {}.", "many {}s.", "a non{} face", "{}-like face", "{}", "{}!", "a {}'s hat", "“{}”", "({})", "#{}",
    "a photo: {}…", "%{}%", "一张{}的照片", "{}の写真", "photo{}photo", "don't {}", "it's {}'ll", "x&amp;{}", "a_{}_b",
    "A PHOTO OF {}?!",
)  # fmt: skip
PHRASES = (
    "cat", "Washington D.C.", "bearded", "100 %", "'s", "黒い帽子", "tea & biscuits", "ÉCOLE", "3D-cap", "…smiling?",
)  # fmt: skip


def test_two_hundred_odd_sentences_are_read_as_they_are_written(make_clip: Callable[..., Path]) -> None:
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    clip = load_clip(str(make_clip(seed=1, text_cfg=text)))
    least = 1.0
    for template in TEMPLATES:
        prompts = PromptSet(PHRASES, (template,), (without_phrase(template),), "odd")
        sentences = [template.replace("{}", phrase) for phrase in PHRASES]
        embedded = embed_prompts(clip, prompts)
        expected = clip.model.encode_text(clip.tokenizer(sentences), normalize=True)  # type: ignore[operator]
        least = min(least, float((embedded.domains * expected).sum(dim=1).min()))
    assert len(TEMPLATES) * len(PHRASES) == 200
    assert least > 0.9999


@pytest.mark.parametrize(
    ("template", "base"),
    [
        ("a face with {}.", "a face with."),
        ("many {}s.", "many."),
        ("a non{} face", "a face"),
        ("a non-{} face", "a face"),
        ("a {}-haired person", "a person"),
        ("the {}'s owner, outside", "the owner, outside"),
        ("a photo of '{}'.", "a photo of ''."),
        ("一张{}的照片", "一张的照片"),
        ("{}の写真", "の写真"),
        ("un{}able", ""),
    ],
)
def test_the_base_has_no_half_of_a_word(template: str, base: str) -> None:
    assert without_phrase(template) == base


def test_what_touches_a_phrase() -> None:
    touching = [template for template in TEMPLATES if touches_phrase(template)]
    assert touching == ["many {}s.", "a non{} face", "{}-like face", "a {}'s hat", "photo{}photo", "it's {}'ll"]


def test_a_phrase_that_touches_its_template_leaves_the_other_words_to_learn(tiny_clip: Any) -> None:
    """'a' is a token in "a nonbearded face" as in the template; 'non' has become part of another word."""
    learner = PromptLearner(tiny_clip.text, ["bearded"], ["a non{} face"])
    learner.text_features()[0].sum().backward()
    assert learner.context.grad is not None
    assert (learner.context.grad[0] != 0).any(dim=1).tolist() == [True, False]
    whole = F.normalize(tiny_clip.encode_texts(["a nonbearded face"]), dim=-1)
    with torch.no_grad():
        assert float((learner.text_features()[0] * whole).sum()) > 0.9999


@pytest.mark.parametrize("mark", ["<end_of_text>", "<start_of_text>", "&lt;end_of_text&gt;"])
def test_a_mark_in_a_phrase_is_refused(tiny_clip: Any, mark: str) -> None:
    prompts = PromptSet((f"hat {mark} cat",), ("a {}.",), ("a.",), "marks")
    with pytest.raises(LanitError, match="holds a mark"):
        embed_prompts(tiny_clip, prompts)
    with pytest.raises(LanitError, match="holds a mark"):
        tiny_clip.encode_texts([f"hat {mark} cat"])


def test_training_prompts_warns_of_templates_whose_letters_touch_the_phrase(capsys: pytest.CaptureFixture[str]) -> None:
    _warn_of_touching(PromptSet(("cat",), ("a photo of {}.",), ("a photo of.",), "apart"))
    assert capsys.readouterr().err == ""
    _warn_of_touching(PromptSet(("cat",), ("a {}.", "many {}s.", "non{}"), ("a.", "many.", ""), "touching"))
    shown = " ".join(capsys.readouterr().err.split())
    assert "letters touch the phrase in 'many {}s.', 'non{}': the two are one word to CLIP" in shown
