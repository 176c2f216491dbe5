"""The tables of a label revision, as ``lanit label``, ``lanit inspect-labels`` and the demo print them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lanit.errors import listed
from pipeline.showing import console

if TYPE_CHECKING:
    from pipeline.inspection.label_statistics import DomainStatistics, Duplicates, LabelStatistics
    from pipeline.inspection.scores import Scores
    from pipeline.store.fill_figures import FillFigures


MOST_DOMAINS = 60
"""Domains that are listed all; of more, the ``LARGEST``."""
LARGEST = 20

_NO_BREAK = "\N{NO-BREAK SPACE}"
_MOST_LABELS = 12  # numbers of labels per image told apart
_BARS = 10  # of a histogram in the table, about
_LARGE = 0.1  # margins from which on three decimals say enough


def show_statistics(statistics: LabelStatistics, *, hints: bool = False) -> None:
    """Print the tables of domains, coverage and scores on stdout, and the warnings on stderr.

    hints: name the options that would show more.
    """
    say_summary(statistics)
    _show_domains(statistics)
    _show_together(statistics)
    _show_images(statistics)
    if statistics.fill is not None:
        show_fill(statistics.fill)
    if statistics.duplicates is not None:
        _show_duplicates(statistics.duplicates)
    if statistics.scores is not None:
        _show_scores(statistics.scores)
    if hints:
        _show_hints(statistics)
    warn(statistics)


def warn(statistics: LabelStatistics) -> None:
    for warning in statistics.warnings:
        console.warn(warning)


_NAMED = 6  # phrases of a summary


def say_summary(statistics: LabelStatistics) -> None:
    """Three lines: how many images have a label and by which rule, which phrases have the most, and which the fewest
    or is least stable."""
    largest = sorted(statistics.domains, key=lambda d: -d.count)
    named = ", ".join(f"{d.domain} {d.count:,}" for d in largest[:_NAMED])
    more = f", and {len(largest) - _NAMED:,} more" if len(largest) > _NAMED else ""
    weakest = f"{largest[-1].domain}, with {largest[-1].count:,} images"
    scored = [d for d in largest if d.stability is not None]
    if scored:
        least = min(scored, key=lambda d: d.stability or 0.0)
        weakest += f"; least stable: {least.domain}, κ {least.stability:.2f}"
    name = f"revision {statistics.revision}" if statistics.revision else "not written"
    labelled = f"{console.percent(statistics.coverage)} of {statistics.images:,} images have a label"
    _say_entries([
        (name, f"{labelled}, {statistics.labels_per_image:.2f} on average; {statistics.rule.describe()}"),
        ("most", named + more),
        ("fewest", weakest),
    ])  # fmt: skip


def say_people(statistics: LabelStatistics) -> None:
    """What labels by people came to, where there are any."""
    entries = list(_of_people(statistics))
    if entries:
        _say_entries(entries)


def listed_domains(counts: Sequence[int]) -> list[int]:
    """Numbers of the domains that a table lists, rising: all, or those of the most images. counts: images of each."""
    if len(counts) <= MOST_DOMAINS:
        return list(range(len(counts)))
    return sorted(sorted(range(len(counts)), key=lambda n: (-counts[n], n))[:LARGEST])


def say_more(domains: int) -> None:
    """Say how many of ``domains`` domains :func:`listed_domains` left out, and where they are."""
    if domains > MOST_DOMAINS:
        console.say(f"and {domains - LARGEST:,} more, of fewer images: --json has them all\n")


def margin(value: float, places: int = 4) -> str:
    """A margin, as tables print it."""
    return f"{value:+.{places}f}"


def _show_domains(statistics: LabelStatistics) -> None:
    width = -(-(len(statistics.histogram_edges) - 1) // _BARS)
    stable = statistics.stability is not None
    places = 3 if max(max(-d.margin_p5, d.margin_p95) for d in statistics.domains) >= _LARGE else 4
    rows = [
        (d.domain, f"{d.count:,}", console.percent(d.share), margin(d.mean_margin, places),
         margin(d.margin_p5, places), margin(d.margin_p95, places), *([_score(d.stability)] if stable else []),
         _histogram(d.histogram, statistics.histogram_edges, width), console.percent(d.ambiguous_share))
        for d in _listed(statistics)
    ]  # fmt: skip
    name = f"revision {statistics.revision}" if statistics.revision else "not written"
    title = f"Labels, {name} ({statistics.rule.describe()}; {statistics.origin})"
    columns = [
        "domain",
        "images",
        "share",
        "margin",
        "5 %",
        "95 %",
        *(["stable"] if stable else []),
        "spread",
        "unsure",
    ]
    console.table(title, columns, rows)
    say_more(len(statistics.domains))


def _listed(statistics: LabelStatistics) -> list[DomainStatistics]:
    return [statistics.domains[n] for n in listed_domains([d.count for d in statistics.domains])]


def _histogram(counts: Sequence[int], edges: Sequence[float], width: int) -> str:
    """Bars of ``width`` bins each, with a mark at margin 0, where it lies between two of them."""
    zero = next((i for i, edge in enumerate(edges) if edge == 0), 0)
    first = zero % width - width if zero % width else 0  # so that 0 lies between two bars
    starts = range(first, len(counts), width)
    bars = [sum(counts[max(start, 0) : start + width]) for start in starts]
    return console.sparkline(bars, (zero - first) // width)


def _show_together(statistics: LabelStatistics) -> None:
    augmented, human, stable = statistics.augmented is not None, statistics.human > 0, statistics.stability is not None
    columns = ["domain", "goes with", "of its images", "lift", "only label"]
    columns += ["stable, 95 %"] if stable else []
    columns += (["mirrored", "cropped"] if augmented else []) + (["by people", "not CLIP's"] if human else [])
    rows = []
    for d in _listed(statistics):
        other = d.companion
        row = [d.domain, *((other.domain, console.percent(other.share), f"{other.lift:.2g}") if other else ("-",) * 3)]
        row.append(console.percent(d.only_share))
        row += [_interval(d.stability_low, d.stability_high)] if stable else []
        row += [console.percent(d.mirror_flips), console.percent(d.crop_flips)] if augmented else []
        row += [f"{d.human:,}", "-" if d.human_differ is None else f"{d.human_differ:,}"] if human else []
        rows.append(tuple(row))
    sample = ""
    if statistics.augmented is not None:
        sample = f"; changed in {statistics.augmented.images:,} images mirrored and cropped"
    console.table(f"Labels together{sample}", columns, rows, left=2)


def _show_images(statistics: LabelStatistics) -> None:
    counts = [(str(labels), count) for labels, count in enumerate(statistics.label_counts)]
    if len(counts) > _MOST_LABELS + 1:
        rest = sum(count for _, count in counts[_MOST_LABELS:])
        counts[_MOST_LABELS:] = [(f"{_MOST_LABELS} or more", rest)]
    shares = [f"{labels}: {console.percent(count / statistics.images)}" for labels, count in counts if count]
    spread = ", ".join(share.replace(" ", _NO_BREAK) for share in shares)
    smallest = f"'{statistics.smallest}' with {statistics.smallest_count:,} images"
    entries = [
        ("coverage", f"{console.percent(statistics.coverage)} of {statistics.images:,} images have a label"),
        ("slack domain", f"{console.percent(statistics.slack_share)} have none"),
        ("labels per image", f"{statistics.labels_per_image:.2f} on average ({spread})"),
        ("smallest domain", f"{smallest}; below {statistics.minimum} there is little to learn from"),
        (
            "margin",
            "cosine to the prompt minus cosine to the base prompt: its mean, what 5 % and 95 % lie "
            "below, and how it is spread; the bar marks 0",
        ),
        ("unsure", f"margin within {statistics.epsilon:.2g} of where labels begin: it might as well be the other way"),
    ]
    if statistics.stability is not None:
        stable = "how far the labels of two crops of an image agree beyond chance (Cohen's κ; 1: always), over "
        entries.append(("stable", f"{stable}{statistics.stability.images:,} images; not whether they are right"))
    _say_entries(entries + list(_of_people(statistics)))


def _of_people(statistics: LabelStatistics) -> Iterator[tuple[str, str]]:
    people, name = statistics.people, "by people"
    if statistics.human:
        differ = "" if statistics.human_differ is None else f", {statistics.human_differ:,} of them against CLIP"
        yield name, f"{statistics.human:,} labels are people's{differ}; margins are CLIP's"
    for count, text in (
        (people.not_in_revision, "are kept and not in this revision: lanit label applies them"),
        (people.waiting, "are kept for images that the store does not hold"),
        (people.other_phrases, "are kept for other phrases"),
        (people.changed, "were given to images whose content is another now: look at those again"),
    ):
        if count:
            yield name, f"{count:,} labels {text}"


def _say_entries(entries: Sequence[tuple[str, str]]) -> None:
    for name, text in entries:
        for line in textwrap.wrap(f"{name:18}{text}", 80, subsequent_indent=" " * 18):
            console.say(line.replace(_NO_BREAK, " "))
    console.say("")


def show_fill(found: FillFigures) -> None:
    """What is known, and how far the labels that were filled in from it agree with known ones that were left out."""
    shown = [found.domains[n] for n in listed_domains([d.on for d in found.domains])]
    left_out = found.left_out > 0
    columns = ["phrase", "known on", "known off", "F1 by words", "F1 filled in", "95 %"]
    rows = []
    for d in shown:
        row = [d.domain, f"{d.on:,}", f"{d.off:,}", _score(d.f1_words), _score(d.f1), _interval(d.f1_low, d.f1_high)]
        rows.append(row + ([_score(d.f1_left_out)] if left_out else []))
    macro = ["macro", "", "", _score(found.f1_words), _score(found.f1), _interval(found.f1_low, found.f1_high)]
    rows.append(macro + ([_score(found.f1_left_out)] if left_out else []))
    columns += ["F1 left out"] if left_out else []
    console.table(f"Filled in from what is known of {found.images:,} images", columns, rows)
    say_more(len(found.domains))
    entries = [("F1 filled in", "of known labels, by heads that they were left out of; phrases without it go by words")]
    if left_out:
        entries.append(
            ("F1 left out", f"of the labels of {found.left_out:,} images that --keep {found.keep:g} left out")
        )
    if found.doubted:
        entries.append(("doubted", f"{found.doubted:,} known labels look wrong; they stay as they are"))
    _say_entries(entries)


def _show_duplicates(found: Duplicates) -> None:
    entries = [
        ("near-duplicates", f"{found.groups:,} groups; {console.percent(found.share)} of the images are copies of "
         f"others ({found.exact_copies:,} of the same content, {found.near_copies:,} of the same picture)"),
    ]  # fmt: skip
    entries += [
        ("leakage", f"{each.groups:,} groups lie in both '{each.first}' and '{each.second}'") for each in found.leaks
    ]
    _say_entries(entries)


def _show_scores(scores: Scores) -> None:
    rows = [
        (d.domain, f"{d.count:,}", _score(d.precision), _score(d.recall), _score(d.f1), _score(d.average_precision),
         _score(d.best_f1), "-" if d.best_offset is None else margin(d.best_offset))
        for d in (scores.domains[n] for n in listed_domains([d.count for d in scores.domains]))
    ]  # fmt: skip
    columns = ("domain", "images", "precision", "recall", "F1", "AP", "best F1", "offset")
    console.table(f"Scores against the truth of {scores.images:,} images", columns, rows)
    say_more(len(scores.domains))
    means = [
        ("macro", scores.macro_precision, scores.macro_recall, scores.macro_f1, scores.mean_average_precision),
        ("micro", scores.micro_precision, scores.micro_recall, scores.micro_f1, scores.micro_average_precision),
    ]
    shown = [(name, *map(_score, values)) for name, *values in means]
    console.table("Over all domains", ("mean", "precision", "recall", "F1", "AP"), shown)
    if scores.confusions:
        mistaken = [(c.actual, c.predicted, f"{c.count:,}", console.percent(c.share)) for c in scores.confusions]
        console.table("Labelled another instead", ("is", "labelled", "images", "of those that are"), mistaken, left=2)
    entries = [("subset accuracy", f"{_score(scores.subset_accuracy)}: the share of images with every label right")]
    for count, what in (
        (scores.without_truth, "images have no truth"),
        (scores.not_in_store, "rows of the truth have no image in the store"),
    ):
        if count:
            entries.append(("not scored", f"{count:,} {what}"))
    if scores.domains_without_truth:
        entries.append(("not scored", f"no truth for {listed(scores.domains_without_truth)}"))
    _say_entries(entries)


def _show_hints(statistics: LabelStatistics) -> None:
    more = [
        (statistics.augmented, "labels that change under mirror and crop: --augment 500"),
        (statistics.duplicates, "near-duplicates and leakage: --duplicates"),
        (statistics.scores, "scores: --truth FILE, or --truth folders"),
    ]
    missing = [text for found, text in more if found is None]
    if missing:
        _say_entries([("not asked for", "; ".join(missing))])


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:.2f} to {high:.2f}"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
