"""How figures are drawn in a terminal: bars, the mark at 0, and plain characters where there are no others."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import numpy as np
import pytest

from pipeline.inspection.inspect_labels import inspect_labels
from pipeline.inspection.table import LARGEST, MOST_DOMAINS, show_statistics
from pipeline.showing import console
from pipeline.store.label_revisions import LabelRevision


@pytest.fixture
def unicode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_unicode", lambda stream: True)


@pytest.mark.usefixtures("unicode")
def test_bars_are_in_proportion_and_nothing_is_blank() -> None:
    assert console.sparkline([0, 1, 2, 4, 8]) == " ▁▂▄█"
    assert console.sparkline([1, 1000]) == "▁█", "what is there is seen"
    assert console.sparkline([0, 0]) == "  "
    assert console.sparkline([]) == ""
    assert console.sparkline([8, 4], mark=1) == "█│▄"


def test_plain_characters_stand_in_for_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_unicode", lambda stream: False)
    drawn = console.sparkline([0, 1, 8], mark=1)
    assert drawn.isascii()
    assert len(drawn) == 4


@pytest.mark.usefixtures("unicode")
@pytest.mark.parametrize("shift", [-3.0, -0.7, 0.0, 0.4, 5.0])
def test_the_bound_parts_negative_from_positive_margins(
    shift: float, make_revision: Callable[..., LabelRevision], capsys: pytest.CaptureFixture[str]
) -> None:
    margin = np.random.default_rng(0).normal(size=(400, 3)) + np.array([shift, 0, 0])
    show_statistics(inspect_labels(make_revision(margin)))
    rows = [line for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert len(rows) == 3
    for row, column in zip(rows, margin.T, strict=True):
        drawn = re.search(r"([ ▁▂▃▄▅▆▇█]*)│([ ▁▂▃▄▅▆▇█]*)   ", row)
        assert drawn is not None
        left, right = (part.strip() for part in drawn.groups())
        assert bool(left) == bool((column < 0).any())
        assert bool(right) == bool((column >= 0).any())
        assert len(left) + len(right) <= 12


def test_a_report_prints_what_was_asked_for_and_names_the_rest(
    make_revision: Callable[..., LabelRevision], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    statistics = inspect_labels(make_revision(np.random.default_rng(0).normal(size=(150, 3))))
    show_statistics(statistics, hints=True)
    shown = stream.getvalue()
    assert "not asked for" in shown
    assert "Scores against" not in shown
    for option in ("--augment 500", "--duplicates", "--truth FILE"):
        assert option in shown
    for d in statistics.domains:
        assert re.search(rf"{d.domain} +{d.count} +{100 * d.share:.1f} %", shown)


def test_of_many_phrases_those_of_the_most_images_are_listed_and_the_rest_is_counted(
    make_revision: Callable[..., LabelRevision], capsys: pytest.CaptureFixture[str]
) -> None:
    margin = np.random.default_rng(0).normal(size=(60, MOST_DOMAINS + 5)) + np.linspace(-1, 1, MOST_DOMAINS + 5)
    names = tuple(f"phrase-{n:03}" for n in range(MOST_DOMAINS + 5))
    show_statistics(inspect_labels(make_revision(margin, domains=names)))
    out, err = capsys.readouterr()
    images = (margin > 0).sum(axis=0)
    largest = sorted(sorted(range(len(names)), key=lambda n: -images[n])[:LARGEST])
    listed = re.findall(r"^(phrase-\d+) ", out, re.MULTILINE)
    assert listed == [names[n] for n in largest] * 2, "in both tables"
    assert f"and {len(names) - LARGEST} more, of fewer images: --json has them all" in out
    assert len(err.splitlines()) < 60
