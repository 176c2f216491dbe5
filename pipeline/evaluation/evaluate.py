"""``lanit evaluate``: one or several trained models on the images of a store."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from lanit.errors import LanitError, UsageError
from pipeline.clip.models import ClipModel
from pipeline.evaluation.by_class import with_classes
from pipeline.evaluation.examples import Examples, examples_of
from pipeline.evaluation.features import ClipFeatures, Extractor, InceptionFeatures, inception_weights
from pipeline.evaluation.figures import PROTOCOL, Difference, ExtractorFacts, Guide, RunFigures, differences
from pipeline.evaluation.judges import judge_of
from pipeline.evaluation.options import EvaluationOptions
from pipeline.evaluation.perceptual import lpips_of
from pipeline.evaluation.run_evaluation import Instruments, RunEvaluation
from pipeline.evaluation.sample import real_labels
from pipeline.evaluation.true_classes import TrueClasses, true_classes
from pipeline.evaluation.warnings import published_figures, warnings_of_runs
from pipeline.files import sealed, write_json
from pipeline.folders import locked_folder
from pipeline.inspection.inspect_labels import truth_of
from pipeline.inspection.scores import Scores, score
from pipeline.models.bundle import Bundle, load_bundle
from pipeline.models.run_folder import RESULT_NAME, find_run
from pipeline.models.translator import Translator, load_labeller
from pipeline.prompts.embed_prompts import embed_prompts
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.store.store import Store
from pipeline.store.store_clip import clip_to_embed

if TYPE_CHECKING:
    from pipeline.progress import Progress


_WAIT_SECONDS = 5.0  # for another evaluation to write its figures; a training holds the folder for longer

Features = Literal["clip", "inception", "dinov2"]


@dataclass(frozen=True)
class Tools:
    """What to measure with. features: of the distances. inception_weights, dinov2_weights, lpips_weights: local files,
    else where torch's hub would have put them. judge: a CLIP, or ``sample-world``. clip: where the models' CLIP is to
    be found. device: see :func:`pipeline.computing.devices.pick_device`."""

    features: Features = "clip"
    inception_weights: Path | None = None
    dinov2_weights: Path | None = None
    lpips_weights: Path | None = None
    judge: str | None = None
    clip: str | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True)
class Published:
    """Figures of the paper for a prompt set, and why not to compare them."""

    prompt_set: str
    figures: dict[str, float]
    caveat: str


@dataclass(frozen=True)
class Evaluation:
    """Models on one store. labels: where each took those of the real images from. real_features: where those come
    from. lpips: why there is none, empty where there is. label_scores: of the label revision, where truth was given and
    no model is of clusters, which truth is compared with class by class.
    examples: translations to look at, for a page."""

    store: str
    images: int
    options: EvaluationOptions
    extractor: ExtractorFacts
    real_features: str
    judge: str | None
    lpips: str
    runs: tuple[RunFigures, ...]
    labels: tuple[str, ...]
    label_scores: Scores | None
    published: tuple[Published, ...]
    warnings: tuple[str, ...]
    examples: tuple[Examples, ...] = field(default=(), repr=False)

    @property
    def guides(self) -> tuple[Guide, ...]:
        """Where styles come from in any of the models' figures."""
        return tuple(dict.fromkeys(each.guide for run in self.runs for each in run.guides))

    @property
    def differences(self) -> tuple[Difference, ...]:
        """Every model against the first."""
        return differences(self.runs)

    def to_json(self) -> dict[str, Any]:
        runs = [run.to_json() | {"labels": origin} for run, origin in zip(self.runs, self.labels, strict=True)]
        return {
            "protocol": PROTOCOL,
            "store": self.store,
            "images": self.images,
            "options": self.options.to_json(),
            "extractor": asdict(self.extractor),
            "real_features": self.real_features,
            "judge": self.judge,
            "lpips": self.lpips or "measured",
            "runs": runs,
            "differences": [each.to_json() for each in self.differences],
            "label_scores": None if self.label_scores is None else asdict(self.label_scores),
            "published": [asdict(each) for each in self.published],
            "warnings": list(self.warnings),
        }


