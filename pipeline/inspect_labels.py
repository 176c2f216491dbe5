"""Statistics of a label revision, warnings about its prompts, and scores against known truth."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lanit.errors import LanitError, UsageError

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.store import LabelRevision

DEFAULT_EPSILON_SHARE = 0.1
"""The default ε is this share of the standard deviation of all margins: margins of different CLIPs differ in scale
(0.01 is much for OpenAI's, little for a small model), and about a twelfth of normally spread margins falls within."""

ALWAYS = 0.95
"""A prompt that labels more than this share of the images tells nearly nothing about any of them."""

LOW_COVERAGE = 0.5
"""Below this share of images with a label, the slack domain is the largest of all."""

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class DomainStatistics:
    """One prompt. share: of all images. mean_margin: f_n − f_base over all images; mean_margin_labelled: over those it
    labels, None where it labels none. ambiguous_share: of all images, with |f_n − f_base| < ε."""

    domain: str
    count: int
    share: float
    mean_margin: float
    mean_margin_labelled: float | None
    ambiguous_share: float


@dataclass(frozen=True)
class DomainScores:
    """One prompt against truth. count: images that carry it. average_precision: ranked by margin; None at count 0."""

    domain: str
    count: int
    precision: float
    recall: float
    f1: float
    average_precision: float | None


@dataclass(frozen=True)
class Scores:
    """Labels against truth, over the images and domains known to both; a ratio over nothing is 0, as in scikit-learn.

    images: scored; without_truth: labelled images that the truth lacks; not_in_store: truth rows without an image here.
    subset_accuracy: the share of images on which every scored domain is right.
    """

    images: int
    without_truth: int
    not_in_store: int
    domains: tuple[DomainScores, ...]
    domains_without_truth: tuple[str, ...]
    micro_f1: float
    macro_f1: float
    mean_average_precision: float | None
    subset_accuracy: float


@dataclass(frozen=True)
class LabelStatistics:
    """What ``lanit inspect-labels`` reports.

    coverage: share of images with at least one label; slack_share: the rest (METHOD 3).
    labels_per_image: their mean; label_counts[i]: number of images with i labels, i from 0 to the largest.
    epsilon: a label is ambiguous where |f_n − f_base| lies below it.
    """

    revision: int
    origin: str
    rule: dict[str, Any]
    images: int
    domains: tuple[DomainStatistics, ...]
    coverage: float
    slack_share: float
    labels_per_image: float
    label_counts: tuple[int, ...]
    epsilon: float
    warnings: tuple[str, ...]
    scores: Scores | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain lists, numbers and texts; no number is NaN."""
        return asdict(self)


@dataclass(frozen=True)
class Truth:
    """Known labels. keys: image_id or path of each of the m rows. labels: bool (m×D). domains: D phrases."""

    key: str
    keys: tuple[str, ...]
    domains: tuple[str, ...]
    labels: Bools


def inspect_labels(
    revision: LabelRevision, *, epsilon: float | None = None, truth: Truth | None = None
) -> LabelStatistics:
    """Summarise a revision of n images and N domains.

    epsilon: where given, in units of the cosine; by default ``DEFAULT_EPSILON_SHARE`` of the spread of all margins.
    """
    active, margin = revision.active, revision.margin
    if epsilon is None:
        epsilon = DEFAULT_EPSILON_SHARE * float(margin.std(dtype=np.float64))
    elif not (math.isfinite(epsilon) and epsilon >= 0):
        raise UsageError(f"--epsilon must be a number of at least 0, not {epsilon:g}", "Leave it out for the default.")
    domains = tuple(
        _domain(name, active[:, n], margin[:, n], epsilon) for n, name in enumerate(revision.prompt_set.domains)
    )
    per_image = active.sum(axis=1)
    coverage = float((per_image > 0).mean())
    return LabelStatistics(
        revision=revision.number,
        origin=revision.origin,
        rule=dict(revision.rule),
        images=len(active),
        domains=domains,
        coverage=coverage,
        slack_share=1 - coverage,
        labels_per_image=float(per_image.mean()),
        label_counts=tuple(int(count) for count in np.bincount(per_image)),
        epsilon=epsilon,
        warnings=tuple(_warnings(domains, coverage)),
        scores=None if truth is None else score(revision, truth),
    )


def _domain(name: str, active: Bools, margin: Floats, epsilon: float) -> DomainStatistics:
    return DomainStatistics(
        domain=name,
        count=int(active.sum()),
        share=float(active.mean()),
        mean_margin=float(margin.mean(dtype=np.float64)),
        mean_margin_labelled=float(margin[active].mean(dtype=np.float64)) if active.any() else None,
        ambiguous_share=float((np.abs(margin) < epsilon).mean()),
    )


def _warnings(domains: Sequence[DomainStatistics], coverage: float) -> list[str]:
    found = [f"'{d.domain}' labels no image: reword it or leave it out" for d in domains if d.count == 0]
    for d in domains:
        if d.share > ALWAYS:
            found.append(
                f"'{d.domain}' labels {100 * d.share:.1f} % of the images: it tells none of them from the others"
            )
    if coverage < LOW_COVERAGE:
        found.append(f"only {100 * coverage:.1f} % of the images have a label: add phrases for what the others show")
    return found


def score(revision: LabelRevision, truth: Truth) -> Scores:
    """Compare a revision with the truth of its images. Raises LanitError where they have no image in common."""
    ours = revision.image_ids if truth.key == "image_id" else revision.paths
    row_of = {str(key): row for row, key in enumerate(ours)}
    if len(row_of) != len(ours):
        raise LanitError("two sources of this store hold images of the same path", "Give the truth by image_id.")
    pairs = [(row_of[key], position) for position, key in enumerate(truth.keys) if key in row_of]
    if not pairs:
        raise LanitError(
            f"no {truth.key} of the truth is an image of the store, such as '{truth.keys[0]}' against '{ours[0]}'",
            "Write paths relative to the embedded folder.",
        )
    rows, positions = (np.array(side) for side in zip(*pairs, strict=True))
    names = [name for name in revision.prompt_set.domains if name in truth.domains]
    columns = [revision.prompt_set.domains.index(name) for name in names]
    predicted, margin = revision.active[rows][:, columns], revision.margin[rows][:, columns]
    actual = truth.labels[positions][:, [truth.domains.index(name) for name in names]]
    domains = tuple(_score_domain(name, predicted[:, n], margin[:, n], actual[:, n]) for n, name in enumerate(names))
    precisions = [d.average_precision for d in domains if d.average_precision is not None]
    return Scores(
        images=len(rows),
        without_truth=len(ours) - len(rows),
        not_in_store=len(truth.keys) - len(rows),
        domains=domains,
        domains_without_truth=tuple(name for name in revision.prompt_set.domains if name not in names),
        micro_f1=precision_recall_f1(predicted.ravel(), actual.ravel())[2],
        macro_f1=float(np.mean([d.f1 for d in domains])),
        mean_average_precision=float(np.mean(precisions)) if precisions else None,
        subset_accuracy=float((predicted == actual).all(axis=1).mean()),
    )


def _score_domain(name: str, predicted: Bools, margin: Floats, actual: Bools) -> DomainScores:
    return DomainScores(
        name, int(actual.sum()), *precision_recall_f1(predicted, actual), average_precision(margin, actual)
    )


def precision_recall_f1(predicted: Bools, actual: Bools) -> tuple[float, float, float]:
    """Precision, recall and F1 of bool (n) arrays; 0 where a ratio has nothing to divide by."""
    right = float((predicted & actual).sum())
    ours, theirs = float(predicted.sum()), float(actual.sum())
    return right / max(ours, 1), right / max(theirs, 1), 2 * right / max(ours + theirs, 1)


def average_precision(ranking: Floats, actual: Bools) -> float | None:
    """Σ (R_i − R_{i−1}) P_i over the distinct values of ``ranking`` (n), largest first; None without a positive."""
    if not actual.any():
        return None
    order = np.argsort(-ranking, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(ranking[order])), len(order) - 1)  # ties are taken together
    right = np.cumsum(actual[order])[ends]
    precision, recall = right / (ends + 1), right / right[-1]
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def read_truth(path: Path, domains: Sequence[str]) -> Truth:
    """Read a CSV or Parquet file of known labels.

    It has a column ``image_id`` or ``path`` (relative to the embedded folder) and a column of 0 and 1 (or false and
    true) for each domain; case, and "_" for a space, make no difference in column names; other columns are left alone.
    """
    table = _read_table(path)
    key = next((name for name in ("image_id", "path") if name in table.columns), None)
    if key is None:
        raise LanitError(f"{path} has no column 'path' or 'image_id'", "Name the image of each row in one.")
    column_of = {_plain(str(name)): name for name in table.columns}
    found = tuple(domain for domain in domains if _plain(domain) in column_of)
    if not found:
        raise LanitError(f"{path} has no column for any of: {', '.join(domains)}", "Name its columns as the prompts.")
    keys = tuple(str(value).replace("\\", "/") for value in table[key])
    if not keys:
        raise LanitError(f"{path} has no rows", "Give one row for each image.")
    repeated, count = Counter(keys).most_common(1)[0]
    if count > 1:
        raise LanitError(f"{path} has {count} rows for '{repeated}'", "Keep one row for each image.")
    labels = np.stack([_binary(table[column_of[_plain(domain)]], path) for domain in found], axis=1)
    return Truth(key, keys, found, labels)


def _read_table(path: Path) -> pd.DataFrame:
    import pandas as pd

    if not path.is_file():
        raise LanitError(f"there is no file of truth '{path}'", "Give a CSV or Parquet file with a column 'path'.")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return pd.read_parquet(path)
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except (ValueError, OSError) as error:  # pandas' and Arrow's parse errors are ValueErrors
        raise LanitError(f"cannot read {path}: {error}", "Give a CSV or Parquet file with a column 'path'.") from error


def _binary(column: pd.Series, path: Path) -> Bools:
    texts = column.astype(str).str.strip().str.lower()
    on, off = texts.isin(("1", "1.0", "true")), texts.isin(("0", "0.0", "false"))
    wrong = ~(on | off)
    if wrong.any():
        row = int(np.flatnonzero(wrong.to_numpy())[0])
        value = column.iloc[row]
        raise LanitError(f"{path}: column '{column.name}' has '{value}' in row {row + 1}", "Write 0 or 1 everywhere.")
    return np.asarray(on, dtype=bool)


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())
