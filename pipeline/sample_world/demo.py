"""``lanit demo``: every stage on the sample world, by the same functions as the commands, ending in a page."""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lanit.errors import LanitError, UsageError
from lanit.labels import Rule
from pipeline.clip.models import ClipModel, load_clip
from pipeline.computing.devices import pick_device
from pipeline.computing.timing import usable_processors
from pipeline.decoding.images import decode_rgb
from pipeline.decoding.squares import fit_square
from pipeline.embedding.embed import embed
from pipeline.files import is_temporary, read_json, sealed, write_bytes, write_json
from pipeline.folders import check_folder, check_replaceable, locked_folder, remove_ours
from pipeline.inspection.inspect_labels import inspect_labels
from pipeline.inspection.label_statistics import LabelStatistics
from pipeline.inspection.table import show_statistics
from pipeline.labelling.known_labels import Truth, read_truth
from pipeline.labelling.label import label
from pipeline.models import run_folder
from pipeline.models.bundle import Bundle, load_bundle
from pipeline.models.metric_lines import read_lines
from pipeline.models.translator import Translator, load_labeller
from pipeline.prompts.prompt_sets import read_prompt_set
from pipeline.sample_world.dataset import write_faces
from pipeline.sample_world.demo_page import DemoResults, ModelResult, Sample, render
from pipeline.sample_world.evaluation import EVALUATION_SEED, add_domain, evaluate
from pipeline.sample_world.faces import ATTRIBUTES, draw_faces
from pipeline.sample_world.judge import load_judge
from pipeline.showing import console
from pipeline.showing.line_charts import Chart, Series
from pipeline.store.store import Store
from pipeline.training.train_options import options_from
from pipeline.training.training import train
from pipeline.translating.translation import TranslateRequest, translate

FACE_SIZE = 64
WORLD = 1000  # plus the seed: worlds of training faces; the shipped models learned from 101, 202 and 303
UNSEEN_WORLD = EVALUATION_SEED  # sources of the grids, and the faces that are judged
SOURCES = 6
JUDGED = 200
SAMPLES = 6
ADDED = "smiling"  # what the files of the demo are translated to; the page shows every attribute
CURVES = {"log_every": 20, "sample_every": 100}  # steps between points of the curves
_MARKER = "demo.json"
_FACES = r"face-\d{5,}\.png|truth\.csv|\.lanit-faces\.json|\.lock"
_STORE = (
    r"store\.json|\.lock|images/(part-\d{5,}-[0-9a-f]{8}\.parquet|unfinished\.jsonl|catalogue\.sqlite.*)"
    r"|labels/(r\d{4,}\.parquet|ledger\.json)|index/(embeddings\.faiss|index\.json)|cache/(images|words|texts|readable|evaluation|views|stability)-[0-9a-f-]+\.\w+"
)
_TRANSLATED = r"face-\d{5,}\.png|translations\.(csv|parquet)|labels\.csv|\.lanit-translate/.+"
_WRITTEN = {
    "faces": _FACES, "store": _STORE, "run": r"\.lock|evaluation\.json", "sources": _FACES, "translated": _TRANSLATED,
    "translated-sample": _TRANSLATED,
}  # fmt: skip
"""Of each folder of a demo, what its stages write there."""


@dataclass(frozen=True)
class Demo:
    """What to run and where. Everything it writes lies below ``out``."""

    out: Path
    minutes: float
    seed: int
    faces: int
    preset: str
    device: str

    def __post_init__(self) -> None:
        if not self.minutes > 0:
            raise UsageError(f"the demo needs some time to train, not {self.minutes:g} minutes", "Try --minutes 6.")

    @property
    def commands(self) -> dict[str, str]:
        """What the demo does, stage by stage, as commands to be typed in the folder where it ran."""
        faces, store, run, sources = (self.out / name for name in ("faces", "store", "run", "sources"))
        curves = [word for name, value in CURVES.items() for word in ("--set", f"{name}={value}")]
        translate = ("translate", sources, "--add", ADDED, "--device", "cpu", "--model")
        words: dict[str, tuple[object, ...]] = {
            "draw": ("sample-faces", faces, "--count", self.faces, "--size", FACE_SIZE, "--seed", WORLD + self.seed),
            "embed": ("embed", faces, "--clip", "sample", "--device", "cpu", "--store", store),
            "label": ("label", "--prompts", "sample-faces", "--store", store),
            "inspect": ("inspect-labels", "--truth", faces / "truth.csv", "--store", store),
            "train": ("train", "--out", run, "--preset", self.preset, "--minutes", f"{self.minutes:g}",
                      "--seed", self.seed, "--device", self.device, *curves, "--store", store),
            "sources": ("sample-faces", sources, "--count", SOURCES, "--size", FACE_SIZE, "--seed", UNSEEN_WORLD),
            "translate": (*translate, run, "--out", self.out / "translated"),
            "translate with the shipped generator": (*translate, "sample", "--out", self.out / "translated-sample"),
        }  # fmt: skip
        return {stage: shlex.join(["lanit", *map(str, command)]) for stage, command in words.items()}

    def announce(self, stage: str) -> None:
        console.note("")
        console.note(f"$ {self.commands[stage]}")


