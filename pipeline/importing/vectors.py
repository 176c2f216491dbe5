"""Embeddings that somebody already has: NumPy files, clip-retrieval's folders, Parquet, Lance."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as types

from lanit.errors import LanitError, UsageError
from pipeline.extras import install
from pipeline.inputs.columns import KEY_COLUMNS, PATH_COLUMNS, choose_column
from pipeline.inputs.formats import format_of
from pipeline.inputs.storage import Troubles, is_url
from pipeline.inputs.table_cells import path_cells, table_schema
from pipeline.tables.cells import is_text
from pipeline.tables.parquet import texts
from pipeline.tables.tables import TABLE_SUFFIXES

_BATCH_ROWS = 8192
_KINDS = "Give a folder of clip-retrieval, a .parquet, a .lance folder, or an .npy with the table of its images."


@dataclass(frozen=True)
class Vectors:
    """n embeddings, and what names their images.

    name: what holds them. dim: k, the length of one. names: the text that names the image of each, row by row, none
    where there is none. arrays: the embeddings in blocks (b×k), of any kind of float, n in all. tables: inputs that
    list the images, where it has some. row_table: the table whose rows are those of the embeddings, image by image.
    """

    name: str
    dim: int
    names: Callable[[], Iterator[str | None]]
    arrays: Callable[[], Iterator[np.ndarray]]
    tables: tuple[str, ...] = ()
    row_table: str | None = None


def open_vectors(
    source: str, images: Sequence[str], paths: str | None, embedding_column: str | None, image_column: str | None
) -> Vectors:
    """What ``lanit import`` was given, by its form.

    images: inputs, where some are named; paths: a table or text that names the image of each row of an ``.npy``.
    Raises LanitError where it is none of these forms, damaged, or has no column of embeddings or of names.
    """
    path = Path(source)
    if is_url(source):
        raise LanitError(f"{source} is a URL; embeddings are read from files of this machine", "Download it first.")
    if not path.exists():
        raise LanitError(f"there is no file or folder {source}", _KINDS)
    suffix = path.suffix.lower()
    if embedding_column is not None and suffix not in (".parquet", ".lance"):
        raise UsageError("--embedding-column is for Parquet and Lance", "Leave it out.")
    if paths is not None and suffix != ".npy":
        raise UsageError("--paths names the images of an .npy file", "Leave it out.")
    if suffix == ".npy":
        return _of_npy(path, images, paths, image_column)
    if suffix == ".parquet":
        return _of_parquet(path, embedding_column, image_column)
    if path.is_dir() and (path / "img_emb").is_dir():
        return _of_clip_retrieval(path, image_column)
    if path.is_dir() and (suffix == ".lance" or (path / "_versions").is_dir()):
        return _of_lance(path, embedding_column, image_column)
    raise LanitError(f"{source} holds no embeddings of a form that lanit knows", _KINDS)


def _of_npy(path: Path, images: Sequence[str], paths: str | None, image_column: str | None) -> Vectors:
    table = paths or (images[0] if len(images) == 1 else None)
    if table is None or (format_of(table) is None and Path(table).suffix.lower() != ".txt"):
        message = f"nothing tells which image each row of {path} is of"
        raise LanitError(message, "Add a table or a text of their paths, a row each: --paths FILE")
    if Path(table).suffix.lower() not in (*TABLE_SUFFIXES, ".txt") or not Path(table).is_file():
        raise LanitError(f"{table} is no table of this machine", "Give a .csv, .jsonl, .parquet or .txt: --paths FILE")
    array = _open_npy(path)
    keys = _keys_of(table, image_column)
    _check_rows(len(array), sum(1 for _ in keys()), path, table)
    rows = None if paths else _full(Path(table))
    return Vectors(str(path), array.shape[1], keys, lambda: _blocks([array]), row_table=rows)


def _of_clip_retrieval(folder: Path, image_column: str | None) -> Vectors:
    files = sorted((folder / "img_emb").glob("*.npy"))
    if not files:
        raise LanitError(f"there is no .npy in {folder / 'img_emb'}", _KINDS)
    tables = []
    for file in files:
        table = folder / "metadata" / f"{file.stem.replace('img_emb', 'metadata')}.parquet"
        if not table.is_file():
            message = f"{table} is missing, which names the images of {file}"
            raise LanitError(message, f"Bring it back, or name the images of {file} alone: --paths FILE")
        _check_rows(len(_open_npy(file)), pq.ParquetFile(table).metadata.num_rows, file, str(table))
        tables.append(str(table))
    arrays = [_open_npy(file) for file in files]
    if len({array.shape[1] for array in arrays}) > 1:
        raise LanitError(f"the embeddings in {folder} have different lengths", "Give one of its .npy files.")
    each = [_keys_of(table, image_column) for table in tables]
    return Vectors(
        str(folder),
        arrays[0].shape[1],
        lambda: (key for keys in each for key in keys()),
        lambda: _blocks(arrays),
        tuple(tables),
    )


def _of_parquet(path: Path, embedding_column: str | None, image_column: str | None) -> Vectors:
    schema = table_schema(str(path))
    column = _embedding_column(schema, embedding_column, str(path))

    def batches() -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(_BATCH_ROWS, columns=[column])

    keys = _keys_of(str(path), image_column)
    dim = _dim(schema.field(column).type, batches(), str(path))
    arrays = _float_arrays(batches, dim, str(path))
    return Vectors(str(path), dim, keys, arrays, (str(path),), _full(path))


def _of_lance(path: Path, embedding_column: str | None, image_column: str | None) -> Vectors:
    try:
        data: Any = importlib.import_module("lance").dataset(str(path))
    except ImportError as error:
        raise LanitError(f"{path} needs the package pylance", f"Run: {install('lance')}") from error
    except (ValueError, OSError) as error:
        raise LanitError(f"{path} cannot be read as Lance ({' '.join(str(error).split())[:200]})", _KINDS) from error
    column = _embedding_column(data.schema, embedding_column, str(path))
    key = _key_column(data.schema, image_column, str(path))

    def batches(name: str) -> Iterator[pa.RecordBatch]:
        yield from data.scanner(columns=[name], batch_size=_BATCH_ROWS, scan_in_order=True).to_batches()

    def keys() -> Iterator[str | None]:
        for batch in batches(key):
            yield from texts(batch.column(0))

    dim = _dim(data.schema.field(column).type, batches(column), str(path))
    return Vectors(str(path), dim, keys, _float_arrays(lambda: batches(column), dim, str(path)))


def _full(path: Path) -> str:
    """As an input names it."""
    return str(path.parent.resolve() / path.name)


def _open_npy(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise LanitError(f"{path} is no whole .npy file ({error})", "Copy it again.") from error
    if array.ndim != 2 or array.dtype.kind != "f":
        raise LanitError(f"{path} holds {array.dtype} of shape {array.shape}, not a row of floats an image", _KINDS)
    return array


def _check_rows(vectors: int, names: int, file: Path, table: str) -> None:
    if vectors != names:
        message = f"{file} has {vectors:,} embeddings, and {table} names {names:,} images"
        raise LanitError(message, "Give those that belong together, row by row.")


def _keys_of(table: str, image_column: str | None) -> Callable[[], Iterator[str | None]]:
    """The texts that name the images, of a table or of a text with a name a line."""
    if table.lower().endswith(".txt"):
        return lambda: _lines(table)
    schema = table_schema(table)
    if image_column is None and choose_column(schema, None, table).bytes and not _has_key(schema):
        return lambda: iter([None] * pq.ParquetFile(table).metadata.num_rows)
    column = _key_column(schema, image_column, table)
    return lambda: path_cells(table, column, Troubles())


def _lines(path: str) -> Iterator[str | None]:
    with Path(path).open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        for line in file:
            yield line.rstrip("\r\n") or None


def _has_key(schema: pa.Schema) -> bool:
    return any(field.name.lower() in (*PATH_COLUMNS, *KEY_COLUMNS) and is_text(field.type) for field in schema)


def _key_column(schema: pa.Schema, named: str | None, table: str) -> str:
    usual = [named] if named is not None else [*PATH_COLUMNS, *KEY_COLUMNS]
    for name in usual:
        for field in schema:
            if (field.name == name or (named is None and field.name.lower() == name)) and is_text(field.type):
                return str(field.name)
    wanted = f"column of text {named}" if named is not None else "column that names the images"
    raise LanitError(f"{table} has no {wanted}; it has {', '.join(schema.names)}", "Name it: --image-column NAME")


def _embedding_column(schema: pa.Schema, named: str | None, table: str) -> str:
    found = [field.name for field in schema if _is_vector(field.type)]
    if named is not None and named in found:
        return named
    if named is None and len(found) == 1:
        return str(found[0])
    what = f"no column of embeddings {named}" if named else f"{len(found) or 'no'} columns of embeddings"
    listed = ", ".join(found or schema.names)
    raise LanitError(f"{table} has {what}; it has {listed}", "Name the column: --embedding-column NAME")


def _is_vector(kind: pa.DataType) -> bool:
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return is_list and types.is_floating(kind.value_type)


def _dim(kind: pa.DataType, batches: Iterable[pa.RecordBatch], name: str) -> int:
    """The length of an embedding; of a list of any size that of the first."""
    if types.is_fixed_size_list(kind):
        return int(kind.list_size)
    for batch in batches:
        for value in batch.column(0):
            if value.is_valid:
                return len(value)
    raise LanitError(f"{name} holds no embeddings", _KINDS)


def _float_arrays(
    batches: Callable[[], Iterator[pa.RecordBatch]], dim: int, name: str
) -> Callable[[], Iterator[np.ndarray]]:
    """Blocks of float32 (b×k), a row of NaN where there is none."""

    def arrays() -> Iterator[np.ndarray]:
        for batch in batches():
            column = batch.column(0)
            valid = column.is_valid().to_numpy(zero_copy_only=False)
            flat = column.flatten().to_numpy(zero_copy_only=False)
            lengths = column.drop_null().value_lengths().to_numpy(zero_copy_only=False)
            if (lengths != dim).any():
                raise LanitError(f"the embeddings in {name} have different lengths", "Leave out what is no embedding.")
            block = np.full((len(column), dim), np.nan, np.float32)
            block[valid] = flat.reshape(-1, dim)
            yield block

    return arrays


def _blocks(arrays: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    for array in arrays:
        for start in range(0, len(array), _BATCH_ROWS):
            yield np.asarray(array[start : start + _BATCH_ROWS])
