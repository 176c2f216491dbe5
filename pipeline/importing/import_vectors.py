"""Stage import: embeddings that somebody already has to a store, once it is proven what made them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lanit.errors import LanitError
from pipeline.computing.engines import PipelinedEngine
from pipeline.computing.timing import usable_processors
from pipeline.embedding.embed import EmbedOptions, EmbedReport, embed_opened
from pipeline.embedding.embedding_steps import EmbeddingSteps, Launched, Read, RowReader
from pipeline.embedding.image_rows import ImageRow, RowCatalogue
from pipeline.importing.pairing import Pairing
from pipeline.importing.proving import Proof, Sample, check_length, prove
from pipeline.importing.vectors import Vectors, open_vectors
from pipeline.inputs.opening import open_inputs
from pipeline.progress import Progress

if TYPE_CHECKING:
    from pipeline.clip.models import ClipModel
    from pipeline.store.schemas import StoredType


@dataclass(frozen=True)
class ImportRequest:
    """What to import. source: what holds the embeddings; images: inputs, as ``lanit embed`` takes them, none for what
    the source itself lists; the others as :func:`pipeline.importing.vectors.open_vectors` has them. seed: of the images
    that are embedded again."""

    source: str
    images: tuple[str, ...] = ()
    paths: str | None = None
    embedding_column: str | None = None
    image_column: str | None = None
    seed: int = 0

    def vectors(self) -> Vectors:
        """Raises LanitError."""
        return open_vectors(self.source, self.images, self.paths, self.embedding_column, self.image_column)


@dataclass(frozen=True)
class ImportReport:
    """rows: embeddings of the source. paired: those whose image was found; the others of the inputs' images are
    embedded here. imported: put into the store now. sampled: images embedded again; median, least: of their cosines.
    embedding: of the whole run, in which ``ok`` counts what was imported and what was embedded."""

    source: str
    rows: int
    paired: int
    imported: int
    sampled: int
    median: float
    least: float
    embedding: EmbedReport
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class _Import:
    """What a run finds out once its inputs are listed."""

    vectors: Vectors
    clip: ClipModel
    request: ImportRequest
    options: EmbedOptions
    pairing: Pairing | None = None
    proof: Proof = field(default_factory=lambda: Proof(0, np.nan, np.nan))
    paired: int = 0
    imported: int = 0

    def engine(
        self, reader: RowReader, catalogue: RowCatalogue, _: StoredType
    ) -> PipelinedEngine[ImageRow, Read, Launched]:
        """What takes the embeddings for computed. Raises LanitError where they are not those of the CLIP."""
        self.pairing = pairing = Pairing(self.vectors, catalogue.path.parent)
        pairing.find_folders(catalogue)
        sample, taken = Sample(self.request.seed), np.zeros(pairing.rows, bool)
        for image in catalogue.table([]):
            row = pairing.row_of(image)
            if row is None:
                continue
            if taken[row]:
                message = f"row {row:,} of {self.vectors.name} is of several images, {image.path} among them"
                raise LanitError(message, "Give only the inputs that it was made from.")
            taken[row] = True
            sample.offer(image, row)
        self.paired = int(taken.sum())
        if not self.paired:
            raise self._unpaired(reader)
        self.proof = prove(sample, pairing, self.clip, reader)
        steps = _ImportSteps(self.clip, reader, pairing, self)
        return PipelinedEngine(steps, self.options.batch_size, self.options.workers or usable_processors())

    def _unpaired(self, reader: RowReader) -> LanitError:
        assert self.pairing is not None
        inputs = ", ".join(list(reader.inputs)[:3])
        return LanitError(
            f"no name in {self.vectors.name} is of an image in {inputs}; the first are {self.pairing.first_names()}",
            "Name the folder, the tars or the table that it was made from, after it.",
        )

    def warnings(self) -> tuple[str, ...]:
        rows = self.pairing.rows if self.pairing else 0
        found = []
        if rows > self.paired:
            found.append(
                f"{rows - self.paired:,} of the {rows:,} embeddings have no image in the inputs, or are damaged"
            )
        return tuple(found)


class _ImportSteps(EmbeddingSteps):
    """Images are read and decoded as ever; CLIP embeds only those that came without an embedding."""

    def __init__(self, clip: ClipModel, reader: RowReader, pairing: Pairing, run: _Import) -> None:
        super().__init__(clip, reader)
        self._pairing, self._run = pairing, run

    def launch(self, batch: Sequence[tuple[ImageRow, Read]]) -> Launched:
        new = []
        for image, read in batch:
            row = self._pairing.row_of(image)
            if row is None:
                new.append((image, read))
            else:
                image.embedding, image.status = self._pairing.vectors([row])[0], "ok"
                self._run.imported += 1
        return super().launch(new)


def import_vectors(
    request: ImportRequest, store: Path, clip: ClipModel, options: EmbedOptions, progress: Progress | None = None
) -> ImportReport:
    """Put embeddings into the store, as :func:`pipeline.embedding.embed.embed` would have.

    Images of the inputs that have none are embedded. Raises LanitError, the store as it was: an unreadable source,
    embeddings of another model, none whose image is found; and as embed does.
    """
    vectors = request.vectors()
    check_length(vectors.name, vectors.dim, clip)
    inputs = open_inputs(request.images or vectors.tables, _column_of(request, vectors))
    run = _Import(vectors, clip, request, options)
    try:
        report = embed_opened(inputs, store, clip, options, progress, run.engine)
    finally:
        if run.pairing is not None:
            run.pairing.close()
    return ImportReport(
        source=request.source,
        rows=run.pairing.rows if run.pairing else 0,
        paired=run.paired,
        imported=run.imported,
        sampled=run.proof.sampled,
        median=run.proof.median,
        least=run.proof.least,
        embedding=report,
        warnings=(*report.warnings, *run.warnings()),
    )


def _column_of(request: ImportRequest, vectors: Vectors) -> str | None:
    """Of the inputs, where these are the source's tables or the one that names the rows."""
    return request.image_column if not request.images or vectors.row_table else None
