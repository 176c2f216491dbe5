"""Every distance against an independent implementation on the same features, of uneven sizes and hard cases."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.spatial
import torch
from torch import Tensor, nn

from lanit import metrics
from lanit.errors import LanitError
from lanit.metrics import (
    clip_mmd,
    copied,
    cosine_distance,
    density_coverage,
    frechet_distance,
    interval,
    kernel_distance,
    mean_gaussian,
    mean_kernel,
    moments,
    neighbours,
    perceptual_distance,
    resampled_counts,
    spread,
    twins,
    unit_channels,
)

SIZES = [(300, 211, 17), (40, 333, 64), (33, 29, 48)]  # the last two have singular covariances


def features(rows: int, width: int, seed: int, *, shift: float = 0.0, unit: bool = False) -> Tensor:
    """Correlated float32 features of uneven scales."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=torch.Generator().manual_seed(99)) * torch.linspace(0.1, 2, width)
    found = torch.randn(rows, width, generator=generator) @ mix + shift
    return found / found.norm(dim=1, keepdim=True) if unit else found


def pair(sizes: tuple[int, int, int], *, unit: bool = False) -> tuple[Tensor, Tensor]:
    real, fake, width = sizes
    return features(real, width, 1, unit=unit), features(fake, width, 2, shift=0.4, unit=unit)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("unit", [False, True])
def test_the_frechet_distance_is_torch_fidelitys(sizes: tuple[int, int, int], unit: bool) -> None:
    fidelity = pytest.importorskip("torch_fidelity.metric_fid")
    real, fake = pair(sizes, unit=unit)
    statistics = [fidelity.fid_features_to_statistics(each.double()) for each in (real, fake)]
    theirs = fidelity.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(moments(real), moments(fake)) == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("sizes", SIZES)
def test_the_frechet_distance_is_torchmetrics(sizes: tuple[int, int, int]) -> None:
    fid = pytest.importorskip("torchmetrics.image.fid")
    real, fake = pair(sizes)
    statistics = [part for each in (real, fake) for part in (each.double().mean(0), each.double().T.cov())]
    theirs = float(fid._compute_fid(*statistics))
    assert frechet_distance(moments(real), moments(fake)) == pytest.approx(theirs, rel=1e-4)


def test_the_frechet_distance_is_that_of_scipys_matrix_root() -> None:
    real, fake = (each.double().numpy() for each in pair(SIZES[0]))
    one, other = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    difference = real.mean(0) - fake.mean(0)
    root = scipy.linalg.sqrtm(one @ other)
    theirs = difference @ difference + np.trace(one + other - 2 * np.real(root))
    ours = frechet_distance(moments(torch.from_numpy(real)), moments(torch.from_numpy(fake)))
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_the_frechet_distance_of_known_normals_is_the_formula() -> None:
    """Of commuting covariances it is Σ (μ − ν)² + Σ (σ − τ)²."""
    sigma, tau = torch.tensor([4.0, 1.0, 0.0]), torch.tensor([1.0, 9.0, 4.0])
    mean, other = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 0.0, 3.5])
    expected = 4.25 + float(((sigma.sqrt() - tau.sqrt()) ** 2).sum())
    assert frechet_distance((mean, sigma.diag()), (other, tau.diag())) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("sizes", SIZES)
def test_the_frechet_distance_is_symmetric_and_nothing_from_a_set_to_itself(sizes: tuple[int, int, int]) -> None:
    real, fake = (moments(each) for each in pair(sizes))
    assert frechet_distance(real, fake) == pytest.approx(frechet_distance(fake, real), rel=1e-6)
    assert frechet_distance(real, real) <= 1e-6 * float(real.covariance.trace())


def test_moments_are_numpys_also_where_rows_count_several_times() -> None:
    rows = features(23, 6, 0)
    counts = resampled_counts(23, 1, torch.Generator().manual_seed(0))[0]
    repeated = rows.double().repeat_interleave(counts, dim=0).numpy()
    for found, plain in ((moments(rows), rows.double().numpy()), (moments(rows, counts), repeated)):
        np.testing.assert_allclose(found.mean, plain.mean(0), rtol=1e-12)
        np.testing.assert_allclose(found.covariance, np.cov(plain, rowvar=False), rtol=1e-10)


