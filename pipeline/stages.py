"""The stages from Python: ``lanit.embed`` gives an :class:`ImageStore`, that labels, and labels are what trains.

What a person asks for is checked by the stages themselves, whose errors say what to do. Progress goes to stderr.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lanit.errors import UsageError
from pipeline.api import Model
from pipeline.clip.models import ClipModel
from pipeline.embedding.embed import EmbedOptions, embed_opened
from pipeline.inputs.opening import open_inputs, understood
from pipeline.inspection.columns import cell, columns_of
from pipeline.inspection.inspect_labels import InspectOptions, inspect_store
from pipeline.inspection.label_report import label_and_report
from pipeline.inspection.label_statistics import LabelStatistics
from pipeline.label_frame import LabelFrame, StoreName, label_frame
from pipeline.labelling.label_sources import LabelRequest, label_source
from pipeline.models.metric_lines import read_lines
from pipeline.models.run_folder import METRICS, check_run_folder
from pipeline.settings import train_on
from pipeline.showing import console
from pipeline.stability.views import Stabilise
from pipeline.store.image_cache import open_sized_images
from pipeline.store.store import Store
from pipeline.store.store_clip import clip_of, clip_to_embed
from pipeline.store.store_folder import claim_store
from pipeline.training.train_options import options_from
from pipeline.training.training import TrainReport

if TYPE_CHECKING:
    from pipeline.store.label_revisions import RevisionFile

Images: TypeAlias = str | Path | Sequence[str | Path]
Phrases: TypeAlias = str | Path | Sequence[str]
_CACHE_GB = 100.0


class ImageStore:
    """A store: images that were embedded once, and the labels made of that. ``len`` counts the embedded images."""

    def __init__(self, path: StoreName, clip: ClipModel | None = None, device: str = "auto") -> None:
        """clip: the model that filled the store, if it is loaded; else it is once labels need it, on ``device``.
        Raises LanitError where there is no store at ``path``."""
        self.path = Path(path)
        self._clip, self._device = clip, device
        Store.open(self.path)

    @property
    def _files(self) -> Store:
        """As it is on the disk now."""
        return Store.open(self.path)

    def __len__(self) -> int:
        return self._files.ok

    def __repr__(self) -> str:
        files = self._files
        revisions = len(files.revisions())
        many = "" if revisions == 1 else "s"
        return f"store {self.path}: {files.ok:,} images embedded by {files.clip_spec}, {revisions} label revision{many}"

    @functools.cached_property
    def embeddings(self) -> np.ndarray:
        """Unit-norm embeddings of the images, float32 (n×k), in the order of :attr:`paths`: read once, read-only."""
        values = self._files.embeddings()
        values.flags.writeable = False
        return values

    @property
    def paths(self) -> list[str]:
        """Names of the embedded images, as the store has them."""
        names: list[str] = self._files.ok_images()["path"].to_pylist()
        return names

    def label(
        self,
        phrases: Phrases,
        *,
        noun: str | None = None,
        rule: str = "adaptive",
        labels: StoreName | None = None,
        choose_template: bool = False,
        choose_offsets: bool = False,
    ) -> StoreLabels:
        """Label the images as ``lanit label`` does; returns the new revision, or the newest that says the same.

        phrases: a list of them; or a prompt file, a built-in set, or a run that learned prompts. noun: what the images
        show, such as face. rule: how similarities become labels. labels: a table of labels by people, kept for later
        revisions too. choose_template, choose_offsets: those under which labels of two crops agree most. Raises
        LanitError where phrases, labels or CLIP do not fit the store.
        """
        words = () if isinstance(phrases, str | Path) else tuple(phrases)
        if not isinstance(phrases, str | Path) and not words:
            raise UsageError("there is no phrase to label by", 'Give some: store.label(["smiling", "wearing hat"]).')
        request = LabelRequest(
            phrases=words, prompts=None if words else str(phrases), noun=noun, rule=rule,
            labels=None if labels is None else str(labels),
            stabilise=Stabilise(template=choose_template, offsets=choose_offsets),
        )  # fmt: skip
        request.check()
        files = self._files
        source = label_source(files, request)
        assert source is not None, "phrases are no clusters"
        with console.progress("labelling") as advance:
            report = label_and_report(files, self.clip, *source, advance, stabilise=request.stabilise)
        return StoreLabels(self, report.revision)

    def labels(self, revision: int | None = None) -> StoreLabels:
        """Labels made before: the newest revision, unless one is named. Raises LanitError where there are none."""
        return StoreLabels(self, self._files.revision_file(revision).number)

    @property
    def clip(self) -> ClipModel:
        """The CLIP that filled the store; loaded when it is first asked for."""
        if self._clip is None:
            self._clip = clip_of(self._files, None, None, self._device)
        return self._clip


@dataclass(frozen=True)
class StoreLabels:
    """A label revision of a store, whose number is ``revision``. A notebook shows it as a table of its phrases."""

    store: ImageStore
    revision: int

    @property
    def domains(self) -> tuple[str, ...]:
        """The phrases."""
        return self._file.domains

    @functools.cached_property
    def statistics(self) -> LabelStatistics:
        """What ``lanit inspect-labels`` reports, warnings included."""
        return inspect_store(Store.open(self.store.path), InspectOptions(revision=self.revision)).statistics

    def to_pandas(self, *, margins: bool = False) -> LabelFrame:
        """A row for each embedded image, with ``path`` and a column of bool for each phrase, as
        :func:`pipeline.label_frame.label_frame` has it; margins: those of CLIP too."""
        return label_frame(self.store.path, self.revision, margins=margins)

    def dataset(self, size: int = 256) -> LabelledImages:
        """Images and labels for torch: see :class:`LabelledImages`. size: of the squares, pixels."""
        return LabelledImages(self, size)

    def summary(self) -> LabelFrame:
        """A row for each phrase: how many images, share, margins, and how stable, as the page of labels has them."""
        statistics = self.statistics
        columns = columns_of(statistics)
        rows = [[cell(column, domain, None) for column in columns] for domain in statistics.domains]
        names = pd.Index([domain.domain for domain in statistics.domains], name="phrase")
        texts = [[f"{each.text} {each.extra}".rstrip() for each in row] for row in rows]
        return pd.DataFrame(texts, index=names, columns=[column.name for column in columns])

    def __len__(self) -> int:
        return self._file.rows

    def __repr__(self) -> str:
        counts = ", ".join(f"{domain.domain} {domain.count:,}" for domain in self.statistics.domains)
        return f"labels {self.revision} of {self.store.path}, {len(self):,} images: {counts}"

    def _repr_html_(self) -> str:
        unlabelled = self.statistics.label_counts[0]
        caption = f"label revision {self.revision}: {len(self):,} images, {unlabelled:,} without a label"
        table: str = self.summary().to_html(border=0)
        return f"<p>{caption}</p>{table}"

    @property
    def _file(self) -> RevisionFile:
        return Store.open(self.store.path).revision_file(self.revision)


class LabelledImages(Dataset[tuple[Tensor, Tensor]]):
    """The images of labels, as torch's data loaders take them: the middle square, uint8 (3×S×S), and bool (N)."""

    def __init__(self, labels: StoreLabels, size: int) -> None:
        """Decodes every image at ``size`` pixels once, into the store's cache. Raises LanitError where one is gone."""
        files = Store.open(labels.store.path)
        revision = files.revision_file(labels.revision)
        files.check_current(revision)
        self.domains = revision.domains
        self._active = torch.from_numpy(revision.read().active)
        with console.progress("decoding") as advance:
            self._images = open_sized_images(files, size, _CACHE_GB, advance, console.warn)

    def __len__(self) -> int:
        return len(self._active)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        return self.__getitems__([row % len(self)])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """A batch at once, which data loaders ask for."""
        pictures = torch.from_numpy(self._images.take(np.asarray(rows)))
        return list(zip(pictures, self._active[list(rows)], strict=True))


