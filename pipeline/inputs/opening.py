"""What the user typed, as inputs: folders, tars, zips, tables, images, patterns of them, and URLs of all these."""

from __future__ import annotations

import difflib
import itertools
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from lanit.errors import LanitError, UsageError
from pipeline.files import storable
from pipeline.inputs.contents import archives_in
from pipeline.inputs.folders import Folder
from pipeline.inputs.formats import FORMATS, format_of
from pipeline.inputs.image_files import ImageFile
from pipeline.inputs.patterns import expand_braces, has_wildcards, matches
from pipeline.inputs.places import Input
from pipeline.inputs.storage import file_name, is_url, scheme_of
from pipeline.inputs.storages import storage_of
from pipeline.inputs.tables import Table
from pipeline.inputs.tars import compressed_tar

_COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_REPOSITORY = re.compile(r"\w[\w.-]*/\w")
_DATA_SET = re.compile(r"hf://datasets/[^/]+/[^/@]+(@[^/]+|@refs/(convert|pr)/[^/]+)?/?")
_PAGE = re.compile(
    r"https?://huggingface\.co/datasets/(?P<name>[^/?#]+/[^/?#]+)(/tree/(?P<revision>[^/?#]+)(?P<path>/[^?#]*)?)?/?([?#].*)?"
)  # of a data set, as a browser shows it
_COMPRESSED_TARS = (".tgz", ".tbz2", ".txz", ".tzst")
_GIVE = "Give a folder, a tar, a zip, a table or an image."
_REQUESTS = 16  # that ask at a time whether the files of a pattern are there
_TOLD = 4  # tables of which a line each says what they were taken for
_NEIGHBOURS = 10_000  # names looked through for one that is close to a mistyped one


def open_inputs(texts: Sequence[str | Path], image_column: str | None = None) -> list[Input]:
    """The inputs that ``texts`` name, in their order, each once.

    A text is a data set of the Hugging Face hub (``owner/name``, with ``@revision``; its page; ``hf://datasets/…``), a
    folder, a ``.tar``, a ``.zip``, a table (``.parquet``, ``.csv``, ``.tsv``, ``.jsonl``, …), an image file, a
    pattern of these (``data/{000..010}.tar``, ``data/*.parquet``), or a URL of any of them (``s3://…``). A name that
    exists is not taken for a pattern. What is named twice counts once. A folder inside another of the folders is
    refused, and so is a table of paths or an image: images would come twice; tars, zips, and tables that hold bytes
    may lie anywhere.
    image_column: of every table; none: chosen as in :func:`pipeline.inputs.columns.choose_column`.
    Raises LanitError: missing, unreachable, neither folder nor tar nor table, a table without an image column.
    """
    inputs: dict[tuple[object, str], Input] = {}
    for text in map(str, texts):
        names = _names(text)
        kinds = _kinds_of(text, names)
        missing = [name for name, kind in zip(names, kinds, strict=True) if kind is None]
        if missing:
            raise _missing(text, names, missing)
        checked = False
        for name, kind in _within(names, kinds):
            found = _found(name, kind == "folder", image_column)
            if isinstance(found, Table) and not checked:
                found.column()  # raises; the other tables of a pattern are looked at when they are listed
                checked = True
            inputs.setdefault(_identity(found.source), found)
    if not inputs:
        raise UsageError("no input was given", _GIVE)
    if image_column is not None and not any(isinstance(found, Table) for found in inputs.values()):
        raise UsageError("--image-column is for tables, and none was given", "Leave it out.")
    _refuse_nested(inputs)
    return list(inputs.values())


def understood(inputs: Sequence[Input]) -> list[str]:
    """What tables were taken for, a line each; of many, what the first was. Raises LanitError where one is none."""
    tables = [each for each in inputs if isinstance(each, Table)]
    if len(tables) > _TOLD:
        return [f"{tables[0].understood()}; and {len(tables) - 1:,} more tables"]
    return [each.understood() for each in tables]


def open_source(source: str, image_column: str | None) -> Input:
    """The input that a store knows by ``source``, opened without a look at what it holds or whether it is there."""
    if source.endswith("/") or (not is_url(source) and Path(source).is_dir()):
        return Folder(source)
    found = format_of(source)
    return found.open(source, image_column) if found else Folder(source)


def find_sources(text: str, sources: Sequence[str]) -> list[str]:
    """Which of ``sources``, inputs that a store knows, a text names: a path or URL, there or not, or a pattern; or the
    folder or data set that stood for the tars, zips and tables in it."""
    found: dict[str, None] = {}
    for name in [text] if text in sources else expand_braces(text):
        path = name if is_url(name) else os.path.abspath(name)  # noqa: PTH100 - keeps links, as names of files do
        same = {name, path, path.rstrip("/"), f"{path.rstrip('/')}/", f"hf://datasets/{name}"}
        if not is_url(name):
            same.add(str(Path(name).resolve()))
        for source in sources:
            if source in same or (has_wildcards(name) and PurePosixPath(source).match(path)):
                found[source] = None
        if not found:
            inside = tuple(f"{each.rstrip('/')}/" for each in same)
            found.update((source, None) for source in sources if source.startswith(inside))
    return list(found)