def test_moments_keep_what_float32_would_lose() -> None:
    """Features far from 0: in float32, a sum of squares loses the variance."""
    rows = torch.tensor([[4096.0], [4096.5], [4097.0]])
    assert float(moments(rows).covariance) == pytest.approx(0.25, rel=1e-12)


@pytest.mark.parametrize("sizes", SIZES)
def test_the_kernel_distance_is_torch_fidelitys_where_a_subset_is_everything(sizes: tuple[int, int, int]) -> None:
    fidelity = pytest.importorskip("torch_fidelity.metric_kid")
    size = min(sizes[:2])
    real, fake = (each[:size] for each in pair(sizes))
    theirs = fidelity.kid_features_to_metric(
        real.double(), fake.double(), kid_subsets=2, kid_subset_size=size, verbose=False, cuda=False
    )
    assert kernel_distance(real, fake) == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)


def test_the_kernel_distance_is_the_mean_over_all_subsets_as_it_is_published() -> None:
    real, fake = pair((6, 5, 7), unit=True)

    def of_subset(x: np.ndarray, y: np.ndarray) -> float:
        def kernel(a: np.ndarray, b: np.ndarray) -> float:
            return float((a @ b / 7 + 1) ** 3)

        within = sum(kernel(a, b) for side in (x, y) for a, b in combinations(side, 2)) * 2 / (4 * 3)
        return within - 2 * float(np.mean([kernel(a, b) for a in x for b in y]))

    subsets = [[np.stack(rows) for rows in combinations(side.double().numpy(), 4)] for side in (real, fake)]
    expected = np.mean([of_subset(x, y) for x in subsets[0] for y in subsets[1]])
    assert kernel_distance(real, fake) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("entries", [1, 1 << 24])
def test_pairs_of_one_row_and_of_its_copies_in_a_bootstrap_sample_do_not_count(
    entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "_BLOCK_ENTRIES", entries)
    groups, others = features(6 * 3, 5, 1).reshape(6, 3, 5).double(), features(4, 5, 2).double()
    counts, other_counts = (resampled_counts(n, 2, torch.Generator().manual_seed(n)) for n in (6, 4))

    def kernel(a: Tensor, b: Tensor) -> float:
        return float((a @ b / 5 + 1) ** 3)

    def drawn(times: Tensor) -> list[int]:
        return torch.arange(len(times)).repeat_interleave(times).tolist()

    for row, times, other in ((0, torch.ones(6).long(), torch.ones(4).long()), (2, counts[1], other_counts[1])):
        own = [kernel(a, b) for i in drawn(times) for j in drawn(times) if i != j for a in groups[i] for b in groups[j]]
        assert float(mean_kernel(groups, x_counts=counts)[row]) == pytest.approx(np.mean(own), rel=1e-9)
        across = [kernel(a, others[j]) for i in drawn(times) for j in drawn(other) for a in groups[i]]
        found = mean_kernel(groups, others, counts, other_counts)
        assert float(found[row]) == pytest.approx(np.mean(across), rel=1e-9)


def test_cmmd_is_the_published_formula_pair_by_pair() -> None:
    """Jayasumana et al., CVPR 2024, equations 3 and 4, in their code's estimate: every pair of rows, itself too."""
    real, fake = pair((6, 5, 7), unit=True)

    def mean_of(x: Tensor, y: Tensor) -> float:
        return sum(math.exp(-sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) / (2 * 10**2))
                   for a in x.tolist() for b in y.tolist()) / (len(x) * len(y))  # fmt: skip

    expected = 1000 * (mean_of(real, real) + mean_of(fake, fake) - 2 * mean_of(real, fake))
    assert clip_mmd(real, fake) == pytest.approx(expected, rel=1e-8)
    assert clip_mmd(real, fake) > 1e-3
    assert clip_mmd(real, real) == pytest.approx(0, abs=1e-9)
    assert clip_mmd(real[:1], fake) > 0, "one image does"