def evaluate_runs(
    runs: Sequence[str],
    store: Store,
    options: EvaluationOptions,
    tools: Tools,
    *,
    revision: int | None = None,
    truth: str | None = None,
    with_examples: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Measure models on the same sources and real images of ``store``; each run's figures also go into its folder.

    truth: a table or ``folders``, by which to score the label revision too; where a model's domains are clusters, by
    which to match those, and to measure every model by true class. with_examples: for a page. What was
    measured before, or in an interrupted evaluation of the same options, is read from the store's cache. tell: takes a
    remark where a store or run lets nothing be written; the figures are the same. Raises LanitError where a model is
    missing, the store holds another CLIP's embeddings, or weights that were named cannot be read; before anything is
    measured.
    """
    if len(set(runs)) < len(runs):
        raise UsageError("a run is named twice", f"Name each once: {shlex.join(dict.fromkeys(runs))}")
    evaluations = _prepared(runs, store, options, tools, revision, truth, tell)
    classes = evaluations[0].with_.classes
    scores = None if truth is None or classes is not None else _label_scores(store, revision, truth)
    measured = tuple(evaluation.figures(progress) for evaluation in evaluations)
    if classes is not None:
        pairs = zip(evaluations, measured, strict=True)
        measured = tuple(with_classes(evaluation, run, progress) for evaluation, run in pairs)
    shown = [(each, guide) for each in evaluations for guide in options.guides] if with_examples else []
    instruments, origins = evaluations[0].with_, tuple(each.labels.origin for each in evaluations)
    result = Evaluation(
        store=str(store.root),
        images=store.ok,
        options=options,
        extractor=instruments.extractor.facts,
        real_features=f"the store's, of whole images, in {store.fingerprint.precision}"
        if instruments.real_by_store
        else "of images of the model's size",
        judge=None if instruments.judge is None else instruments.judge.name,
        lpips=instruments.no_lpips,
        runs=measured,
        labels=origins,
        label_scores=scores,
        published=_published([each.translator.bundle for each in evaluations]),
        warnings=_warnings(evaluations, measured),
        examples=tuple(examples_of(*each) for each in shown),
    )
    for evaluation, run in zip(evaluations, measured, strict=True):
        _keep_in_run(result, evaluation, run, tell)
    return result


def _keep_in_run(result: Evaluation, evaluation: RunEvaluation, run: RunFigures, tell: Callable[[str], None]) -> None:
    """Write the figures of one model into the folder of its run, where it has one, and where that can be written to."""
    folder = find_run(run.run)
    if folder is None:
        return
    labels, warnings = (evaluation.labels.origin,), _warnings([evaluation], [run])
    alone = replace(result, runs=(run,), labels=labels, warnings=warnings)
    try:
        with locked_folder(folder, "run", wait_seconds=_WAIT_SECONDS):
            write_json(folder / RESULT_NAME, sealed(alone.to_json()))
    except LanitError as error:
        tell(f"these figures are not in {folder / RESULT_NAME}: {error.message}")


def _embed_for(bundle: Bundle, store: Store) -> str:
    inputs, other = [entry.source for entry in store.manifest.sources], f"{store.root}-2"
    words = shlex.join(["lanit", "embed", *inputs, "--clip", bundle.clip_spec, "--store", other])
    return f"Embed the images with the model's CLIP too, then evaluate with --store {shlex.quote(other)}: {words}"


def _warnings(evaluations: Sequence[RunEvaluation], runs: Sequence[RunFigures]) -> tuple[str, ...]:
    instruments = evaluations[0].with_
    found = warnings_of_runs(
        runs,
        [each.labels.origin for each in evaluations],
        judged=instruments.judge is not None,
        neighbours=evaluations[0].options.neighbours,
        whole_at=instruments.clip.preprocessing.size if instruments.real_by_store else None,
    )
    return tuple(found)


def _prepared(
    runs: Sequence[str],
    store: Store,
    options: EvaluationOptions,
    tools: Tools,
    revision: int | None,
    truth: str | None,
    tell: Callable[[str], None],
) -> list[RunEvaluation]:
    """Everything that measuring each of ``runs`` needs, loaded and checked."""
    known: dict[str, ClipModel] = {}
    found = []
    for run in runs:
        bundle = load_bundle(run)
        clip = _clip_of(bundle, store, tools, known)
        found.append((run, bundle, clip, real_labels(store, bundle, revision)))
    clusters = truth is not None and any(labels.of_clusters for *_, labels in found)
    classes = true_classes(store, truth) if truth is not None and clusters else None
    return [
        RunEvaluation(
            run, Translator(bundle, tools.device), store, labels,
            _instruments(bundle, clip, labels.others, classes, options, tools), options, tell,
        )
        for run, bundle, clip, labels in found
    ]  # fmt: skip


def _instruments(
    bundle: Bundle,
    clip: ClipModel,
    others: PromptSet | None,
    classes: TrueClasses | None,
    options: EvaluationOptions,
    tools: Tools,
) -> Instruments:
    perceptual, no_lpips = lpips_of(tools.lpips_weights, bundle.options.image_size, options.styles, tools.device)
    prompts = bundle.prompt_set
    watched = prompts if others is None else prompts.about([*prompts.domains, *others.domains])
    watched = watched if classes is None else prompts.about(classes.names)
    judge = judge_of(tools.judge, watched, tools.device, bundle.fingerprint.weights_sha256)
    by_store = tools.features == "clip" and not options.match_size
    kept = None if others is None else embed_prompts(clip, others)
    return Instruments(_extractor(tools, clip), clip, perceptual, no_lpips, judge, by_store, kept, classes)


def _clip_of(bundle: Bundle, store: Store, tools: Tools, known: dict[str, ClipModel]) -> ClipModel:
    key = bundle.fingerprint.weights_sha256
    if key not in known or known[key].fingerprint != bundle.fingerprint:
        known[key] = load_labeller(bundle, tools.clip, tools.device)
        store.check_fingerprint(known[key].fingerprint, _embed_for(bundle, store))
    return known[key]


def _extractor(tools: Tools, clip: ClipModel) -> Extractor:
    return _by_file(tools) or ClipFeatures(clip)


def _by_file(tools: Tools) -> Extractor | None:
    """What takes its weights from a file, and loads no CLIP; none where CLIP shall measure."""
    if tools.features == "inception":
        return InceptionFeatures(inception_weights(tools.inception_weights), tools.device)
    if tools.features == "dinov2":
        from pipeline.evaluation.dinov2 import Dinov2Features, dinov2_weights  # with timm, which others do without

        return Dinov2Features(dinov2_weights(tools.dinov2_weights), tools.device)
    return None


def extractor_of_folders(tools: Tools, store: Path) -> Extractor:
    """What compares two folders: of a file, or the CLIP of ``--clip``, else the store's there, else the default."""
    found = _by_file(tools)
    return found or ClipFeatures(clip_to_embed(store, tools.clip, None, None, str(tools.device), anew=False))


def _label_scores(store: Store, revision: int | None, truth: str) -> Scores:
    labels = store.revision_file(revision)
    return score(labels, truth_of(labels, truth, store))


def _published(bundles: Sequence[Bundle]) -> tuple[Published, ...]:
    names = dict.fromkeys(bundle.prompt_set.name for bundle in bundles)
    found = ((name, published_figures(name)) for name in names)
    return tuple(Published(name, *figures) for name, figures in found if figures is not None)
