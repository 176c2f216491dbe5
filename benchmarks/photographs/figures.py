"""What κ of two crops says of templates and offsets, and what the truth says of what it chose."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score, f1_score

from benchmarks.photographs.worlds import Stored, World
from lanit.rules import Rule
from pipeline.prompts.embed_prompts import embed_prompts
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.stability.agreements import label_views
from pipeline.stability.choices import choose_offsets, compare_templates, with_offsets, with_templates
from pipeline.stability.views import Views

SAMPLES, SAMPLE_IMAGES = 4, 1000
WORSE = 0.002  # macro F1
_LOOSE = 0.02  # of κ


@dataclass(frozen=True)
class Start:
    """One template as the user's own: macro F1 with it, with the most stable of its candidates, with that where it is
    taken since it is clearly more stable, and with offsets by κ; loose_offsets: a small gain of κ does for those."""

    template: str
    kappa: float
    own: float
    most_stable: float
    taken: float
    own_offsets: float
    loose_offsets: float
    taken_offsets: float


@dataclass(frozen=True)
class Case:
    """One sample of images under one CLIP.

    starts: of each template. every: κ and macro F1 of all candidates of all templates, each once. domains: κ and F1 of
    each domain under the first template. largest_difference: of κ from scikit-learn's.
    """

    world: str
    quality: str
    starts: tuple[Start, ...]
    every: tuple[tuple[float, float], ...]
    domains: tuple[tuple[str, float, float], ...]
    largest_difference: float

    @property
    def rho(self) -> float:
        """Spearman's, of κ with F1 over the templates."""
        return float(spearmanr([s.kappa for s in self.starts], [s.own for s in self.starts]).statistic)

    @property
    def rho_of_all(self) -> float:
        return float(spearmanr(*zip(*self.every, strict=True)).statistic)

    @property
    def gain(self) -> float:
        """F1 of the template of the highest κ minus that of the median template."""
        best = max(self.starts, key=lambda start: start.kappa)
        return best.own - statistics.median(start.own for start in self.starts)


def measure(world: World, quality: str, stored: Stored) -> list[Case]:
    """A case of each of four samples, which share no image."""
    order = np.random.default_rng(0).permutation(len(stored.views))
    parts = [np.sort(order[n * SAMPLE_IMAGES : (n + 1) * SAMPLE_IMAGES]) for n in range(SAMPLES)]
    return [_case(world, quality, stored, part) for part in parts]


def _case(world: World, quality: str, stored: Stored, part: np.ndarray) -> Case:
    clip, rule = stored.clip, Rule()
    views = Views(np.ascontiguousarray(stored.views.crops[:, part]), stored.views.name)
    others = np.setdiff1d(np.arange(len(stored.truth)), part)
    embeddings, truth = torch.from_numpy(stored.embeddings[others]), stored.truth[others]
    known: dict[PromptSet, float] = {}

    def f1(prompts: PromptSet) -> float:
        if prompts not in known:
            labels = embed_prompts(clip, prompts).labels(embeddings).numpy()
            known[prompts] = float(f1_score(truth, labels, average="macro", zero_division=0))
        return known[prompts]

    starts, every = [], dict[tuple[str, ...], tuple[float, float]]()
    for template in world.templates:
        own = world.prompts(template)
        choice = compare_templates(views, clip, own, rule)
        taken = with_templates(own, choice.taken)
        starts.append(
            Start(
                template,
                kappa=choice.own.score,
                own=f1(own),
                most_stable=f1(with_templates(own, choice.best)),
                taken=f1(taken),
                own_offsets=f1(with_offsets(own, choose_offsets(views, clip, own, rule))),
                loose_offsets=f1(with_offsets(own, choose_offsets(views, clip, own, rule, _LOOSE))),
                taken_offsets=f1(with_offsets(taken, choose_offsets(views, clip, taken, rule))),
            )
        )
        for candidate in choice.candidates:
            every[candidate.templates] = candidate.score, f1(with_templates(own, candidate))
    domains, difference = _domains(world, stored, views, others)
    return Case(world.name, quality, tuple(starts), tuple(every.values()), domains, difference)


