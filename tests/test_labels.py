"""Every label rule is METHOD §1 written as loops over images and domains; labels and edits keep their promises."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from benchmarks.naive_step import plain_prompts
from lanit.errors import UsageError
from lanit.labels import (
    EmbeddedPrompts,
    Rule,
    adaptive,
    assign,
    decide,
    edit,
    exclusive_pairs,
    margin,
    similarity,
    top_k,
    with_slack,
)

SIZES = [(1, 1, 2), (5, 3, 8), (7, 13, 4), (64, 2, 5)]  # images, domains, dimensions


def embeddings(images: int, domains: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Unit-norm images, domain texts and base text, in float64, with gradients."""
    random = torch.Generator().manual_seed(1000 * images + domains)
    drawn = torch.randn(images + domains + 1, width, generator=random, dtype=torch.float64)
    unit = drawn / drawn.square().sum(dim=1, keepdim=True).sqrt()
    v, u, base = unit[:images], unit[images:-1], unit[-1]
    return v.requires_grad_(), u.detach().requires_grad_(), base.detach().requires_grad_()


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return sum((a[i] * b[i] for i in range(len(a))), torch.zeros((), dtype=a.dtype))


def bools(rows: list[list[int]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.bool)


@pytest.mark.parametrize("size", SIZES)
def test_margin_is_the_difference_of_two_cosines_forward_and_backward(size: tuple[int, int, int]) -> None:
    v, u, base = embeddings(*size)
    naive = torch.stack([torch.stack([cosine(image, text) - cosine(image, base) for text in u]) for image in v])
    ours = margin(v, u, base)
    torch.testing.assert_close(ours, naive)
    weights = torch.randn_like(naive)
    expected = torch.autograd.grad((naive * weights).sum(), (v, u, base))
    for result, reference in zip(torch.autograd.grad((ours * weights).sum(), (v, u, base)), expected, strict=True):
        torch.testing.assert_close(result, reference)
    torch.testing.assert_close(similarity(v, u) - similarity(v, base[None]), naive)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "rule",
    [
        Rule(),
        Rule("fixed", 0.1),
        Rule("fixed", -0.3),
        Rule("top-k", 1),
        Rule("top-k", 2),
        Rule("top-k", 99),
        Rule("argmax"),
        Rule("given"),
    ],
    ids=lambda rule: f"{rule.kind}{rule.value:g}",
)
def test_rules_decide_as_the_loops_do(size: tuple[int, int, int], rule: Rule) -> None:
    v, u, base = (tensor.detach() for tensor in embeddings(*size))
    active, margins, similarity_base = assign(rule, v, plain_prompts(u, base))
    assert active.dtype == torch.bool
    torch.testing.assert_close(similarity_base, v @ base)
    for row, image in enumerate(v):
        cosines = [float(cosine(image, text)) for text in u]
        of_base = float(cosine(image, base))
        descending = sorted(range(len(cosines)), key=lambda n: -cosines[n])
        expected = {
            "adaptive": [value > of_base for value in cosines],
            "fixed": [value > rule.value for value in cosines],
            "top-k": [n in descending[: int(rule.value)] for n in range(len(cosines))],
            "argmax": [n == descending[0] for n in range(len(cosines))],
            "given": [False] * len(cosines),
        }[rule.kind]
        assert active[row].tolist() == expected
        # margins whatever the rule: the store keeps them
        assert margins[row].tolist() == pytest.approx([value - of_base for value in cosines])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["adaptive", "fixed", "top-k", "argmax"])
def test_offsets_raise_the_bar_and_weights_count_where_domains_compete(size: tuple[int, int, int], kind: str) -> None:
    v, u, base = (tensor.detach() for tensor in embeddings(*size))
    random = torch.Generator().manual_seed(5)
    offsets = torch.rand(len(u), generator=random, dtype=torch.float64) - 0.5
    weights = torch.rand(len(u), generator=random, dtype=torch.float64) * 3 + 0.1
    rule = Rule(kind, {"fixed": 0.1, "top-k": 2}.get(kind, 0))  # type: ignore[arg-type]
    active, margins, _ = assign(rule, v, EmbeddedPrompts(u, base, offsets, weights))
    torch.testing.assert_close(margins, margin(v, u, base))  # as they are, whatever the offsets
    for row, image in enumerate(v):
        beyond = [float(cosine(image, text) - cosine(image, base) - o) for text, o in zip(u, offsets, strict=True)]
        weighed = [score * float(weight) for score, weight in zip(beyond, weights, strict=True)]
        descending = sorted(range(len(u)), key=lambda n: -weighed[n])
        for n, (text, offset) in enumerate(zip(u, offsets, strict=True)):
            expected = {
                "adaptive": beyond[n] > 0,
                "fixed": float(cosine(image, text)) - float(offset) > 0.1,
                "top-k": n in descending[:2],
                "argmax": n == descending[0],
            }[kind]
            assert bool(active[row, n]) == expected


@pytest.mark.parametrize("text", ["adaptive", "top-2", "fixed=0.25", "fixed=-0.5", "fixed=1", "argmax", "given"])
def test_a_rule_is_read_as_it_is_written(text: str) -> None:
    rule = Rule.parse(text)
    assert rule.text == text
    assert Rule(**json.loads(json.dumps(rule.to_json()))) == rule
    assert isinstance(rule.value, int) is (rule.kind == "top-k"), "files say 2, not 2.0"


