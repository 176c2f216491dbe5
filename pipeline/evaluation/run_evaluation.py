"""One trained model against a store: translate drawn sources to every domain, compare with the images that carry it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lanit.labels import EmbeddedPrompts
from lanit.metrics import resampled_counts
from pipeline.clip.models import ClipModel
from pipeline.decoding.grids import to_float
from pipeline.evaluation.features import ClipFeatures, Extractor
from pipeline.evaluation.figures import DomainFigures, Guide, GuideFigures, RunFigures
from pipeline.evaluation.finished import Finished
from pipeline.evaluation.judges import Judge
from pipeline.evaluation.measuring import Left, Made, RealSide, Seen, measure
from pipeline.evaluation.options import EvaluationOptions
from pipeline.evaluation.partners import Partners, Pictures, joined
from pipeline.evaluation.perceptual import Perceptual
from pipeline.evaluation.sample import (
    RealLabels,
    batches,
    draw,
    mean_distance_between,
    read_blocks,
    read_rows,
    torch_generator_of,
)
from pipeline.evaluation.translations import (
    Sources,
    Styles,
    latent_styles,
    reference_styles,
    target_of,
    translate_sources,
)
from pipeline.evaluation.true_classes import TrueClasses
from pipeline.files import sha256_file
from pipeline.models.bundle import find_bundle
from pipeline.models.translator import Translator
from pipeline.store.store import Store

if TYPE_CHECKING:
    from pipeline.progress import Progress

REFERENCES = 200
"""Images of a domain that styles are taken from, at most, drawn."""


@dataclass(frozen=True)
class Instruments:
    """What measures: features for distances, the model's CLIP for recognition and identity, and what else is at hand.

    no_lpips: why ``perceptual`` is none, else empty. real_by_store: whether the real side's features are the store's
    embeddings. others: M prompts of domains that the labels have and the model has not, which it shall keep. classes:
    what images truly are, where clusters are compared with that; the judge then knows these and not the clusters.
    """

    extractor: Extractor
    clip: ClipModel
    perceptual: Perceptual | None
    no_lpips: str
    judge: Judge | None
    real_by_store: bool
    others: EmbeddedPrompts | None = None
    classes: TrueClasses | None = None


class RunEvaluation:
    """A model, the images it is measured on, and what has been measured so far. A model with one style a domain makes
    one translation of a source to each, and has no diversity."""

    def __init__(
        self,
        run: str,
        translator: Translator,
        store: Store,
        labels: RealLabels,
        instruments: Instruments,
        options: EvaluationOptions,
        tell: Callable[[str], None],
    ) -> None:
        self.run = run
        self.translator = translator
        self.store = store
        self.labels = labels
        self.with_ = instruments
        self.options = options if translator.networks.latent_dim else replace(options, styles=1)
        self.size = translator.bundle.options.image_size
        self.folder = find_bundle(run)
        self.model_sha256 = sha256_file(self.folder / "model.safetensors")
        self.rows = draw(np.arange(store.ok), options.sources, options.seed, "sources")
        self.own = torch.from_numpy(labels.active[self.rows])
        self.partners = Partners.of(store, labels.active)
        self.finished = Finished(store, self._depends_on(), tell)
        self._before: tuple[Sources, Tensor, Tensor, Tensor, Tensor | None] | None = None

    def _depends_on(self) -> dict[str, object]:
        instruments = self.with_
        found: dict[str, object] = {
            "model": [self.model_sha256, sha256_file(self.folder / "model.json")],
            "options": self.options.to_json(),
            "labels": self.labels.digest(),
            "extractor": instruments.extractor.facts.sha256,
            "clip": instruments.clip.fingerprint.to_json(),
            "lpips": None if instruments.perceptual is None else instruments.perceptual.sha256,
            "judge": None if instruments.judge is None else instruments.judge.name,
        }
        found |= {} if self.partners is None else {"pairs": self.partners.digest()}
        return found if instruments.classes is None else found | {"classes": instruments.classes.digest}

    def figures(self, progress: Progress | None = None) -> RunFigures:
        """Measure what is not finished yet; every domain is kept once it is."""
        reasons = [self._reason_to_skip(domain) for domain in range(len(self.translator.domains))]
        todo = [domain for domain, reason in enumerate(reasons) if not reason]
        ticker = Ticker(progress, self._translations(todo))
        if self.finished.unrelated is None:
            _, _, clip_before, _, _ = self._sources()
            self.finished.set_unrelated(mean_distance_between(clip_before, self.options.seed))
        for domain in todo:
            self._measure_domain(domain, ticker)
        names = self.translator.domains
        skipped = {names[n]: reason for n, reason in enumerate(reasons) if reason}
        guides = tuple(GuideFigures(guide, self._found(guide, todo), skipped) for guide in self.options.guides)
        return RunFigures(
            run=self.run,
            model_sha256=self.model_sha256,
            size=self.size,
            steps=self.translator.bundle.training.get("steps"),
            domains=tuple(names),
            unrelated=self.finished.unrelated or 0.0,
            guides=guides,
            reader=self.translator.reader,
        )

    def _found(self, guide: Guide, domains: list[int]) -> tuple[DomainFigures, ...]:
        found = (self.finished.get(guide, self.translator.domains[domain]) for domain in domains)
        return tuple(figures for figures in found if figures is not None)

    def _reason_to_skip(self, domain: int) -> str:
        carriers, least = int(self.labels.active[:, domain].sum()), self.options.neighbours + 1
        if carriers < least:
            return f"only {carriers} real images carry it, and {least} are needed"
        lacking = int((~self.own[:, domain]).sum())
        if lacking * self.options.styles < 2:
            return f"{len(self.rows) - lacking} of {len(self.rows)} sources carry it already"
        return ""

    def _translations(self, domains: list[int]) -> int:
        carrying = sum(int(self.own[:, domain].sum()) for domain in domains)
        lacking = len(self.rows) * len(domains) - carrying
        return (lacking * self.options.styles + carrying) * len(self.options.guides)

    def sources(self) -> Sources:
        """The images that are translated, at the model's size, read once."""
        return self._sources()[0]

    def _sources(self) -> tuple[Sources, Tensor, Tensor, Tensor, Tensor | None]:
        """Sources; their features (n×d), CLIP embeddings (n×k), and domains in the eyes of the model's own labeller and
        of the judge, bool (n×(N+M))."""
        if self._before is None:
            images = read_rows(self.store, self.rows, self.size)
            parts = list(batches(len(images)))
            encode, judge = ClipFeatures(self.with_.clip), self.with_.judge
            clip = torch.cat([encode(images[part]) for part in parts])
            same = isinstance(self.with_.extractor, ClipFeatures)
            features = clip if same else torch.cat([self.with_.extractor(images[part]) for part in parts])
            judged = None if judge is None else torch.cat([judge(images[part]) for part in parts])
            seen = torch.cat([self._recognise(images[part], clip[part]) for part in parts])
            self._before = Sources(images, self.own), features, clip, seen, judged
        return self._before

    def _measure_domain(self, domain: int, ticker: Ticker) -> None:
        name, options = self.translator.domains[domain], self.options
        lacking = np.flatnonzero(~self.own[:, domain].numpy())
        real = None
        for guide in options.guides:
            if self.finished.get(guide, name) is not None:
                ticker(self._translations([domain]) // len(options.guides), f"{self.run}: {guide}, {name}")
                continue
            real = real or self.real_side(self._carriers(domain), name)
            styles, detail = self.styles(guide, domain), f"{self.run}: {guide}, {name}"
            made = self._translate(domain, lacking, styles, ticker, detail)
            counts = self.counts()
            left = self._remove(domain, styles, counts, ticker, detail)
            self.finished.add(guide, measure(real, made, left, counts[:, lacking], domain, options))

    def _carriers(self, domain: int) -> np.ndarray:
        return np.flatnonzero(self.labels.active[:, domain])

    def real_side(self, carriers: np.ndarray, name: str) -> RealSide:
        """The images ``carriers`` (r), or as many of them as are asked for. name: what they carry."""
        options, of_clip = self.options, isinstance(self.with_.extractor, ClipFeatures)
        rows = draw(carriers, options.real, options.seed, f"real {name}")
        if self.with_.real_by_store:
            features = torch.from_numpy(self.store.embeddings_of(rows))
        else:
            images = read_blocks(self.store, rows, self.size, options.batch_size)
            features = torch.cat([self.with_.extractor(block) for block in images])
        return RealSide(features.to(self.translator.device), name, options, of_clip=of_clip)

    def counts(self) -> Tensor:
        """How often each source is drawn: int64 (bootstrap×sources)."""
        generator = torch_generator_of(self.options.seed, "sources")
        return resampled_counts(len(self.rows), self.options.bootstrap, generator)

    def styles(self, guide: Guide, domain: int) -> Styles:
        """Where translations of every source to a domain take their styles from."""
        options, name = self.options, self.translator.domains[domain]
        if guide == "latent":
            return latent_styles(self.translator, len(self.rows), options.styles, options.seed)
        rows = draw(self._carriers(domain), REFERENCES, options.seed, f"references {name}")
        pictures = read_rows(self.store, rows, self.size)
        return reference_styles(self.translator, pictures, len(self.rows), options.styles, options.seed, name)

    def _translate(self, domain: int, rows: np.ndarray, styles: Styles, ticker: Ticker, detail: str) -> Made:
        """Translate the sources ``rows`` to a domain."""
        sources, classes = self.sources(), self.with_.classes
        pictures = None if self.partners is None else self.partners.pictures(self.rows[rows], domain, self.size)
        blocks = translate_sources(self.translator, sources, rows, domain, styles)
        wanted = target_of(self.translator, sources.own[torch.from_numpy(rows)], domain).weights > 0
        besides = 0 if self.with_.others is None else len(self.with_.others.domains)
        unchanged = F.pad(wanted == sources.own[torch.from_numpy(rows)], (0, besides), value=True)
        made = self.observe(blocks, rows, styles.count, unchanged, lambda count: ticker(count, detail), pictures)
        return made if classes is None else replace(made, judged=None)

    def observe(
        self,
        blocks: Iterator[np.ndarray],
        rows: np.ndarray,
        styles: int,
        unchanged: Tensor,
        tick: Callable[[int], None],
        pictures: Pictures | None = None,
    ) -> Made:
        """Keep what instruments say of each translation, not its pixels. blocks: of the sources ``rows``, uint8
        (b×K×S×S×3), K being ``styles``. pictures: of their partners."""
        _, features, clip, recognised, judged = self._sources()
        found: list[list[Tensor]] = [[], [], [], [], []]
        to_partner: list[tuple[Tensor, Tensor | None]] = []
        encode = ClipFeatures(self.with_.clip)
        same = isinstance(self.with_.extractor, ClipFeatures)
        for made in blocks:
            flat = made.reshape(-1, *made.shape[2:])
            parts, shape = [flat[part] for part in batches(len(flat))], made.shape[:2]
            encoded = [encode(part) for part in parts]
            found[0].append(torch.cat(encoded).unflatten(0, shape))
            found[4].append(torch.cat(list(map(self._recognise, parts, encoded))).unflatten(0, shape))
            if not same:
                found[1].append(torch.cat([self.with_.extractor(part) for part in parts]).unflatten(0, shape))
            if self.with_.judge is not None:
                found[2].append(torch.cat([self.with_.judge(part) for part in parts]).unflatten(0, shape))
            if self.with_.perceptual is not None and styles > 1:
                found[3].append(self.with_.perceptual.spread(made))
            if pictures is not None:
                to_partner.append(pictures.distances(made, self.with_.perceptual))
            tick(len(flat))
        clips, others, verdicts, distances, after = (torch.cat(each) if each else None for each in found)
        assert clips is not None
        assert after is not None
        near = joined(to_partner)
        chosen = torch.from_numpy(rows)
        return Made(
            features=clips if others is None else others,
            before=features[chosen],
            clip=clips,
            clip_before=clip[chosen],
            seen=Seen(recognised[chosen], after, torch.ones(recognised.shape[1]).bool()),
            judged=None if judged is None or verdicts is None or self.with_.judge is None
            else Seen(judged[chosen], verdicts, self.with_.judge.known),
            unchanged=unchanged,
            lpips=distances,
            partner=near[0],
            partner_lpips=near[1],
        )  # fmt: skip

    def _remove(self, domain: int, styles: Styles, counts: Tensor, ticker: Ticker, detail: str) -> Left | None:
        """Take a domain from the sources that carry it, one result each. counts: int64 (bootstrap×sources)."""
        rows = np.flatnonzero(self.own[:, domain].numpy())
        if not len(rows):
            return None
        seen, verdicts, encode, judge = [], [], ClipFeatures(self.with_.clip), self.with_.judge
        for made in translate_sources(self.translator, self.sources(), rows, domain, styles.first(), remove=True):
            seen.append(self._recognise(made[:, 0], encode(made[:, 0])))
            if judge is not None and self.with_.classes is None and bool(judge.known[domain]):
                verdicts.append(judge(made[:, 0]))
            ticker(len(made), detail)
        judged = torch.cat(verdicts) if verdicts else None
        return Left(torch.cat(seen), judged, counts[:, rows])

    @torch.no_grad()
    def _recognise(self, pictures: np.ndarray, embeddings: Tensor) -> Tensor:
        """Domains of pictures, uint8 (b×S×S×3), by the model's prompts (METHOD 1) and their unit-norm embeddings (b×k),
        or by its guiding network; then others by theirs: bool (b×(N+M))."""
        translator, others = self.translator, self.with_.others
        if translator.guide is None:
            labels = translator.bundle.prompts.labels(embeddings)
        else:
            labels = (translator.guide.margins(to_float(pictures).to(translator.device)) > 0).cpu()
        return labels if others is None else torch.cat([labels, others.labels(embeddings)], dim=-1)


class Ticker:
    """Counts translations for whoever watches."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, count: int, detail: str) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(self._done, self._total, detail)