@dataclass(frozen=True)
class DemoReport:
    """What came out; shares and scores in [0, 1], means over domains. shipped_…: of the generator in the package."""

    page: str
    faces: int
    minutes: float
    steps: int
    label_macro_f1: float
    recognised: float
    kept: float
    shipped_recognised: float
    shipped_kept: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run_demo(minutes: float, out: Path, seed: int = 0, *, faces: int = 4000, preset: str = "small-32",
             device: str = "auto", overwrite: bool = False) -> DemoReport:  # fmt: skip
    """Run every stage into ``out``, write ``out/index.html`` and say where it is.

    overwrite: replace an earlier demo in ``out``; one that was interrupted is begun anew without. Anything else in it
    is refused (LanitError).
    """
    demo = Demo(out, minutes, seed, faces, preset, device)
    check_folder(out, "--out", "demo", _is_demo)
    if (out / "index.html").exists() and not overwrite:
        raise LanitError(f"--out {out} holds an earlier demo", "Add --overwrite to replace it.")
    with locked_folder(out, "--out"):
        clear(demo)
        return _run_stages(demo)


def _run_stages(demo: Demo) -> DemoReport:
    clip = load_clip("sample")
    store, truth = _label(demo, clip)
    demo.announce("inspect")
    statistics = inspect_labels(store.labels(), truth=truth)
    show_statistics(statistics)
    _train(demo, store)
    sources = _translate(demo)
    own, shipped = load_bundle(demo.out / "run"), load_bundle("sample")
    models = (
        _judge(own, "This run, from scratch", "Random weights at the start; learned while you waited.", sources),
        _judge(shipped, "The shipped generator", "Part of the package; trained beforehand, not here.", sources),
    )
    return _finish(demo, store, statistics, truth, models)


def _is_demo(out: Path) -> bool:
    try:
        return "commands" in read_json(out / _MARKER)
    except (LanitError, TypeError):
        return False


def _is_ours(folder: str, name: str) -> bool:
    """Whether a demo writes a file of this name, relative to a folder of its own."""
    if is_temporary(name.rpartition("/")[2]) or (folder == "run" and run_folder.is_ours(name)):
        return True
    return re.fullmatch(_WRITTEN[folder], name) is not None


def clear(demo: Demo) -> None:
    """Make ``out`` ready: empty but for its marker. Only what an earlier demo left is removed.

    Raises LanitError where ``out`` is no demo, or a folder of it holds a file that a demo does not write.
    """
    out = demo.out
    check_folder(out, "--out", "demo", _is_demo)
    for name in _WRITTEN:
        check_replaceable(out / name, partial(_is_ours, name))
    for name in _WRITTEN:
        remove_ours(out / name, partial(_is_ours, name))
    (out / "index.html").unlink(missing_ok=True)
    write_json(out / _MARKER, sealed({"commands": demo.commands}))


# ---------------------------------------------------------------- stages


def _label(demo: Demo, clip: ClipModel) -> tuple[Store, Truth]:
    """Draw, embed, label: the store with its first label revision, and the truth of its faces."""
    demo.announce("draw")
    truth = write_faces(demo.out / "faces", demo.faces, WORLD + demo.seed, FACE_SIZE)
    demo.announce("embed")
    with console.progress("embedding") as advance:
        embed([demo.out / "faces"], demo.out / "store", clip, progress=advance)
    demo.announce("label")
    store = Store.open(demo.out / "store")
    with console.progress("labelling") as advance:
        label(store, clip, read_prompt_set("sample-faces"), Rule(), advance)
    return store, read_truth(truth, store.labels().domains)


def _train(demo: Demo, store: Store) -> None:
    demo.announce("train")
    device = pick_device(demo.device)
    options = options_from(demo.preset, {"minutes": demo.minutes, "seed": demo.seed} | CURVES)
    with console.progress("training", "steps") as advance:
        report = train(
            store, demo.out / "run", options, load_clip("sample", device), device=str(device), progress=advance
        )
    if report.interrupted:
        raise KeyboardInterrupt


def _translate(demo: Demo) -> np.ndarray:
    """Translate a few unseen faces to one attribute, as files; returns the faces, uint8 (n, S, S, 3)."""
    sources = demo.out / "sources"
    demo.announce("sources")
    write_faces(sources, SOURCES, UNSEEN_WORLD, FACE_SIZE)
    demo.announce("translate")
    translate(sources, demo.out / "translated", demo.out / "run", TranslateRequest(add=(ADDED,)), device="cpu")
    demo.announce("translate with the shipped generator")
    translate(sources, demo.out / "translated-sample", "sample", TranslateRequest(add=(ADDED,)), device="cpu")
    return np.stack([decode_rgb(path) for path in sorted(sources.glob("*.png"))])


