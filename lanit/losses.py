"""Losses as free functions: METHOD §3. Labels d are bool or float (B×N); every result is a scalar tensor.

Where several processes share a batch (``ranks``), the mean of their results is the result of the whole batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lanit.ranks import ALONE, Draws, Ranks

DomainForm = Literal["margin", "cosine"]
AdversarialForm = Literal["softplus", "hinge", "lsgan"]


@dataclass(frozen=True)
class LossWeights:
    """λ of METHOD 11 that stay the same from step to step, and of terms that other systems add; one at 0 costs nothing.

    identity: G(x, E_S(x; d^x)) is x. distance: translations lie as far apart as their sources. self: x̂ is near x, pixel
    by pixel. feature: CLIP sees the same in both, domains apart. direction: CLIP sees x̂ change as the words do.
    triplet: styles of a domain lie nearer to each other than to another's. shrink: styles lie near zero. content: E_C
    reads the same in both. pair: x̂ is the partner of x, where images are paired. classification: D learns to tell the
    domains of x, and sees those asked for, and no others, in x̂; of both sides' losses.
    """

    adversarial: float = 1.0
    domain: float = 0.5
    cycle: float = 1.0
    style: float = 1.0
    identity: float = 0.0
    distance: float = 0.0
    self: float = 0.0
    feature: float = 0.0
    direction: float = 0.0
    triplet: float = 0.0
    shrink: float = 0.0
    content: float = 0.0
    pair: float = 0.0
    classification: float = 0.0

    @property
    def looks(self) -> bool:
        """Whether CLIP must look at x too."""
        return bool(self.feature or self.direction)


def _over_active(values: Tensor, labels: Tensor, ranks: Ranks) -> Tensor:
    """Mean of ``values`` (B×N) over the active entries of the whole batch; zero where none is."""
    mask = labels.to(values.dtype)
    return (values * mask).sum() / ranks.mean(mask.sum()).clamp(min=1 / ranks.count)


def discriminator_loss(
    real: Tensor,
    real_labels: Tensor,
    fake: Tensor,
    fake_labels: Tensor,
    ranks: Ranks = ALONE,
    form: AdversarialForm = "softplus",
) -> Tensor:
    """softplus(−D_n(x)) over d^x + softplus(D_n(x̂)) over d^y (METHOD 5). Logits float (B×N).

    ``hinge``: max(0, 1 − D_n(x)) + max(0, 1 + D_n(x̂)) (Lim and Ye, 2017). ``lsgan``: ½(D_n(x) − 1)² + ½D_n(x̂)²
    (Mao et al., ICCV 2017), with CycleGAN's half.
    """
    if form == "hinge":
        of_real, of_fake = F.relu(1 - real), F.relu(1 + fake)
    elif form == "lsgan":
        of_real, of_fake = 0.5 * (real - 1).square(), 0.5 * fake.square()
    else:
        of_real, of_fake = F.softplus(-real), F.softplus(fake)
    return _over_active(of_real, real_labels, ranks) + _over_active(of_fake, fake_labels, ranks)


def adversarial_loss(fake: Tensor, labels: Tensor, ranks: Ranks = ALONE, form: AdversarialForm = "softplus") -> Tensor:
    """softplus(−D_n(x̂)) over d^y, non-saturating (METHOD 5); ``hinge``: −D_n(x̂); ``lsgan``: (D_n(x̂) − 1)²."""
    if form == "hinge":
        return _over_active(-fake, labels, ranks)
    return _over_active((fake - 1).square() if form == "lsgan" else F.softplus(-fake), labels, ranks)


def real_classification_loss(classes: Tensor, labels: Tensor) -> Tensor:
    """Mean of BCE(d_n, c_n(x)): D's classifier learns the domains of real images (StarGAN's L_cls^r, Choi et al., CVPR
    2018). classes: logits c (B×N); labels: bool (B×N), without slack."""
    return F.binary_cross_entropy_with_logits(classes.float(), labels.float())


def gradient_penalty(logits: Tensor, labels: Tensor, images: Tensor) -> Tensor:
    """R1, ½‖∇_x D‖² averaged over the batch (METHOD 6; Mescheder et al., 2018).

    logits: D(images), float (B×N), with its graph; images: (B×3×S×S) that require gradients.
    """
    judged = (logits * labels.to(logits.dtype)).sum()
    (gradient,) = torch.autograd.grad(judged, images, create_graph=True)
    return 0.5 * gradient.float().square().flatten(1).sum(dim=1).mean()


def l1(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference, in float32: cycle (METHOD 7), style reconstruction (8), diversity (9); of the optional
    terms ``identity`` (CycleGAN, Zhu et al., ICCV 2017), ``self`` (SimGAN, Shrivastava et al., CVPR 2017) and ``pair``
    (pix2pix, Isola et al., CVPR 2017)."""
    return F.l1_loss(a.float(), b.float())