@pytest.mark.parametrize("entries", [1, 1 << 24])
def test_terms_of_cmmd_in_a_bootstrap_sample_are_those_of_a_sample_written_out(
    entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "_BLOCK_ENTRIES", entries)
    groups, others = features(6 * 3, 5, 1).reshape(6, 3, 5).double(), features(4, 5, 2).double()
    counts, other_counts = (resampled_counts(n, 2, torch.Generator().manual_seed(n)) for n in (6, 4))
    for row, times, other in ((0, torch.ones(6).long(), torch.ones(4).long()), (2, counts[1], other_counts[1])):
        drawn = groups[torch.arange(6).repeat_interleave(times)].flatten(0, 1)
        drawn_others = others[torch.arange(4).repeat_interleave(other)]
        within = torch.exp(-torch.cdist(drawn, drawn).square() / 200).mean()
        across = torch.exp(-torch.cdist(drawn, drawn_others).square() / 200).mean()
        assert float(mean_gaussian(groups, x_counts=counts)[row]) == pytest.approx(float(within), rel=1e-9)
        found = mean_gaussian(groups, others, counts, other_counts)[row]
        assert float(found) == pytest.approx(float(across), rel=1e-9)


def kernel_mean_of_normals(mean: Tensor, variance: Tensor, other_mean: Tensor, other_variance: Tensor) -> float:
    """E (x·y / d + 1)³ of independent normals with diagonal covariances, by their first three moments."""
    raw = []
    for m, v in ((mean, variance.diag()), (other_mean, other_variance.diag())):
        third = torch.einsum("i,j,k->ijk", m, m, m) + sum(
            torch.einsum(f"{pair},{left}->ijk", v, m) for pair, left in (("ij", "k"), ("ik", "j"), ("jk", "i"))
        )
        raw.append((m, v + torch.outer(m, m), third))
    d = len(mean)
    return 1 + float(sum(c * (a * b).sum() / d**n for n, c, a, b in zip((1, 2, 3), (3, 3, 1), *raw, strict=True)))


@pytest.mark.parametrize(("shift", "least", "most"), [(0.4, 0.88, 0.99), (0.0, 0.95, 1.0)])
def test_the_interval_of_the_kernel_distance_holds_the_truth_as_often_as_it_says(
    shift: float, least: float, most: float
) -> None:
    """Normal features of known KID, two dependent images a source, 150 experiments: 95 % within what chance leaves of
    it, and more where both sides are alike."""
    d, real_images, sources = 6, 50, 40
    mean, other = torch.full((d,), 0.5).double(), torch.full((d,), 0.5 + shift).double()
    one, own, shared = torch.ones(d).double(), 0.3, 0.7
    truth = (
        kernel_mean_of_normals(mean, one, mean, one)
        + kernel_mean_of_normals(other, one, other, one)
        - 2 * kernel_mean_of_normals(mean, one, other, one)
    )
    generator, hits, values = torch.Generator().manual_seed(3), 0, []
    for _ in range(150):
        draw = [
            torch.randn(*shape, d, generator=generator).double()
            for shape in ((real_images,), (sources, 1), (sources, 2))
        ]
        real, fake = mean + draw[0], other + shared**0.5 * draw[1] + own**0.5 * draw[2]
        counts = [resampled_counts(n, 100, generator) for n in (real_images, sources)]
        found = (
            mean_kernel(real, x_counts=counts[0])
            + mean_kernel(fake, x_counts=counts[1])
            - 2 * mean_kernel(real, fake, *counts)
        )
        value, *replicates = found.tolist()
        low, high = interval(value, replicates)
        hits += low <= truth <= high
        values.append(value)
    assert np.mean(values) == pytest.approx(truth, abs=3 * np.std(values) / 150**0.5)
    assert least <= hits / 150 <= most


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("k", [1, 5])
def test_density_and_coverage_are_prdcs(sizes: tuple[int, int, int], k: int, capsys: Any) -> None:
    prdc = pytest.importorskip("prdc")
    real, fake = pair(sizes)
    theirs = prdc.compute_prdc(real.double().numpy(), fake.double().numpy(), nearest_k=k)
    assert density_coverage(real, fake, k) == pytest.approx((theirs["density"], theirs["coverage"]), rel=1e-4)


