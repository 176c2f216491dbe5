"""The layouts of ``lanit export``: their names, what can be asked of them, and what each has to do.

Light, so that the command line can ask.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from lanit.errors import UsageError

if TYPE_CHECKING:
    from pipeline.exports.inventory import Writes, Written
    from pipeline.exports.selection import Advance, Chunk, Selection

LAYOUTS = {
    "clip-retrieval": "clip_retrieval.ClipRetrieval",
    "webdataset": "webdataset.WebDataset",
    "huggingface": "huggingface.HuggingFace",
    "folders": "folders.Folders",
    "csv": "tables.Tables",
    "coco": "coco.Coco",
    "label-studio": "label_studio.LabelStudio",
    "fiftyone": "fiftyone.FiftyOne",
    "lance": "lance.Lance",
    "embedding-atlas": "embedding_atlas.EmbeddingAtlas",
}
"""Of each layout, as ``--to`` takes it, its module here and its class, which is a :class:`Target`."""

Files = Literal["copy", "hardlink", "symlink"]
DEFAULT_SHARD_MB = 500
_OPTIONS = {
    "files": "--files", "pairs": "--pairs", "margins": "--margins", "embeddings": "--embeddings",
    "shard_mb": "--shard-size",
}  # fmt: skip
"""Options that not every layout takes, as they are typed."""


@dataclass(frozen=True)
class ExportRequest:
    """What to write. Options that a layout has no use for are refused, so none is ignored.

    to: one of :data:`LAYOUTS`. only_labelled: leave out images without a label. files:
    how an image gets into a folder; copied if none is given. pairs: one domain, or two, to tell trainA and trainB
    apart. margins: columns of them too. embeddings: along with each image. shard_mb: size of a tar or Parquet file, in
    millions of bytes of images.
    """

    to: str
    revision: int | None = None
    only_labelled: bool = False
    files: Files | None = None
    pairs: tuple[str, ...] = ()
    margins: bool = False
    embeddings: bool = False
    shard_mb: int | None = None

    def __post_init__(self) -> None:
        takes = layout_of(self.to).TAKES
        for name, option in _OPTIONS.items():
            if getattr(self, name) and name not in takes:
                others = ", ".join(layout for layout in LAYOUTS if name in layout_of(layout).TAKES)
                raise UsageError(f"{option} means nothing with --to {self.to}", f"It goes with {others}.")
        if len(self.pairs) > 2:
            message = f"--pairs takes one domain or two, not {len(self.pairs)}"
            raise UsageError(message, 'Write, for example, "smiling".')
        if len(self.pairs) == 2 and self.pairs[0].casefold() == self.pairs[1].casefold():
            raise UsageError(f"--pairs names '{self.pairs[0]}' twice", "One domain gives images without and with it.")

    @property
    def shard_bytes(self) -> int:
        return (self.shard_mb or DEFAULT_SHARD_MB) * 1_000_000


def parse_pairs(text: str) -> tuple[str, ...]:
    """``"blond hair, black hair"`` to names."""
    return tuple(filter(None, (" ".join(part.split()) for part in text.split(","))))


class Target(Protocol):
    """Writes a selection in one layout. A run that was interrupted goes on after its last chunk.

    READ_BY: what reads the result, with ``{out}`` and ``{shell}``, and ``{last}``, the number of the last file. TAKES:
    options of a request that it has a use for, of those that not every layout takes. NEEDS_LABELS: whether a store
    without any is refused. advance: see :data:`Advance`.
    """

    READ_BY: ClassVar[str]
    TAKES: ClassVar[frozenset[str]]
    NEEDS_LABELS: ClassVar[bool]

    def __init__(self, selection: Selection, request: ExportRequest, advance: Advance) -> None: ...

    @property
    def writes(self) -> Writes:
        """What it may write."""

    def chunks(self, folder: Path, start: int, files: int) -> Iterator[Chunk]:
        """Write from position ``start`` on, where ``files`` files are already in ``folder``. Files that an interrupted
        run left beyond these are overwritten. A chunk is yielded once its files are whole."""

    def finish(self, folder: Path, counts: dict[str, int], exported: int) -> tuple[Written, ...]:
        """Write what stands beside the images, given how many of each group and in all were exported."""


def layout_of(name: str) -> type[Target]:
    """Raises UsageError for a name that is none."""
    if name not in LAYOUTS:
        raise UsageError(f"there is no layout '{name}'", f"Choose one of {', '.join(LAYOUTS)}.")
    module, _, target = LAYOUTS[name].partition(".")
    found: type[Target] = getattr(importlib.import_module(f"pipeline.exports.{module}"), target)
    return found