@pytest.mark.parametrize("rule", [Rule(), Rule("fixed", 0.1), Rule("top-k", 2), Rule("argmax"), Rule("given")])
def test_what_is_stored_decides_as_embeddings_do(rule: Rule) -> None:
    v, u, base = (tensor.detach() for tensor in embeddings(64, 5, 8))
    active, margins, similarity_base = assign(rule, v, plain_prompts(u, base))
    assert torch.equal(decide(rule, margins, similarity_base), active)
    assert torch.equal(decide(rule, margins, similarity_base, torch.zeros(5), torch.ones(5)), active)


def test_adaptive_labels_nothing_at_a_margin_of_zero() -> None:
    assert adaptive(torch.tensor([[0.0, 1e-8, -1e-8]])).tolist() == [[False, True, False]]
    margins = torch.tensor([[0.5, 0.5, -0.1]])
    assert adaptive(margins, torch.tensor([0.5, 0.4, -0.2])).tolist() == [[False, True, True]]


def test_an_image_may_have_no_label_and_every_label() -> None:
    base = torch.tensor([1.0, 0.0])
    domains = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    active, _, _ = assign(Rule(), torch.tensor([[1.0, 0.0], [-0.8, 0.6]]), plain_prompts(domains, base))
    assert active.tolist() == [[False, False], [True, True]]


def test_top_k_counts_k_even_where_similarities_tie() -> None:
    assert top_k(torch.zeros(3, 5), 2).sum(dim=1).tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("top-k", 0, "top-k needs a whole number"),
        ("top-k", 1.5, "not 1.5"),
        ("fixed", 1.01, "between -1 and 1"),
        ("fixed", float("nan"), "between -1 and 1"),
        ("nearest", 0, "unknown rule 'nearest'"),
    ],
)
def test_rules_that_mean_nothing_are_refused(kind: str, value: float, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Rule(kind, value)  # type: ignore[arg-type]
    assert caught.value.hint


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.int64])
def test_slack_is_on_exactly_where_no_domain_is(dtype: torch.dtype) -> None:
    active = bools([[0, 0, 0], [1, 0, 0], [0, 1, 1], [1, 1, 1]]).to(dtype)
    extended = with_slack(active)
    assert extended.dtype == dtype
    assert torch.equal(extended[:, :-1], active)
    assert extended[:, -1].tolist() == [1, 0, 0, 0]
    assert with_slack(torch.zeros(0, 4, dtype=torch.bool)).shape == (0, 5)


@pytest.mark.parametrize(("count", "domains", "seed"), [(1, 1, 0), (60, 4, 1), (500, 7, 2)])
def test_exclusive_pairs_count_together_against_independence(count: int, domains: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    active = torch.rand(count, domains, generator=random) < 0.4
    if domains > 3:
        active[:, 1] &= ~active[:, 0]  # never together, and often
        active[:, 3] = torch.arange(count) == 0  # too rare to tell
    rows = active.tolist()
    found = exclusive_pairs(active)
    for a in range(domains):
        for b in range(domains):
            together = sum(row[a] and row[b] for row in rows)
            expected = sum(row[a] for row in rows) * sum(row[b] for row in rows) / count
            assert bool(found[a, b]) == (a != b and expected >= 5 and together < expected / 20), (a, b)
    if domains > 3:
        assert found[0, 1]
        assert not found[3].any()
    assert torch.equal(found, found.T)


@pytest.mark.parametrize(
    ("first", "second", "together", "excluded"),
    # of 1000 rows: expected together first × second / 1000, a twentieth of it is the bound
    [(400, 250, 4, True), (400, 250, 5, False), (100, 50, 0, True), (100, 49, 0, False), (400, 250, 100, False)],
)
def test_exclusive_pairs_at_their_bounds(first: int, second: int, together: int, excluded: bool) -> None:
    active = torch.zeros(1000, 2, dtype=torch.bool)
    active[:first, 0] = True
    active[first - together : first - together + second, 1] = True
    assert bool(exclusive_pairs(active)[0, 1]) is excluded


def test_exclusive_pairs_of_no_row() -> None:
    assert not exclusive_pairs(torch.zeros(0, 3, dtype=torch.bool)).any()


@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize(("count", "domains"), [(1, 1), (9, 4), (30, 7)])
def test_edit_is_the_set_arithmetic_of_its_words(count: int, domains: int, per_row: bool) -> None:
    random = torch.Generator().manual_seed(count)
    shape = (count, domains) if per_row else (domains,)
    active = torch.rand(count, domains, generator=random) < 0.5
    add, remove = (torch.rand(*shape, generator=random) < 0.3 for _ in range(2))
    exclusive = torch.rand(domains, domains, generator=random) < 0.3
    exclusive = (exclusive | exclusive.T).fill_diagonal_(False)
    before = active.clone()
    result = edit(active, add, remove, exclusive)
    assert torch.equal(active, before), "the labels given must stay as they were"
    for row in range(count):
        own, added, removed = (
            {n for n in range(domains) if (labels[row] if labels.ndim == 2 else labels)[n]}
            for labels in (active, add, remove)
        )
        displaced = {n for n in own if any(exclusive[a, n] for a in added)}
        assert {n for n in range(domains) if result[row, n]} == (own - displaced - removed) | added


def test_adding_a_domain_displaces_only_what_excludes_it() -> None:
    """Blond hair gives way to black hair; eyeglasses stay."""
    exclusive = bools([[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    result = edit(bools([[1, 0, 1], [0, 0, 0]]), bools([[0, 1, 0]])[0], bools([[0, 0, 0]])[0], exclusive)
    assert result.tolist() == [[False, True, True], [False, True, False]]