def flip_one(labels: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Draw one active domain per row and flip it off (METHOD 10).

    labels: bool (B×N), without the slack domain. Where the drawn domain was the only one, a random other domain is
    switched on; where none is active (the slack domain), a random domain is drawn and flipped on.
    Returns the drawn n (int64 B) and d_inv (bool B×N).
    """
    rows, domains = labels.shape
    draw = draws.uniform(rows, domains)
    drawn = (draw + labels).argmax(dim=1)  # an active entry is worth more than any inactive one
    flipped = labels.scatter(1, drawn[:, None], ~labels.gather(1, drawn[:, None]))
    if domains == 1:
        return drawn, flipped
    other = (draw - 2.0 * labels).argmax(dim=1)
    empty = ~flipped.any(dim=1, keepdim=True)
    chosen = torch.zeros_like(labels).scatter_(1, other[:, None], True)  # unlike one_hot, it reads no value
    return drawn, flipped | (empty & chosen)


def domain_loss(margins: Tensor, drawn: Tensor, labels: Tensor, scale: Tensor | float) -> Tensor:
    """BCE(d_n, p_n) of the drawn domain, p_n = σ(α (f_n − f_base)), one term of METHOD 10.

    margins: float (B×N); drawn: int64 (B); labels: bool (B×N); scale: α.
    """
    logit = margins.gather(1, drawn[:, None]).float() * scale
    return F.binary_cross_entropy_with_logits(logit, labels.gather(1, drawn[:, None]).float())


def domain_loss_active(margins: Tensor, labels: Tensor, scale: Tensor | float, ranks: Ranks = ALONE) -> Tensor:
    """BCE(1, p_n) over every active domain of the batch rather than one drawn per image.

    Ours, not the paper's one draw (METHOD 10): less variance, for small batches and short runs.
    """
    return _over_active(F.softplus(-margins.float() * scale), labels, ranks)


def domain_loss_all(margins: Tensor, labels: Tensor, scale: Tensor | float, ranks: Ranks = ALONE) -> Tensor:
    """BCE(1, p_n) over the labels of the batch, plus BCE(0, p_n) over all other domains, each as a mean.

    Ours: what shows every domain at once would please :func:`domain_loss_active`. labels: bool (B×N). With logits of
    D's classifier for margins and scale 1 it is what G learns by ``classification`` (StarGAN's L_cls^f, there a mean
    of all).
    """
    logits = margins.float() * scale
    return _over_active(F.softplus(-logits), labels, ranks) + _over_active(F.softplus(logits), ~labels, ranks)


def domain_loss_cosine(similarities: Tensor, drawn: Tensor, labels: Tensor) -> Tensor:
    """The paper's H(d, f) on raw cosines, for reproduction (METHOD 10): −log f_n where d_n, −log(1 − f_n) elsewhere.

    similarities: float (B×N) in [-1, 1]; clamped to [1e-6, 1 − 1e-6], since a cosine is no probability.
    """
    chosen = similarities.gather(1, drawn[:, None]).float().clamp(1e-6, 1 - 1e-6)
    return F.binary_cross_entropy(chosen, labels.gather(1, drawn[:, None]).float())


def feature_loss(made: Tensor, source: Tensor, directions: Tensor) -> Tensor:
    """1 − cos of what embeddings of x̂ and x say beside the domains: DTN's ‖f(x̂) − f(x)‖² (Taigman et al., ICLR 2017)
    with f CLIP's image tower, since for unit vectors half of that is 1 − cos.

    made, source: embeddings (B×k). directions: ū_n − ū_base (N×k), whose span is taken out of both: there the two are
    to differ.
    """
    axes = torch.linalg.qr(directions.float().T).Q
    made, source = (each.float() - each.float() @ axes @ axes.T for each in (made, source))
    return (1 - F.cosine_similarity(made, source)).mean()


def direction_loss(made: Tensor, source: Tensor, texts: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """1 − cos(E_V(x̂) − E_V(x), t^y − t^x), over images whose labels change (StyleGAN-NADA, Gal et al., 2022).

    made, source: embeddings (B×k). texts: t^y − t^x (B×k), zero where the labels do not change.
    """
    angle = 1 - F.cosine_similarity(made.float() - source.float(), texts.float())
    return _over_active(angle[:, None], (texts != 0).any(dim=1, keepdim=True), ranks)


def triplet_loss(anchor: Tensor, positive: Tensor, negative: Tensor, changes: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """max(0, ‖a − p‖ − ‖a − n‖ + 0.1) over images whose labels change (Smoothing, Liu et al., CVPR 2021).

    anchor, positive, negative: styles (B×D_s) of two latents in the target domains, and of the first in the source's.
    changes: bool (B).
    """
    near, far = (torch.linalg.vector_norm(anchor - other, dim=1) for other in (positive, negative))
    return _over_active(F.relu(near - far + 0.1)[:, None], changes[:, None], ranks)


def shrink_loss(target: Tensor, source: Tensor) -> Tensor:
    """Mean squares of target and source styles (B×D_s): what Smoothing calls KL (Liu et al., CVPR 2021)."""
    return target.float().square().mean() + source.float().square().mean()


def content_loss(made: Tensor, source: Tensor) -> Tensor:
    """‖E_C(x̂) − E_C(x)‖₁ of contents (B×C×h×w), each map to mean 0 and variance 1, since a content that shrinks would
    pass for one that stays (MUNIT, Huang et al., ECCV 2018). The source's is held fixed."""
    made, source = (F.group_norm(each.float(), each.shape[1]) for each in (made, source.detach()))
    return F.l1_loss(made, source)


