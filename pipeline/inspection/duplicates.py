"""Near-duplicates in a report on labels: how many images are redundant, and which leak from one split to another."""

from __future__ import annotations

import dataclasses
from collections import Counter
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipeline.inspection.label_statistics import Duplicates, LabelStatistics, Leak
from pipeline.inspection.warnings import with_warnings

if TYPE_CHECKING:
    from pipeline.searching.duplicates import DuplicateReport

SPLITS = frozenset(
    ("train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval", "evaluation", "holdout")
)
"""Names of folders that hold the parts of a divided dataset, in any case."""


def with_duplicates(statistics: LabelStatistics, report: DuplicateReport) -> LabelStatistics:
    """``statistics`` with what ``find_duplicates`` found in the store, and with the warnings that it calls for."""
    groups = np.repeat(np.arange(report.group_count), np.diff(report.starts))
    found = Duplicates(
        threshold=report.threshold,
        groups=report.group_count,
        exact_copies=report.exact_copies,
        near_copies=report.near_copies,
        share=len(report.redundant) / max(report.images, 1),
        leaks=_leaks(_splits(report.info), groups),
    )
    return with_warnings(dataclasses.replace(statistics, duplicates=found))


def _splits(info: pa.Table) -> list[str]:
    """The split that each image lies in, as ``--between`` takes it: its source where there are several, and its path
    as far as the folder named after a split, if there is one."""
    several = len(info["source"].unique()) > 1
    names = []
    for source, path in zip(info["source"].to_pylist(), info["path"].to_pylist(), strict=True):
        folders = path.split("/")[:-1]
        end = next((n for n, folder in enumerate(folders, 1) if folder.casefold() in SPLITS), 0)
        names.append("/".join([*([source] if several else []), *folders[:end]]))
    return names


def _leaks(splits: list[str], groups: np.ndarray) -> tuple[Leak, ...]:
    """For each two splits the groups of near-duplicates that have images in both. groups: int64, of each image."""
    within: dict[int, set[str]] = {}
    for group, split in zip(groups.tolist(), splits, strict=True):
        within.setdefault(group, set()).add(split)
    shared = Counter(pair for names in within.values() for pair in combinations(sorted(names), 2))
    return tuple(Leak(first, second, count) for (first, second), count in shared.most_common() if first and second)
