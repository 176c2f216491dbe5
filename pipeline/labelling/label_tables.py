"""Tables of labels as files: one or a pattern of them, tables of any kind and WebDataset tars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.types as types

from lanit.errors import LanitError
from pipeline.inputs.columns import ImageColumn, choose_column
from pipeline.inputs.patterns import expand_braces, has_wildcards, matches
from pipeline.inputs.table_cells import opened_table
from pipeline.inputs.tar_tables import opened_tar
from pipeline.labelling.image_names import Names, name_columns, names_of, names_of_held
from pipeline.labelling.label_columns import Codes, plain
from pipeline.tables.cells import Cells, OpenTable, is_list

_HINT = "Give a table with a column 'path' and one for each label, or what an annotation tool exported."


@dataclass(frozen=True)
class ReadCells:
    """Of the files of one table: names, of the images, by column, the likeliest first; labels: the other columns;
    rows: their number. layout: what it is, in a few words."""

    names: list[tuple[str, Names]]
    labels: Cells
    rows: int
    layout: str


def read_cells(path: Path, domains: Sequence[str] | None) -> ReadCells:
    """The columns of a table that say which image and what label.

    domains: those whose columns are read, where there are any; none for all. Raises LanitError where a file is missing
    or cannot be read, or where nothing names its images.
    """
    files = _files(path)
    read = [_read(file, domains) for file in files]
    if len(read) == 1:
        return read[0]
    firsts = [each.names[0] for each in read]
    if len({(name, key) for name, (key, _) in firsts}) > 1:
        raise LanitError(f"the files of {path} name their images in different columns", "Give one of them at a time.")
    name, (key, _) = firsts[0]
    keys = tuple(text for _, (_, some) in firsts for text in some)
    layout = f"{len(read):,} files, {read[0].layout}"
    return ReadCells([(name, (key, keys))], _joined(read), sum(each.rows for each in read), layout)


def merge_rows(keys: Sequence[str], codes: Codes) -> tuple[tuple[str, ...], Codes]:
    """Rows of one image, each with a class of its own, as one that has them all. codes: int8 (m×D)."""
    encoded = pa.array(keys, pa.string()).dictionary_encode()
    out = np.full((len(encoded.dictionary), codes.shape[1]), codes.min(initial=0), np.int8)
    np.maximum.at(out, encoded.indices.to_numpy(), codes)
    return tuple(encoded.dictionary.to_pylist()), out


def _files(path: Path) -> list[str]:
    text = str(path)
    if path.is_file():
        return [text]
    found = [file for name in expand_braces(text) for file in (matches(name) if has_wildcards(name) else [name])]
    missing = next((file for file in found or [text] if not Path(file).is_file()), None)
    if missing is not None:
        raise LanitError(f"there is no file of labels '{missing}'", _HINT)
    return found


def _read(file: str, domains: Sequence[str] | None) -> ReadCells:
    with (opened_tar if file.lower().endswith(".tar") else opened_table)(file) as table:
        try:
            return _cells(table, Path(file), domains)
        except (pa.ArrowException, ValueError) as error:  # ValueError: text that is not UTF-8
            raise LanitError(f"cannot read {file}: {error}", _HINT) from error


def _cells(table: OpenTable, path: Path, domains: Sequence[str] | None) -> ReadCells:
    schema = table.schema
    images = set(name_columns(schema.names))
    wanted = {plain(domain) for domain in domains or ()}
    chosen = {name for name in schema.names if plain(name) in wanted} or set(schema.names)
    cells = table.cells(lambda field: (field.name in images | chosen) and _may_say(field.type))
    named = [pair for pair in cells if pair[0] in images]
    rows = len(cells[0][1]) if cells else 0
    held = _held_images(schema, path)
    names = [] if held is None else [names_of_held(table, held, rows)]
    order = name_columns([name for name, _ in named])
    named.sort(key=lambda pair: order.index(pair[0]))
    if held is None:
        names = names_of(named, path)
    elif named:
        ids = [each for each in names_of(named, path) if each[1][0] == "image_id"]
        names = ids + names
    labels = [pair for pair in cells if pair[0] not in images or plain(pair[0]) in wanted]
    return ReadCells(names, labels, rows, table.layout)


def _held_images(schema: pa.Schema, path: Path) -> ImageColumn | None:
    """The column of images that the table itself holds."""
    try:
        image = choose_column(schema, None, str(path))
    except LanitError:
        return None
    return image if image.bytes else None


def _may_say(kind: pa.DataType) -> bool:
    """Whether a column may be labels or names: no images, no vectors, no structs."""
    if is_list(kind):
        return not types.is_floating(kind.value_type)
    return not (types.is_struct(kind) or types.is_binary(kind) or types.is_large_binary(kind))


def _joined(read: Sequence[ReadCells]) -> Cells:
    """Columns of the same names, one file after the other; a file that lacks one says nothing in it."""
    kinds = {name: column.type for each in reversed(read) for name, column in each.labels}
    found: Cells = []
    for name, kind in kinds.items():
        chunks: list[pa.Array] = []
        for each in read:
            column = next((column for own, column in each.labels if own == name), None)
            chunks += [pa.nulls(each.rows, kind)] if column is None else column.cast(kind).chunks
        found.append((name, pa.chunked_array(chunks, kind)))
    return found
