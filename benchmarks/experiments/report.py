"""Results to Markdown: means over seeds with their range, and the ratios that were asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.experiments.arms import ARMS, BASELINE, EXPERIMENTS, RATIOS, Arm, arm_named
from benchmarks.experiments.runs import BOUNDS
from pipeline.files import read_json

Result = dict[str, Any]
_SCALE = 1000
_METRICS = (
    ("mfid", f"mFID ×{_SCALE}", 1),
    ("mfid_judge", "mFID, judge", 2),
    ("density", "density", 2),
    ("coverage", "coverage", 2),
    ("recognised", "recognised", 3),
    ("others", "others", 3),
    ("latent_recognised", "recognised, latent", 3),
)

_WHOLE = ("ladder", "domains")  # tables that need no baseline beside them

_READING = (
    "mFID, density and coverage are of CLIP features. The CLIP that measures also guides every arm with words, so read "
    "the judge's columns beside them: mFID of its last features, recognised (the share in which it sees the domain), "
    "others (the share of the other domains that it sees as the reference truly has them). Seconds are the "
    "processor's, as planned: steps times what one costs."
)


def read_results(work: Path) -> list[Result]:
    """Every result of a work folder, by world, arm and seed."""
    files = sorted((work / "results").glob("*/*.json"))
    return [read_json(file) for file in files if file.stem != BOUNDS]


def mean_over_domains(result: Result, metric: str) -> float | None:
    """The mean of a figure over its domains; none where the arm has no such figure."""
    values = result["scores"].get(metric)
    return sum(values) / len(values) if values else None


def spread(values: Iterable[float | None], digits: int, scale: float = 1) -> str:
    """``mean (least–most)``; the mean alone of values that are written alike, a dash of none."""
    found = [value * scale for value in values if value is not None]
    if not found:
        return "–"
    mean, least, most = (f"{value:.{digits}f}" for value in (sum(found) / len(found), min(found), max(found)))
    return mean if least == most else f"{mean} ({least}–{most})"


def ratio_line(results: Sequence[Result], first: str, second: str) -> str | None:
    """The judge's mFID of one arm ÷ another's: of the means, and the range over the seeds that both have; none
    without any."""
    by_seed = [{one["seed"]: mean_over_domains(one, "mfid_judge") for one in results if one["arm"] == arm}
               for arm in (first, second)]  # fmt: skip
    pairs = [(by_seed[0][seed], by_seed[1][seed]) for seed in sorted(by_seed[0].keys() & by_seed[1].keys())]
    known = [(a, b) for a, b in pairs if a is not None and b]
    if not known:
        return None
    of_means = sum(a for a, _ in known) / sum(b for _, b in known)
    each = [a / b for a, b in known]
    ends = f"{min(each):.3f}–{max(each):.3f} by seed, {len(known)} seed(s)"
    return f"- the judge's mFID of {first} ÷ {second}: {of_means:.3f} ({ends})"


def markdown(work: Path, seeds: int) -> str:
    """The whole report. seeds: how many were asked for; rows with fewer say so."""
    results = read_results(work)
    parts = []
    for world in sorted({result["world"] for result in results}, reverse=True):
        own = [result for result in results if result["world"] == world]
        parts.append(_world(work, world, own, seeds))
    return "\n\n".join(parts) or "no results yet"


def _world(work: Path, world: str, results: list[Result], seeds: int) -> str:
    bounds = read_json(work / "results" / world / f"{BOUNDS}.json")
    parts = [
        f"## {world}",
        f"{bounds['remark'][0].upper()}{bounds['remark'][1:]}. Judge: {bounds['judge']}. "
        f"{results[0]['translations_per_domain']} translations a domain. Mean (least–most) over seeds.",
        _READING,
    ]
    for experiment, title in EXPERIMENTS.items():
        arms = [arm for arm in ARMS if arm.experiment == experiment]
        if any(result["arm"] == arm.name for result in results for arm in arms):
            shown = arms if experiment in _WHOLE else [arm_named(BASELINE), *arms]
            rows = bounds if experiment in _WHOLE else None
            parts += [f"### {title}", _table(results, shown, rows, seeds)]
    lines = [line for line in (ratio_line(results, *pair) for pair in RATIOS) if line]
    parts.append("\n".join(lines + _gains(results)))
    return "\n\n".join(parts)


def _table(results: list[Result], arms: Sequence[Arm], bounds: Result | None, seeds: int) -> str:
    header = ["arm", "steps", "seconds", "labels' F1", "clusters: AMI, matched", *(name for _, name, _ in _METRICS)]
    rows = [header, ["---"] * len(header)]
    for name, title in (("references", "real images"), ("sources", "sources, untouched")) if bounds else ():
        rows.append([title, "", "", "", "", *_figures([{"scores": bounds[name]}])] if bounds else [])
    for arm in arms:
        own = [result for result in results if result["arm"] == arm.name]
        if own:
            rows.append(_row(arm, own, seeds))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _row(arm: Arm, own: list[Result], seeds: int) -> list[str]:
    title = arm.title if len(own) == seeds else f"{arm.title} — {len(own)} of {seeds} seeds"
    rules = sorted({result["labels"]["rule"] for result in own})
    if arm.rule != "adaptive":
        title = f"{title}: {', '.join(rules)}"
    before, after = (spread((result["labels"][key] for result in own), 3) for key in ("macro_f1", "macro_f1_after"))
    return [
        title,
        _of_training(own, "steps", 0),
        f"{sum(r['training']['steps'] * r['training']['processor_seconds_per_step'] for r in own) / len(own):.0f}",
        before if after == "–" else f"{before} → {after}",
        _clusters(own),
        *_figures(own),
    ]


def _clusters(own: list[Result]) -> str:
    """How near clusters are to the kinds of which each image is one, where there are such: adjusted mutual information,
    and the accuracy of the best one-to-one matching."""
    ami, matched = (
        spread((result["labels"].get(key) for result in own), 2) for key in ("mutual_information", "matched")
    )
    return ami if ami == "–" else f"{ami}, {matched}"


def _figures(own: list[Result]) -> list[str]:
    return [
        spread((mean_over_domains(result, metric) for result in own), digits, _SCALE if metric == "mfid" else 1)
        for metric, _, digits in _METRICS
    ]


def _of_training(own: list[Result], key: str, digits: int) -> str:
    values = [result["training"][key] for result in own]
    return f"{sum(values) / len(values):.{digits}f}"


def _gains(results: list[Result]) -> list[str]:
    """What prompt learning did to the labels, seed by seed."""
    learned = [result for result in results if result["labels"]["macro_f1_after"] is not None]
    if not learned:
        return []
    gains = [
        f"seed {result['seed']}: {result['labels']['macro_f1_after'] - result['labels']['macro_f1']:+.4f}"
        for result in learned
    ]
    return [f"- gain of prompt learning in the labels' macro F1: {', '.join(gains)}"]