@pytest.mark.parametrize("entries", [1, 1000, 1 << 24])
def test_density_and_coverage_do_not_depend_on_the_size_of_blocks(
    entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "_BLOCK_ENTRIES", entries)
    real, fake = (each.double().numpy() for each in pair((61, 47, 5)))
    radius = np.sort(scipy.spatial.distance.cdist(real, real), axis=1)[:, 3]
    inside = scipy.spatial.distance.cdist(real, fake) < radius[:, None]
    found = neighbours(torch.from_numpy(real), torch.from_numpy(fake), 3)
    np.testing.assert_allclose(found.density, inside.sum(axis=0) / 3)
    np.testing.assert_array_equal(found.covered, inside.any(axis=1))


@pytest.mark.parametrize(("copies", "k"), [(1, 5), (4, 3), (7, 5), (3, 5)])
def test_a_copy_of_the_real_images_has_density_and_coverage_1_however_many_twins_they_have(copies: int, k: int) -> None:
    """Also where the features of twins differ by the rounding of another batch."""
    real = features(40, 16, 5, unit=True).repeat(copies, 1)
    noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(1)) * 1e-8
    for fake in (real, real.flip(0), real + noise):
        assert density_coverage(real, fake, k) == pytest.approx((1.0, 1.0), rel=1e-12)
    assert density_coverage(real, real + 9, k) == (0.0, 0.0)


def test_equally_far_neighbours_share_what_their_ball_lacks() -> None:
    """On a line, the ball of 0 with k = 1 has −1 and 1 on its rim, itself inside; that of 5 has two on it as well."""
    line = torch.tensor([[-1.0], [0.0], [1.0], [5.0], [3.0], [7.0]])
    found = neighbours(line, line, 1)
    np.testing.assert_allclose(found.density, np.ones(6))  # 1 = k inside: nothing is left for the rim
    found = neighbours(line, line, 2)  # of 0: itself inside, two on the rim, each counts half
    radii = np.sort(np.abs(line.numpy() - line.numpy().T), axis=1)[:, 2]
    expected = np.zeros(6)
    for row, radius in enumerate(radii):
        distance = np.abs(line.numpy()[:, 0] - line.numpy()[row, 0])
        inside, rim = distance < radius, distance == radius
        expected += inside + rim * (2 - inside.sum()) / rim.sum()
    np.testing.assert_allclose(found.density, expected / 2)
    assert found.density.mean() == pytest.approx(1.0)


@pytest.mark.parametrize("entries", [1, 1 << 24])
def test_twins_are_counted_once_and_not_looked_for_within_a_group(
    entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "_BLOCK_ENTRIES", entries)
    rows = torch.tensor([[0.0, 0], [5, 0], [0, 0.009], [5, 5], [0, 0.02], [9, 9]])
    found = twins(rows, 0.01)
    assert found.twin.tolist() == [True, False, True, False, False, False]
    assert found.first.tolist() == [True, True, False, True, True, True]
    groups = torch.stack([rows[[0, 2]], rows[[1, 3]], rows[[1, 5]]])
    found = twins(groups, 0.01)
    assert found.twin.tolist() == [False, False, True, False, True, False]
    assert int(found.first.sum()) == 5
    assert copied(rows + 0.001, rows[1:3], 0.01).tolist() == [True, True, True, False, False, False]