def _domains(
    world: World, stored: Stored, views: Views, others: np.ndarray
) -> tuple[tuple[tuple[str, float, float], ...], float]:
    """κ and F1 of each domain under the first template, and the largest difference of κ from scikit-learn's."""
    embedded = embed_prompts(stored.clip, world.prompts(world.templates[0]))
    seen = label_views(views, embedded, Rule())
    labels = embedded.labels(torch.from_numpy(stored.embeddings[others])).numpy()
    scores = f1_score(stored.truth[others], labels, average=None, zero_division=0)
    found, differences = [], [0.0]
    for number, (domain, agreement) in enumerate(zip(world.phrases, seen.agreements(), strict=True)):
        found.append((domain, agreement.score, float(scores[number])))
        if agreement.kappa is not None:
            reference = cohen_kappa_score(*seen.active[:, :, number])
            differences.append(abs(agreement.kappa - float(reference)))
    return tuple(found), max(differences)


def show(cases: Sequence[Case]) -> None:
    """Markdown tables, and the figures that were asked for."""
    groups = {(case.world, case.quality): [c for c in cases if (c.world, c.quality) == (case.world, case.quality)]
              for case in cases}  # fmt: skip
    _heads("world", "CLIP", "F1, first template", "least", "median", "most", "ρ over ten", "ρ over all", "gain",
           "with offsets, first template")  # fmt: skip
    for (world, quality), some in groups.items():
        own = [[start.own for start in case.starts] for case in some]
        print(f"| {world} | {quality} | {_mean(each[0] for each in own)} | {_mean(map(min, own))} | "
              f"{_mean(map(statistics.median, own))} | {_mean(map(max, own))} | {_span(c.rho for c in some)} | "
              f"{_span(c.rho_of_all for c in some)} | {_span(c.gain for c in some)} | "
              f"{_mean(c.starts[0].own_offsets for c in some)} |")  # fmt: skip
    print()
    _heads("world", "CLIP", "template", "κ", "F1", "most stable", "taken", "taken, with offsets")
    for (world, quality), some in groups.items():
        for starts in zip(*(case.starts for case in some), strict=True):
            values = [_mean(getattr(start, name) for start in starts)
                      for name in ("kappa", "own", "most_stable", "taken", "taken_offsets")]  # fmt: skip
            print(f"| {world} | {quality} | {starts[0].template} | {' | '.join(values)} |")
    print()
    _heads("world", "CLIP", "domain", "κ", "F1")
    for (world, quality), some in groups.items():
        for each in zip(*(case.domains for case in some), strict=True):
            print(f"| {world} | {quality} | {each[0][0]} | {_mean(k for _, k, _ in each)} | "
                  f"{_mean(f for _, _, f in each)} |")  # fmt: skip
    print()
    _summary(cases)


def _summary(cases: Sequence[Case]) -> None:
    gains = [case.gain for case in cases]
    print(f"pick above the median template: {sum(gain > 0 for gain in gains)} of {len(gains)}; least {min(gains):+.3f}")
    starts = [start for case in cases for start in case.starts]
    for what in ("most_stable", "taken", "own_offsets", "loose_offsets", "taken_offsets"):
        changes = [getattr(start, what) - start.own for start in starts]
        worse = sum(change < -WORSE for change in changes)
        print(f"{what}: {statistics.mean(changes):+.3f} in the mean; worse than the user's own template by more than "
              f"{WORSE}: {worse} of {len(changes)}; least {min(changes):+.3f}")  # fmt: skip
    print(f"κ from scikit-learn's: {max(case.largest_difference for case in cases):.1e} at most")


def _heads(*names: str) -> None:
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}", flush=True)


def _mean(values: Iterable[float]) -> str:
    return f"{statistics.mean(values):.3f}"


def _span(values: Iterable[float]) -> str:
    found = list(values)
    return f"{min(found):.2f} to {max(found):.2f}"
