"""Bounds for scripts: each figure by its name, and one line for what lies below."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from lanit.errors import LanitError, UsageError
from pipeline.inspection.inspect_labels import inspect_labels
from pipeline.inspection.label_statistics import Stability
from pipeline.inspection.limits import LIMITS, check_limits, parse_limits
from pipeline.labelling.known_labels import Truth
from pipeline.store.label_revisions import LabelRevision


def test_limits_are_read_from_several_texts() -> None:
    assert parse_limits(["coverage=0.9", "f1=0.8, smallest=100"], scored=True) == {
        "coverage": 0.9,
        "f1": 0.8,
        "smallest": 100,
    }
    assert parse_limits([], scored=False) == {}
    for text, message in (("cover=1", "no figure 'cover'"), ("coverage", "'' is no number"), ("f1=x", "'x' is no")):
        with pytest.raises(UsageError, match=message) as caught:
            parse_limits([text], scored=True)
        assert caught.value.hint


def test_only_what_lies_below_fails(make_revision: Callable[..., LabelRevision]) -> None:
    margin = np.random.default_rng(0).normal(size=(60, 3))
    revision = make_revision(margin)
    actual = margin + np.random.default_rng(1).normal(size=margin.shape) > 0
    truth = Truth("path", tuple(revision.paths), revision.domains, actual)
    statistics = inspect_labels(revision, truth=truth)
    statistics = dataclasses.replace(statistics, stability=Stability(600, 1.0))
    scores = statistics.scores
    assert scores is not None
    figures = {
        "coverage": statistics.coverage,
        "stability": 1.0,
        "labels": statistics.labels_per_image,
        "smallest": min(d.count for d in statistics.domains),
        "f1": scores.macro_f1,
        "micro-f1": scores.micro_f1,
        "precision": scores.macro_precision,
        "recall": scores.macro_recall,
        "ap": scores.mean_average_precision,
    }
    assert set(figures) == set(LIMITS)
    check_limits(statistics, {name: value for name, value in figures.items() if value is not None})
    for name, value in figures.items():
        assert value is not None
        with pytest.raises(LanitError, match=f"^{name} is ") as caught:
            check_limits(statistics, {name: value + 1e-3})
        assert caught.value.exit_code == 1
        assert "\n" not in str(caught.value)


def test_scores_need_a_truth(make_revision: Callable[..., LabelRevision]) -> None:
    statistics = inspect_labels(make_revision(np.ones((5, 3))))
    with pytest.raises(UsageError, match="f1 needs known labels"):
        parse_limits(["f1=0.5"], scored=False)
    with pytest.raises(LanitError, match=r"f1 is undefined, below 0.5"):
        check_limits(statistics, {"f1": 0.5})
    with pytest.raises(LanitError, match=r"coverage is 1, below 2; smallest is 5, below 9"):
        check_limits(statistics, {"coverage": 2, "smallest": 9})
