"""The table of a label revision, as ``lanit label``, ``lanit inspect-labels`` and the demo print it."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from pipeline import console

if TYPE_CHECKING:
    from pipeline.inspect_labels import LabelStatistics, Scores


_NO_BREAK = "\N{NO-BREAK SPACE}"


def show_statistics(statistics: LabelStatistics) -> None:
    """Print the table of domains, coverage and scores on stdout, and the warnings on stderr."""
    rows = [
        (d.domain, f"{d.count:,}", console.percent(d.share), console.bar(d.share), f"{d.mean_margin:+.4f}",
         console.percent(d.ambiguous_share))
        for d in statistics.domains
    ]  # fmt: skip
    title = f"Labels, revision {statistics.revision} ({describe_rule(statistics.rule)}; {statistics.origin})"
    console.table(title, ("domain", "images", "share", "", "mean margin", "ambiguous"), rows)
    _show_images(statistics)
    if statistics.scores is not None:
        _show_scores(statistics.scores)
    for warning in statistics.warnings:
        console.warn(warning)


def describe_rule(rule: dict[str, Any]) -> str:
    """A rule in words: "adaptive threshold", "top-k, k = 2", "cosine above 0.25", "arg-max"."""
    value = rule["value"]
    return {
        "adaptive": "adaptive threshold",
        "top-k": f"top-k, k = {value:g}",
        "fixed": f"cosine above {value:g}",
        "argmax": "arg-max",
    }.get(rule["kind"], str(rule["kind"]))


def _show_images(statistics: LabelStatistics) -> None:
    counts = enumerate(statistics.label_counts)
    shares = [f"{labels}: {console.percent(count / statistics.images)}" for labels, count in counts if count]
    spread = ", ".join(share.replace(" ", _NO_BREAK) for share in shares)
    entries = (
        ("coverage", f"{console.percent(statistics.coverage)} of {statistics.images:,} images have a label"),
        ("slack domain", f"{console.percent(statistics.slack_share)} have none"),
        ("labels per image", f"{statistics.labels_per_image:.2f} on average ({spread})"),
        ("ambiguous", f"|margin| < {statistics.epsilon:.2g} (cosine to the prompt minus to the base)"),
    )
    for name, text in entries:
        lines = textwrap.fill(f"{name:18}{text}", 80, subsequent_indent=" " * 18)
        console.say(lines.replace(_NO_BREAK, " "))
    console.say("")


def _show_scores(scores: Scores) -> None:
    rows = [
        (d.domain, f"{d.count:,}", _score(d.precision), _score(d.recall), _score(d.f1), _score(d.average_precision))
        for d in scores.domains
    ]
    columns = ("domain", "true images", "precision", "recall", "F1", "AP")
    console.table(f"Scores against the truth of {scores.images:,} images", columns, rows)
    console.say(f"macro F1          {_score(scores.macro_f1)}")
    console.say(f"micro F1          {_score(scores.micro_f1)}")
    console.say(f"mean AP           {_score(scores.mean_average_precision)}")
    console.say(f"subset accuracy   {_score(scores.subset_accuracy)}")
    left_out = (
        (scores.without_truth, "images have no truth"),
        (scores.not_in_store, "rows of the truth have no image in the store"),
    )
    for count, what in left_out:
        if count:
            console.say(f"not scored        {count:,} {what}")
    if scores.domains_without_truth:
        console.say(f"not scored        no column for {', '.join(scores.domains_without_truth)}")
    console.say("")


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