def pair_distances(images: Tensor) -> Tensor:
    """Mean absolute differences between all pairs of images (B×…), (B×B)."""
    flat = images.float().flatten(1)
    return torch.cdist(flat, flat, p=1) / flat.shape[1]


def distance_loss(made: Tensor, source: Tensor, moments: tuple[Tensor, Tensor]) -> Tensor:
    """|(d(x_i, x_j) − μ^x)/σ^x − (d(x̂_i, x̂_j) − μ^y)/σ^y| over pairs of the batch (DistanceGAN, Benaim and Wolf, 2017).

    made, source: images (B×3×S×S). moments: of d^x and of d^y, each (2×B): μ and σ of distances between images of the
    domains of each row; those of a pair are the means of its two. Of several processes each compares its own images.
    """
    first, second = torch.triu_indices(len(made), len(made), 1, device=made.device)
    found = []
    for images, (middle, scale) in zip((source, made), moments, strict=True):
        middle, scale = ((each[first] + each[second]) / 2 for each in (middle, scale))
        found.append((pair_distances(images)[first, second] - middle) / scale)
    return (found[0] - found[1]).abs().mean()


def distance_moments(images: Tensor, labels: Tensor) -> Tensor:
    """μ and σ of distances between the images of each domain, (2×N); of all where fewer than three show it.

    images: float (n×3×S×S), n ≥ 3. labels: bool (n×N), slack included.
    """
    found = []
    for shown in labels.T:
        chosen = images[shown] if int(shown.sum()) > 2 else images
        first, second = torch.triu_indices(len(chosen), len(chosen), 1, device=images.device)
        apart = pair_distances(chosen)[first, second]
        found.append(torch.stack([apart.mean(), apart.std().clamp(min=1e-6)]))
    return torch.stack(found, dim=1)
