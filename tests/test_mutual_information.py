"""What two views of an image tell of each other: the formulas by loops, and clusters that are found by them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score, normalized_mutual_info_score

from lanit.errors import UsageError
from lanit.mutual_information import (
    LEAST_SHARE,
    REDUNDANCY_FREE,
    REDUNDANCY_PRICE,
    binary_information,
    cluster_information,
    label_loss,
    redundancy,
)
from lanit.rules import Rule
from pipeline.stability.information_clusters import information_head
from pipeline.stability.views import Views


def hard(count: int, classes: int, agreement: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    first = rng.integers(classes, size=count)
    return first, np.where(rng.random(count) < agreement, first, rng.integers(classes, size=count))


def test_information_of_hard_labels_is_that_of_scikit_learn() -> None:
    for classes in (2, 5):
        first, second = hard(700, classes, 0.7, classes)
        one, other = (torch.eye(classes)[torch.from_numpy(each)] for each in (first, second))
        both = np.concatenate([first, second]), np.concatenate([second, first])  # neither view comes first
        assert float(cluster_information(one, other)) == pytest.approx(mutual_info_score(*both), abs=1e-4)
        if classes == 2:
            found = binary_information(one[:, 1:], other[:, 1:])
            assert float(found[0]) == pytest.approx(mutual_info_score(*both), abs=1e-4)


def test_sure_and_even_labels_tell_most_and_constant_ones_nothing() -> None:
    even = (torch.arange(100) % 2).float()[:, None]
    assert float(binary_information(even, even)) == pytest.approx(math.log(2), abs=1e-5)
    for constant in (torch.zeros(100, 1), torch.ones(100, 1), torch.full((100, 1), 0.5)):
        assert float(binary_information(constant, constant)) == pytest.approx(0, abs=1e-5)
    clusters, flat = torch.eye(4).repeat(10, 1), torch.full((40, 4), 0.25)
    assert float(cluster_information(clusters, clusters)) == pytest.approx(math.log(4), abs=1e-4)
    assert float(cluster_information(flat, flat)) == pytest.approx(0, abs=1e-5)


def test_redundancy_is_a_loop_over_pairs() -> None:
    labels = torch.rand(50, 4, generator=torch.Generator().manual_seed(0))
    labels[:, 1] = 0.7 * labels[:, 0] + 0.3 * labels[:, 1]
    phi = np.corrcoef(labels.numpy().T)
    expected = sum(max(0, phi[a, b] - REDUNDANCY_FREE) ** 2 for a in range(4) for b in range(4) if a != b) / 4
    assert float(redundancy(labels)) == pytest.approx(expected, rel=1e-3)
    assert float(redundancy(torch.cat([labels[:, :1], 1 - labels[:, :1]], dim=1))) == 0, "opposites cost nothing"


def test_the_loss_prices_labels_that_say_the_same_or_are_never_on() -> None:
    one, other = ((torch.rand(200, 1, generator=torch.Generator().manual_seed(seed)) < 0.5).float() for seed in (1, 2))
    apart, same = torch.cat([one, other], dim=1), torch.cat([one, one], dim=1)
    assert float(label_loss(same, same) - label_loss(apart, apart)) > REDUNDANCY_PRICE / 2
    rare = torch.cat([one, torch.full((200, 1), LEAST_SHARE / 4)], dim=1)
    assert float(label_loss(rare, rare)) > float(label_loss(apart, apart)) + 0.5
    half = torch.cat([one, torch.full((200, 1), 0.5)], dim=1).requires_grad_(True)
    label_loss(half, half).backward()
    assert half.grad is not None
    assert half.grad.isfinite().all()


def crops_of(centres: np.ndarray, of: np.ndarray, far: float, seed: int) -> Views:
    """Crops of images of classes: what differs within a class is the image's, and a little the crop's."""
    rng = np.random.default_rng(seed)
    images = centres[of] + far * rng.normal(size=(len(of), centres.shape[1]))
    crops = np.stack([images + 0.1 * rng.normal(size=images.shape) for _ in range(2)])
    return Views((crops / np.linalg.norm(crops, axis=2, keepdims=True)).astype(np.float32), "made up")


def test_clusters_begin_at_those_of_k_means_and_tell_more_of_the_other_crop() -> None:
    rng = np.random.default_rng(0)
    centres = np.linalg.qr(rng.normal(size=(16, 4)))[0].T
    of = np.repeat(np.arange(4), [150, 130, 120, 100])
    views = crops_of(centres, of, 0.12, 1)
    start = centres + 0.35 * rng.normal(size=centres.shape)
    start = (start / np.linalg.norm(start, axis=1, keepdims=True)).astype(np.float32)
    head = information_head(views, start)
    found = [head.labels(torch.from_numpy(crop)).numpy().argmax(axis=1) for crop in views.crops]
    before = [(crop @ start.T).argmax(axis=1) for crop in views.crops]
    assert mutual_info_score(*found) > mutual_info_score(*before)
    assert normalized_mutual_info_score(of, found[0]) > normalized_mutual_info_score(of, before[0])
    again = information_head(views, start)
    assert np.array_equal(head.weights, again.weights)
    assert np.array_equal(head.bias, again.bias)


def test_a_rule_says_how_its_clusters_were_found() -> None:
    rule = Rule("clusters", 10, 3, "mutual-information")
    assert rule.describe() == "10 clusters by mutual information, seed 3"
    assert Rule(**rule.to_json()) == rule
    assert "by" not in Rule("clusters", 10, 3).to_json()
    with pytest.raises(UsageError, match="not found by 'magic'"):
        Rule("clusters", 10, 3, "magic")