def test_cosine_distance_and_spread_are_the_plain_formulas() -> None:
    groups = features(4 * 5, 9, 7).reshape(4, 5, 9)
    expected = [
        np.mean([scipy.spatial.distance.cosine(a, b) for a, b in combinations(group.double().numpy(), 2)])
        for group in groups
    ]
    np.testing.assert_allclose(spread(groups), expected, rtol=1e-9)
    one, other = groups[0], groups[1]
    pairs = zip(one.double().numpy(), other.double().numpy(), strict=True)
    np.testing.assert_allclose(
        cosine_distance(one, other), [scipy.spatial.distance.cosine(*each) for each in pairs], rtol=1e-9
    )


def test_lpips_is_that_of_the_lpips_package_on_the_same_activations() -> None:
    """Random activations stand in for AlexNet's: its weights are no part of any package."""
    lpips = pytest.importorskip("lpips")
    generator = torch.Generator().manual_seed(0)
    shapes = [(6, 9, 9), (11, 4, 4), (3, 1, 1)]
    one, other = ([torch.randn(5, *shape, generator=generator).relu() for shape in shapes] for _ in range(2))
    heads = [torch.rand(shape[0], generator=generator) for shape in shapes]
    theirs = torch.zeros(5)
    for a, b, head in zip(one, other, heads, strict=True):
        layer = nn.Conv2d(len(head), 1, 1, bias=False)
        layer.weight.data = head[None, :, None, None]
        difference = (lpips.normalize_tensor(a) - lpips.normalize_tensor(b)) ** 2
        theirs += lpips.spatial_average(layer(difference), keepdim=False).flatten().detach()
    scaled = [[unit_channels(layer) for layer in side] for side in (one, other)]
    torch.testing.assert_close(perceptual_distance(*scaled, heads), theirs, rtol=1e-4, atol=1e-6)


def test_resampled_counts_draw_as_many_rows_as_there_are_each_alike() -> None:
    counts = resampled_counts(7, 4000, torch.Generator().manual_seed(0))
    assert counts.shape == (4000, 7)
    assert (counts.sum(dim=1) == 7).all()
    assert counts.double().mean(dim=0).numpy() == pytest.approx(np.ones(7), abs=0.06)
    assert resampled_counts(7, 0).shape == (0, 7)


def test_the_interval_of_a_mean_is_the_one_of_the_normal_law() -> None:
    values = torch.randn(400, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3
    counts = resampled_counts(400, 4000, torch.Generator().manual_seed(2)).double()
    low, high = interval(float(values.mean()), (counts @ values / 400).tolist())
    half = 1.96 * float(values.std()) / 20
    assert (low, high) == pytest.approx((float(values.mean()) - half, float(values.mean()) + half), abs=0.1 * half)


def test_the_interval_takes_out_the_shift_that_drawing_twice_makes() -> None:
    """A coverage of bootstrap samples lies below that of the sample itself; the interval must hold the estimate."""
    low, high = interval(0.9, [0.6, 0.62, 0.58, 0.61, 0.59, float("nan")])
    assert low < 0.9 < high
    assert high - low == pytest.approx(0.04, rel=0.1)
    thousand = [float(n) for n in range(1, 1000)]
    assert interval(500, thousand) == pytest.approx((25, 975))  # a share of 0.025 of 1 000 places lies below the 25th
    assert interval(0.5, []) == (0.5, 0.5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: moments(torch.zeros(1, 3)),
        lambda: kernel_distance(torch.zeros(1, 3), torch.zeros(9, 3)),
        lambda: mean_kernel(torch.zeros(1, 4, 3)),
        lambda: density_coverage(torch.zeros(5, 3), torch.zeros(9, 3), 5),
        lambda: density_coverage(torch.zeros(6, 3), torch.zeros(0, 3), 5),
        lambda: moments(torch.full((3, 3), float("nan"))),
        lambda: moments(torch.zeros(3)),
    ],
)
def test_too_few_images_and_damaged_features_are_named(call: Callable[[], Any]) -> None:
    with pytest.raises(LanitError, match=r"too few|not finite"):
        call()