def _names(text: str) -> list[str]:
    """Paths and URLs that a text stands for; they need not exist."""
    if not text.strip():
        raise UsageError("an input has no name", _GIVE)
    if scheme_of(text) in ("file", "local"):
        text = "/" + text.split("://", 1)[1].removeprefix("localhost").lstrip("/")
    if is_url(text) and "::" in text:
        raise LanitError(f"{text} is a chain of URLs, which is not supported", "Copy or unpack it first.")
    if not is_url(text) and (Path(text).exists() or Path(text).is_symlink()):
        return [text]
    if page := _PAGE.fullmatch(text):
        revision = f"@{page['revision']}" if page["revision"] else ""
        return [f"hf://datasets/{page['name']}{revision}{(page['path'] or '').rstrip('/')}"]
    if _REPOSITORY.match(text) and format_of(text) is None:
        from pipeline.clip.hub import find_repository  # its client takes a second to load

        if (repository := find_repository(text)) is not None:
            return [f"hf://datasets/{repository}"]
    found: list[str] = []
    for name in expand_braces(text):
        if not has_wildcards(name):
            found.append(name)
            continue
        fitting = matches(name)
        if not fitting:
            raise LanitError(f"nothing fits the pattern {storable(name)}", "Check its folder and suffix.")
        found.extend(fitting)
    return found


def _within(names: list[str], kinds: list[str | None]) -> Iterator[tuple[str, str | None]]:
    """Names and what they are; in the place of a folder that has only tars, zips or tables of images, these."""
    for name, kind in zip(names, kinds, strict=True):
        inside = archives_in(name, is_data_set=_DATA_SET.fullmatch(name) is not None) if kind == "folder" else []
        yield from ((archive, "file") for archive in inside) if inside else [(name, kind)]


def _kinds_of(text: str, names: list[str]) -> list[str | None]:
    """What each is. Raises LanitError where that cannot be found out; of what may have been meant for a folder here
    too, both are told."""
    try:
        return _kinds(names)
    except LanitError as error:
        if is_url(text) or not is_url(names[0]):
            raise
        close = _close_name(Path(text))
        reason = error.message.removeprefix(f"cannot reach {names[0]}: ")
        message = f"there is no folder {storable(text)} here, and no data set {names[0]} can be had: {reason}"
        raise LanitError(message, f"Did you mean {close}?" if close else error.hint) from error


def _kinds(names: list[str]) -> list[str | None]:
    """What each is; those behind URLs are asked for side by side."""
    if len(names) < 2 or not is_url(names[0]):
        return [storage_of(name).kind(name) for name in names]
    with ThreadPoolExecutor(_REQUESTS) as pool:
        return list(pool.map(lambda name: storage_of(name).kind(name), names))


def _found(name: str, is_folder: bool, image_column: str | None) -> Input:
    """Raises LanitError for a file of another kind."""
    source = _canonical(name, is_folder)
    suffix = _suffix(source)
    if is_folder:
        return Folder(source)
    if found := format_of(source):
        return found.open(source, image_column)
    if suffix in _COMPRESSED_TARS or file_name(source).lower().endswith(tuple(f".tar{end}" for end in _COMPRESSED)):
        raise compressed_tar(source)
    if suffix in _COMPRESSED:
        raise LanitError(f"{source} is compressed", "Unpack it first.")
    kinds = (f"{each.noun}: {' '.join(each.suffixes)}" for each in FORMATS)
    hint = f"Give a folder of images, or {', or '.join(kinds)}."
    raise LanitError(f"{source} is a file, but neither {' nor '.join(each.noun for each in FORMATS)}", hint)


def _canonical(name: str, is_folder: bool) -> str:
    """The name that the store keeps. Links to folders are resolved, but a link to a file keeps its own name: its target
    may have one that says nothing. A URL ends in a slash where nothing else would tell that it is a folder."""
    if is_url(name):
        bare = name if name.endswith("://") else name.rstrip("/")
        is_file_like = scheme_of(name) in ("http", "https") or format_of(bare) is not None
        return f"{bare}/" if is_folder and is_file_like else bare
    path = Path(name)
    full = str(path.resolve() if is_folder else path.parent.resolve() / path.name)
    if full != storable(full):
        raise LanitError(f"the name of {storable(full)} is not valid UTF-8", "Rename it.")
    return full


def _suffix(source: str) -> str:
    return posixpath.splitext(file_name(source))[1].lower()


def _identity(source: str) -> tuple[object, str]:
    """The same for two names of one file or folder: the file system and the name in it."""
    if not is_url(source):
        return "local", str(Path(source).resolve())
    from pipeline.inputs.remote import file_system

    system, name = file_system(source)
    return system, name.rstrip("/")


def _refuse_nested(inputs: dict[tuple[object, str], Input]) -> None:
    for (outer_system, outer_name), outer in inputs.items():
        if not isinstance(outer, Folder):
            continue
        for (system, name), inner in inputs.items():
            if system != outer_system or not name.startswith(f"{outer_name.rstrip('/')}/"):
                continue
            if isinstance(inner, Folder | ImageFile) or (isinstance(inner, Table) and not inner.column().bytes):
                message = f"{inner.source} lies in {outer.source}, which is given too: images would come twice"
                raise LanitError(message, "Give one of the two.")


def _missing(text: str, names: list[str], missing: list[str]) -> LanitError:
    first = storable(missing[0])
    if len(names) > 1:
        count = f"{len(missing):,} of the" if len(missing) < len(names) else "all"
        message = f"{count} {len(names):,} files of {storable(text)} are missing, the first is {first}"
        return LanitError(message, "Check the range.")
    kind = "file" if format_of(first) else "folder"
    close = "" if is_url(first) else _close_name(Path(missing[0]))
    return LanitError(f"there is no {kind} {first}", f"Did you mean {close}?" if close else "Check the path.")


def _close_name(path: Path) -> str:
    """An existing name that differs in a few letters; empty where there is none."""
    while not path.parent.exists():
        path = path.parent
    try:
        with os.scandir(path.parent) as entries:
            names = {entry.name.lower(): entry.name for entry in itertools.islice(entries, _NEIGHBOURS)}
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name.lower(), names, 1, 0.75)
    return storable(str(path.parent / names[close[0]])) if close else ""
