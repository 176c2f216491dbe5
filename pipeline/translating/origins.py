"""What to translate: folders, tars, tables, URLs, single image files; and a folder of results that is none of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from lanit.errors import LanitError
from pipeline.decoding.images import is_image_name
from pipeline.inputs.folders import Folder
from pipeline.inputs.formats import format_of
from pipeline.inputs.opening import open_inputs
from pipeline.inputs.places import Input, Place
from pipeline.inputs.storage import file_name, is_url


class ImageFiles(Folder):
    """Some image files of one folder, each given by its name."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        super().__init__(str(folder))
        self.chosen = list(dict.fromkeys(names))

    def places(self) -> Iterator[Place]:
        for name in self.chosen:
            status = (Path(self.source) / name).stat()
            yield Place(self.source, name, None, status.st_size, status.st_mtime_ns)


class Without:
    """An input without the folder of results, where that lies in it: they are not translated again."""

    def __init__(self, origin: Input, results: Path) -> None:
        self._origin = origin
        self._below = f"{results.relative_to(origin.source).as_posix()}/"
        self.source, self.image_column = origin.source, origin.image_column
        self.later_counts = origin.later_counts
        self.ignored = 0
        self.warnings: list[str] = []
        self.unlisted: list[str] = []

    def places(self) -> Iterator[Place]:
        yield from (place for place in self._origin.places() if not place.path.startswith(self._below))
        self.ignored, self.warnings = self._origin.ignored, self._origin.warnings
        self.unlisted = self._origin.unlisted

    def read(self, path: str, offset: int | None, size: int | None) -> bytes:
        return self._origin.read(path, offset, size)

    def exists(self) -> bool:
        return self._origin.exists()


def open_origins(texts: Sequence[str | Path], out: Path, image_column: str | None) -> list[Input]:
    """The inputs that ``texts`` name: as :func:`pipeline.inputs.opening.open_inputs` opens them, and image files.

    Raises LanitError where ``out`` is the folder of the originals or holds them, else as ``open_inputs``.
    """
    files: dict[Path, list[str]] = {}
    others: list[str | Path] = []
    for text in texts:
        path = Path(text)
        if not is_url(str(text)) and is_image_name(path.name) and path.is_file():
            files.setdefault(path.parent.resolve(), []).append(path.name)
        else:
            others.append(text)
    found: list[Input] = list(open_inputs(others, image_column)) if others or not files else []
    given = {origin.source for origin in found}
    found += [ImageFiles(folder, names) for folder, names in files.items() if str(folder) not in given]
    results = out.resolve()
    origins: list[Input] = []
    for origin in found:
        if is_url(origin.source):
            origins.append(origin)
            continue
        place = Path(origin.source)
        folder = place if isinstance(origin, Folder) else place.parent
        if results == folder or results in folder.parents:
            raise LanitError(
                f"--out {out} is the folder of the originals, or holds it", "Give another folder for the translations."
            )
        inside = isinstance(origin, Folder) and folder in results.parents
        origins.append(Without(origin, results) if inside else origin)
    return origins


def given_names(origin: Input) -> list[str]:
    """What an input is: its own name, or those of the image files."""
    if isinstance(origin, ImageFiles):
        return [f"{origin.source}/{name}" for name in origin.chosen]
    return [origin.source]


def prefixes(origins: Sequence[Input]) -> dict[str, str]:
    """A folder for the results of each input, named after it; none where there is one input."""
    if len(origins) < 2:
        return {}
    stems = [_stem(origin) for origin in origins]
    seen: Counter[str] = Counter()
    found = {}
    for origin, stem in zip(origins, stems, strict=True):
        seen[stem] += 1
        found[origin.source] = stem if seen[stem] == 1 else f"{stem}~{seen[stem]}"
    return found


def _stem(origin: Input) -> str:
    name = PurePosixPath(file_name(origin.source))
    return (name.stem if format_of(origin.source) else name.name) or "images"
