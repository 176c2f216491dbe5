"""Prompts as embeddings equal open_clip's ``encode_text`` of the whole sentences, forward and gradient (METHOD §4)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lanit.ema import Average
from lanit.errors import LanitError
from lanit.prompts import PromptLearner

DOMAINS = ("smiling", "blond hair", "a rather tall black hat")
SETS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "one": (("smiling",), ("a face with {}.",), ()),
    "uneven": (DOMAINS, ("a face with {}.", "the picture of a {} face", "{}"), ()),
    "own bases": (DOMAINS, ("a photo of {}, outside", "{} person"), ("a photo of something", "person")),
    "base like its template": (DOMAINS, ("a photo of {}.",), ("a photo of.",)),
}


def sentences_of(domains: tuple[str, ...], templates: tuple[str, ...], bases: tuple[str, ...]) -> list[list[str]]:
    """Whole sentences: one list per domain, then the bases; the phrase is simply left out where no base is given."""
    left_out = [" ".join(template.replace("{}", "").split()) for template in templates]
    return [[template.format(domain) for template in templates] for domain in domains] + [list(bases) or left_out]


def naive_features(clip: Any, sentences: list[list[str]]) -> Tensor:
    """Mean over templates of ``encode_text``, then normalised (METHOD §1)."""
    means = []
    for group in sentences:
        features = [clip.model.encode_text(clip.tokenizer([sentence]))[0] for sentence in group]
        means.append(sum(features[1:], features[0]) / len(features))
    return torch.stack([mean / mean.square().sum().sqrt() for mean in means])


@pytest.mark.parametrize("name", SETS)
def test_text_features_are_the_mean_over_templates_then_normalised(tiny_clip: Any, name: str) -> None:
    ours, base = PromptLearner(tiny_clip.text, *SETS[name]).text_features()
    torch.testing.assert_close(
        torch.cat([ours, base[None]]), naive_features(tiny_clip, sentences_of(*SETS[name])), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(ours.norm(dim=1), torch.ones(len(SETS[name][0])))


def test_the_mean_is_taken_before_the_normalisation(tiny_clip: Any) -> None:
    """A longer feature weighs more; the mean of unit vectors would not know."""
    domains, templates, bases = SETS["uneven"]
    features = tiny_clip.model.encode_text(tiny_clip.tokenizer([template.format(domains[0]) for template in templates]))
    scaled, _ = PromptLearner(_Scaled(tiny_clip.text), domains, templates, bases).text_features()
    expected = F.normalize((torch.tensor([[1.0], [2.0], [3.0]]) * features).mean(dim=0), dim=0)
    torch.testing.assert_close(scaled[0], expected, rtol=1e-4, atol=1e-5)


class _Scaled:
    """A tower whose features of template m are m + 1 times as long."""

    def __init__(self, tower: Any) -> None:
        self.tower = tower
        self.context_length, self.sos, self.eos = tower.context_length, tower.sos, tower.eos
        self.tokenize, self.embed_tokens = tower.tokenize, tower.embed_tokens

    def encode(self, embedded: Tensor, eos_positions: Tensor) -> Tensor:
        features = self.tower.encode(embedded, eos_positions)
        return features * torch.arange(1.0, 4.0).repeat(len(features) // 3)[:, None]


@pytest.mark.parametrize("name", ["uneven", "base like its template"])
def test_context_gradient_is_the_sum_over_all_sentences_of_the_template(tiny_clip: Any, name: str) -> None:
    """METHOD (12): template m's embeddings are shared by all domains and the base.

    Naive: open_clip's own forward pass over whole sentences, with the gradient at its token embeddings caught by a hook
    and summed by hand over the sentences in which a template occurs.
    """
    domains, templates, bases = SETS[name]
    learner = PromptLearner(tiny_clip.text, domains, templates, bases)
    weights = torch.randn(len(domains) + 1, tiny_clip.embedding_dim, generator=torch.Generator().manual_seed(0))
    ours, base = learner.text_features()
    (torch.cat([ours, base[None]]) * weights).sum().backward()
    assert learner.context.grad is not None

    embedded: list[Tensor] = []
    hook = tiny_clip.model.token_embedding.register_forward_hook(
        lambda module, inputs, output: embedded.append(output.requires_grad_()) or output
    )
    try:
        (naive_features(tiny_clip, sentences_of(domains, templates, bases)) * weights).sum().backward()
    finally:
        hook.remove()
    for m, template in enumerate(templates):
        length = len(tiny_clip.text.tokenize(template.split("{}")[0]))
        expected = torch.zeros_like(learner.context[m])
        for sentence in embedded[m :: len(templates)]:
            assert sentence.grad is not None
            expected[:length] += sentence.grad[0, 1 : 1 + length]
        torch.testing.assert_close(learner.context.grad[m], expected, rtol=1e-3, atol=1e-5)
        assert (learner.context.grad[m, :length] != 0).any() or length == 0


def test_a_base_of_its_own_shares_the_prefix_as_far_as_it_agrees(tiny_clip: Any) -> None:
    learner = PromptLearner(tiny_clip.text, ["smiling"], ["a photo of {}."], ["a photo without"])
    learner.text_features()[1].sum().backward()
    assert learner.context.grad is not None
    touched = (learner.context.grad[0] != 0).any(dim=1)
    assert touched.tolist() == [True, True, False], "'a', 'photo' are shared, 'of' is not in the base"


def test_only_the_context_learns(tiny_clip: Any) -> None:
    learner = PromptLearner(tiny_clip.text, *SETS["uneven"])
    assert [name for name, _ in learner.named_parameters()] == ["context"]
    assert list(learner.state_dict()) == ["context"]
    longest = max(len(tiny_clip.text.tokenize(template.split("{}")[0])) for template in SETS["uneven"][1])
    assert learner.context.shape == (3, longest, 16)
    learner.text_features()[0].sum().backward()
    assert all(parameter.grad is None for parameter in tiny_clip.model.parameters())
    assert not any(parameter.requires_grad for parameter in tiny_clip.model.parameters())


def test_a_learned_context_changes_every_domain_and_the_base(tiny_clip: Any) -> None:
    learner = PromptLearner(tiny_clip.text, *SETS["uneven"])
    before = torch.cat([part.reshape(-1, tiny_clip.embedding_dim) for part in learner.text_features()]).detach()
    with torch.no_grad():
        learner.context.add_(torch.randn_like(learner.context))
    after = torch.cat([part.reshape(-1, tiny_clip.embedding_dim) for part in learner.text_features()]).detach()
    assert ((after - before).abs().amax(dim=1) > 1e-4).all()


def test_an_averaged_context_is_used_in_place_of_the_parameters(tiny_clip: Any) -> None:
    learner = PromptLearner(tiny_clip.text, *SETS["uneven"])
    average = Average(torch.nn.ParameterList([learner.context]))
    before = [part.detach() for part in learner.text_features()]
    with torch.no_grad():
        learner.context.mul_(1.5)
    (context,) = average.module.parameters()
    for result, expected in zip(learner.text_features(context), before, strict=True):
        torch.testing.assert_close(result, expected)
    assert not torch.allclose(learner.text_features()[0], before[0])


def test_the_context_is_no_longer_than_the_longest_sentence_needs(tiny_clip: Any) -> None:
    """METHOD (16)."""
    learner = PromptLearner(tiny_clip.text, *SETS["uneven"])
    longest = max(len(tiny_clip.text.tokenize(text)) for group in sentences_of(*SETS["uneven"]) for text in group)
    seen: list[int] = []
    tower = tiny_clip.text
    learner.tower = type(
        "Spy", (), {"encode": lambda self, e, ends: seen.append(e.shape[1]) or tower.encode(e, ends)}
    )()
    learner.text_features()
    assert seen == [longest + 2]


def test_too_long_a_phrase_is_named(tiny_clip: Any) -> None:
    long = "hair " * 15
    with pytest.raises(LanitError, match=f"'{long.strip()}' needs 21 tokens; this CLIP reads 20") as caught:
        PromptLearner(tiny_clip.text, ["smiling", long.strip(), "hat"], ["{}.", "a big face {}."])
    assert "Shorten" in caught.value.hint
    with pytest.raises(LanitError, match="base prompt"):
        PromptLearner(tiny_clip.text, ["smiling"], ["a {}."], ["face " * 19])


def test_the_longest_sentence_that_fits_is_taken(tiny_clip: Any) -> None:
    phrase = " ".join(["hair"] * 14)  # 14 + 'a big face' + '.' + start and end = 20
    ours, _ = PromptLearner(tiny_clip.text, [phrase], ["a big face {}."]).text_features()
    expected = naive_features(tiny_clip, [[f"a big face {phrase}."]])
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
