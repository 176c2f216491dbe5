"""Losses of methods without labels against formulas written out, in value and gradient; two views of an image."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lanit.augment import ViewRanges, view_of
from lanit.codes import GaussianCodes, StyleMoments
from lanit.contrast import hinge_discriminator, info_nce, known_class_loss, known_classes, own_logit
from lanit.guides import GuideSizes, cluster_margins
from lanit.mutual_information import cluster_information
from lanit.prototypes import balanced_assignment, content_distance, prototype_styles, swapped_loss
from lanit.ranks import Draws

RANDOM = torch.Generator().manual_seed(5)


def units(rows: int, width: int) -> Tensor:
    return F.normalize(torch.randn(rows, width, generator=RANDOM, dtype=torch.float64), dim=1)


def same_value_and_gradients(one: Callable[..., Tensor], other: Callable[..., Tensor], *tensors: Tensor) -> None:
    found = []
    for function in (one, other):
        given = [tensor.clone().requires_grad_() for tensor in tensors]
        value = function(*given)
        found.append([value, *torch.autograd.grad(value, given, allow_unused=True, materialize_grads=True)])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs)


def information(first: Tensor, second: Tensor) -> Tensor:
    """I(P) by its definition, an entry at a time."""
    rows, clusters = first.shape
    joint = [[sum(first[b, i] * second[b, j] for b in range(rows)) / rows for j in range(clusters)]
             for i in range(clusters)]  # fmt: skip
    even = [[(joint[i][j] + joint[j][i]) / 2 for j in range(clusters)] for i in range(clusters)]
    shares = [sum(row[1:], row[0]) for row in even]
    terms = [
        even[i][j] * torch.log(even[i][j] / (shares[i] * shares[j])) for i in range(clusters) for j in range(clusters)
    ]
    return sum(terms[1:], terms[0])


def test_information_of_clusters_is_its_definition_and_rows_that_do_not_count_say_nothing() -> None:
    first, second = (torch.randn(7, 3, generator=RANDOM, dtype=torch.float64) for _ in range(2))
    counts = torch.tensor([1, 1, 0, 1, 0, 1, 1], dtype=torch.float64)
    kept = counts.bool()
    for used, rows in ((None, slice(None)), (counts, kept)):
        same_value_and_gradients(
            lambda a, b, used=used: cluster_information(a.softmax(dim=1), b.softmax(dim=1), used),
            lambda a, b, rows=rows: information(a.softmax(dim=1)[rows], b.softmax(dim=1)[rows]),
            first,
            second,
        )
    nothing = cluster_information(first.softmax(dim=1), second.softmax(dim=1), torch.zeros(7, dtype=torch.float64))
    assert nothing.item() == pytest.approx(0)


def test_info_nce_is_the_share_of_the_own_key() -> None:
    queries, keys, negatives = units(4, 5), units(4, 5), units(6, 5)

    def naive(q: Tensor, k: Tensor, n: Tensor) -> Tensor:
        losses = []
        for b in range(4):
            own = torch.exp(q[b] @ k[b] / 0.07)
            losses.append(-torch.log(own / (own + sum(torch.exp(q[b] @ n[j] / 0.07) for j in range(6)))))
        return torch.stack(losses).mean()

    same_value_and_gradients(lambda *given: info_nce(*given, 0.07), naive, queries, keys, negatives)


def test_classes_that_people_named_are_learned_and_no_others() -> None:
    labels = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]], dtype=torch.bool)
    human = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 1, 1], [0, 0, 1]], dtype=torch.bool)
    assert known_classes(labels, human).tolist() == [0, -1, -1, 2, -1], "several named, or none, are no class"
    assert known_classes(labels, None).tolist() == [-1] * 5
    logits = torch.randn(5, 3, generator=RANDOM, dtype=torch.float64)
    same_value_and_gradients(
        lambda z: known_class_loss(z, known_classes(labels, human)),
        lambda z: -(z.softmax(dim=1)[0, 0].log() + z.softmax(dim=1)[3, 2].log()) / 2,
        logits,
    )
    assert known_class_loss(logits, torch.full((5,), -1)).item() == 0


def test_hinge_counts_what_is_inside_the_margin() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, -0.25])
    assert hinge_discriminator(real, fake).item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 0.75) / 2)
    assert own_logit(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([1, 0])).tolist() == [2.0, 3.0]


def test_a_margin_is_positive_for_the_likeliest_cluster_alone() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [5.0, 5.0, 0.0]])
    margins = cluster_margins(logits)
    torch.testing.assert_close(margins[0], torch.tensor([-2.0, 1.0, -1.0]))
    assert (margins > 0).sum(dim=1).tolist() == [1, 1], "of two that are equal the first"
    log_p = logits.log_softmax(dim=1)
    torch.testing.assert_close(margins[0, 1], log_p[0, 1] - log_p[0, 2])


def test_assignments_balance_prototypes_as_sinkhorns_rounds_do() -> None:
    scores = units(8, 4) @ units(3, 4).T
    shares = [[float(torch.exp(scores[b, k] / 0.05)) for k in range(3)] for b in range(8)]
    for _ in range(3):
        columns = [sum(row[k] for row in shares) for k in range(3)]
        shares = [[row[k] / columns[k] for k in range(3)] for row in shares]
        shares = [[value / sum(row) for value in row] for row in shares]
    torch.testing.assert_close(balanced_assignment(scores), torch.tensor(shares, dtype=torch.float64))


def test_swapped_prediction_foretells_the_other_view() -> None:
    first, second = units(6, 4) @ units(3, 4).T, units(6, 4) @ units(3, 4).T
    of_first, of_second = balanced_assignment(first), balanced_assignment(second)

    def naive(a: Tensor, b: Tensor) -> Tensor:
        terms = []
        for row in range(6):
            for wanted, told in ((of_first, b), (of_second, a)):
                weights = torch.exp(told[row] / 0.1)
                terms.append(-sum(wanted[row, k] * torch.log(weights[k] / weights.sum()) for k in range(3)))
        return torch.stack([torch.as_tensor(term) for term in terms]).sum() / 2 / 6

    same_value_and_gradients(swapped_loss, naive, first, second)


def test_contents_are_compared_place_by_place() -> None:
    first, second = (torch.randn(2, 3, 2, 2, generator=RANDOM) for _ in range(2))
    apart = [
        2 - 2 * float(first[b, :, i, j] @ second[b, :, i, j] / first[b, :, i, j].norm() / second[b, :, i, j].norm())
        for b in range(2)
        for i in range(2)
        for j in range(2)
    ]
    assert content_distance(first, second).item() == pytest.approx(sum(apart) / 8, rel=1e-5)


def test_styles_of_prototypes_lie_on_them_or_between_two() -> None:
    prototypes = F.normalize(torch.eye(4)[:3] + 0.1, dim=1)
    styles = prototype_styles(prototypes, 200, Draws(torch.Generator().manual_seed(0)))
    torch.testing.assert_close(styles.norm(dim=1), torch.ones(200))
    near = (styles @ prototypes.T).max(dim=1).values
    assert 0.4 < (near > 0.99).float().mean() < 0.9
    spanned = torch.linalg.lstsq(prototypes.T, styles.T).solution.T
    assert (spanned > -0.1).all(), "none lies beyond the prototypes"


def test_styles_that_are_drawn_have_the_mean_and_the_spread_of_those_seen() -> None:
    sizes = GuideSizes(image_size=32, domains=3, style_dim=4)
    codes, moments = GaussianCodes(sizes), StyleMoments(2, 4)
    styles = torch.randn(500, 4, generator=torch.Generator().manual_seed(1)) * torch.tensor([0.1, 0.3, 0.0, 0.2])
    styles = styles + torch.tensor([1.0, 0, 0, 0])
    for part in styles.split(99):
        moments.add(part, torch.zeros(len(part), dtype=torch.int64))
    codes.fit(moments)
    torch.testing.assert_close(codes.means[0], styles.mean(dim=0))
    torch.testing.assert_close(
        codes.roots[0] @ codes.roots[0].T, torch.cov(styles.T, correction=0), atol=1e-6, rtol=1e-4
    )
    for other in (1, 2):
        assert torch.equal(codes.means[other], codes.means[0]), "a cluster without images, and the slack, take all"
    drawn = codes(torch.randn(50, 4))
    torch.testing.assert_close(drawn.norm(dim=2), torch.ones(50, 3))


NOTHING = ViewRanges(degrees=0, shift=0, shear=0, zoom=(1, 1), colour=0, hue=0)


def test_a_view_without_ranges_is_the_image_or_its_mirror() -> None:
    images = torch.rand(9, 3, 16, 16, generator=RANDOM) * 2 - 1
    seen = view_of(images, Draws(torch.Generator().manual_seed(2)), NOTHING)
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(seen, images, strict=True)]
    mirrored = [torch.allclose(a, b.flip(2), atol=1e-5) for a, b in zip(seen, images, strict=True)]
    assert all(one != other for one, other in zip(same, mirrored, strict=True))
    assert any(same)
    assert any(mirrored)


def test_colours_change_and_greys_have_no_hue() -> None:
    draws = Draws(torch.Generator().manual_seed(3))
    grey = (torch.rand(5, 1, 8, 8, generator=RANDOM) * 2 - 1).expand(-1, 3, -1, -1)
    seen = view_of(grey, draws, ViewRanges(0, 0, 0, (1, 1), 0, 0.5))
    torch.testing.assert_close(seen[:, 0], seen[:, 1], atol=1e-3, rtol=0)
    coloured = torch.rand(5, 3, 8, 8, generator=RANDOM) * 2 - 1
    turned = view_of(coloured, draws, ViewRanges(20, 0.1, 10, (0.9, 1.1), 0.4, 0.125))
    assert turned.shape == coloured.shape
    assert turned.abs().max() <= 1
    assert (turned - coloured).abs().amax(dim=(1, 2, 3)).min() > 0.1


def test_a_rectangle_is_erased_where_asked() -> None:
    images = torch.ones(40, 3, 32, 32)
    seen = view_of(images, Draws(torch.Generator().manual_seed(4)), ViewRanges(0, 0, 0, (1, 1), 0, 0, erased=0.5))
    shares = (seen == 0).float().mean(dim=(1, 2, 3))
    assert 0.2 < (shares > 0).float().mean() < 0.8
    assert shares[shares > 0].max() < 0.34**2