def _judge(bundle: Bundle, name: str, origin: str, sources: np.ndarray) -> ModelResult:
    """Translate and judge unseen faces with a model. sources: uint8 (n, S, S, 3), those that the page shows."""
    device = torch.device("cpu")
    translator, clip = Translator(bundle, device), load_labeller(bundle, None, device)
    size, training = bundle.options.image_size, bundle.training
    pictures, truths = draw_faces(UNSEEN_WORLD, range(SOURCES, SOURCES + JUDGED), FACE_SIZE)
    small, small_sources = (np.stack([fit_square(face, size) for face in group]) for group in (pictures, sources))
    with console.progress(f"judging: {name.lower()}", "attributes") as advance:
        scores = evaluate(translator, clip, load_judge(), small, truths, advance)
    shown = [add_domain(translator, clip, small_sources, column) for column in range(len(translator.domains))]
    return ModelResult(
        name=name,
        origin=origin,
        steps=training["steps"],
        images_seen=training["images_seen"],
        size=size,
        minutes=training["seconds"] / 60,
        device="a GPU" if str(training["device"]).startswith("cuda") else "a CPU",
        scores=scores,
        sources=small_sources,
        translations=np.stack(shown, axis=1),
    )


# ---------------------------------------------------------------- results


def _finish(
    demo: Demo, store: Store, statistics: LabelStatistics, truth: Truth, models: tuple[ModelResult, ...]
) -> DemoReport:
    _, captions = draw_faces(UNSEEN_WORLD, range(SOURCES), 16)
    results = DemoResults(
        domains=store.labels().domains,
        faces=demo.faces,
        face_size=FACE_SIZE,
        labels=statistics,
        samples=_samples(demo, store, truth),
        charts=read_charts(demo.out / "run" / "metrics.jsonl"),
        source_captions=tuple(", ".join(np.array(ATTRIBUTES)[held]) for held in captions),
        models=models,
        commands=tuple(demo.commands.values()),
        seed=demo.seed,
        machine=_machine(demo),
    )
    page = demo.out / "index.html"
    write_bytes(page, render(results).encode())
    own, shipped = models
    scores = statistics.scores
    report = DemoReport(
        str(page), demo.faces, demo.minutes, own.steps, scores.macro_f1 if scores else 0.0,
        own.recognised, own.kept, shipped.recognised, shipped.kept,
    )  # fmt: skip
    write_json(demo.out / _MARKER, sealed({"commands": demo.commands, "report": report.to_json()}))
    _show(models)
    console.say(f"The page: {page.resolve().as_uri()}")
    return report


def _samples(demo: Demo, store: Store, truth: Truth) -> dict[str, tuple[Sample, ...]]:
    """For each domain a few of the faces labelled with it, drawn at random."""
    revision, rng = store.labels(), np.random.default_rng(demo.seed)
    row_of = {path: row for row, path in enumerate(truth.keys)}
    samples = {}
    for column, domain in enumerate(revision.domains):
        labelled = np.flatnonzero(revision.active[:, column])
        paths = [str(revision.paths[row]) for row in rng.permutation(labelled)[:SAMPLES]]
        right = [bool(truth.labels[row_of[path], truth.domains.index(domain)]) for path in paths]
        samples[domain] = tuple(
            Sample(decode_rgb(demo.out / "faces" / path), agrees) for path, agrees in zip(paths, right, strict=True)
        )
    return samples


def read_charts(metrics: Path) -> tuple[Chart, ...]:
    """The learning curves of a run, from the JSON lines that training wrote."""
    lines, _ = read_lines(metrics)

    def curve(kind: str, key: str, name: str) -> Series:
        points = [(line["step"], line[key]) for line in lines if line["kind"] == kind and key in line]
        return Series(name, [step for step, _ in points], [value for _, value in points])

    judged = (curve("sample", "recognised", "recognised"), curve("sample", "kept", "others kept"))
    adversarial = (curve("losses", "d_adversarial", "discriminator"), curve("losses", "adversarial", "generator"))
    return (
        Chart("Accuracy", judged, "of eight training faces, in the eyes of the sample CLIP", (0.0, 1.0)),
        Chart("Adversarial losses", adversarial),
        Chart(
            "Classification",
            (curve("losses", "d_classification", "real images"), curve("losses", "classification", "translations")),
            "does the discriminator tell which words an image shows?",
        ),
        Chart("Domain regularisation", (curve("losses", "domain", "domain"),), "is the attribute seen by CLIP?"),
        Chart("Cycle loss", (curve("losses", "cycle", "cycle"),), "does the source come back?"),
        Chart("Style loss", (curve("losses", "style", "style"),), "is the style found again?"),
        Chart(
            "Diversity", (curve("losses", "diversity", "diversity"),), "between two latent codes; higher is more varied"
        ),
    )


def _machine(demo: Demo) -> str:
    if pick_device(demo.device).type == "cuda":
        return str(torch.cuda.get_device_name(pick_device(demo.device)))
    cores = usable_processors()
    return f"{cores} CPU core" + ("s" if cores > 1 else "")


def _show(models: tuple[ModelResult, ...]) -> None:
    rows = [
        (model.name, f"{model.steps:,}", f"{model.size}", f"{model.recognised:.3f}", f"{model.kept:.3f}")
        for model in models
    ]
    title = f"Translations of {JUDGED} unseen faces to each attribute they lack, by the judge"
    console.table(title, ("generator", "steps", "px", "recognised", "others kept"), rows)