@dataclass(frozen=True)
class Run:
    """A training run. folder: where it lies; report: what :func:`train` did, none for a run that was opened."""

    folder: Path
    device: str = "auto"
    report: TrainReport | None = None

    @functools.cached_property
    def model(self) -> Model:
        """The model as it stands, as ``lanit.load`` gives it."""
        return Model(self.folder, device=self.device)

    @property
    def metrics(self) -> LabelFrame:
        """What the run wrote while it trained, a row a line: ``kind``, ``step``, ``seconds`` and what each kind has."""
        return pd.DataFrame(read_lines(self.folder / METRICS)[0])

    def __repr__(self) -> str:
        done = "" if self.report is None else f", {self.report.steps:,} steps"
        return f"run {self.folder}{done}"


def embed(
    images: Images,
    store: StoreName = "manifests",
    *,
    clip: str | None = None,
    device: str = "auto",
    options: EmbedOptions | None = None,
) -> ImageStore:
    """Embed images into ``store`` as ``lanit embed`` does, and return it; see :func:`lanit.embed`."""
    inputs = [str(images)] if isinstance(images, str | Path) else [str(each) for each in images]
    if not inputs:
        raise UsageError("there is nothing to embed", 'Name a folder: lanit.embed("photos/").')
    folder, options = Path(store), options or EmbedOptions()
    origins = open_inputs(inputs, options.image_column)
    console.notes(understood(origins))
    claim_store(folder)
    model = clip_to_embed(folder, clip, None, None, device, anew=options.overwrite)
    with console.progress("embedding") as advance:
        report = embed_opened(origins, folder, model, options, progress=advance)
    for warning in report.warnings:
        console.warn(warning)
    return ImageStore(folder, model, device)


def train(
    labels: StoreLabels | ImageStore,
    out: StoreName,
    *,
    preset: str = "paper",
    method: str | None = None,
    clusters: int | None = None,
    present: str | None = None,
    example: str | Path | None = None,
    size: int | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
) -> Run:
    """Train on labels as ``lanit train`` does, or go on with the run ``out``; see :func:`lanit.train`."""
    given, image = dict(settings or {}), None if example is None else str(example)
    named = {
        "method": method, "clusters": clusters, "present": present, "example": image, "size": size, "steps": steps,
        "minutes": minutes,
    }  # fmt: skip
    for name, value in named.items():
        if value is not None and given.setdefault(name, value) != value:
            raise UsageError(f"{name} is given twice", "Leave it out of settings.")
    options, folder = options_from(preset, given), Path(out)
    check_run_folder(folder)
    store, revision = (labels, None) if isinstance(labels, ImageStore) else (labels.store, labels.revision)
    report = train_on(Store.open(store.path), folder, options, None, None, revision, device)
    if report.interrupted:
        raise KeyboardInterrupt(f"{folder} is saved; the same call goes on")
    return Run(folder, device, report)
