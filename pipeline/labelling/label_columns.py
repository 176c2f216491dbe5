"""Which columns of a table are labels, and what their cells say: 0 and 1 in their spellings, classes, lists of them."""

from __future__ import annotations

import ast
import contextlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types
from numpy.typing import NDArray

from lanit.errors import LanitError, excerpt, listed
from pipeline.inputs.columns import KEY_COLUMNS, NAME_COLUMNS, PATH_COLUMNS
from pipeline.tables.annotations import labels_in
from pipeline.tables.cells import Cells, is_list, is_text

Codes = NDArray[np.int8]
"""1 on, 0 off, and :data:`UNKNOWN`, :data:`TAKEN_BACK`."""

UNKNOWN, TAKEN_BACK, _WRONG, _MINUS = -1, -2, -3, -4
_CODES = {
    **dict.fromkeys(("1", "1.0", "true", "yes"), 1),
    **dict.fromkeys(("0", "0.0", "false", "no"), 0),
    **{"-1": _MINUS, "-1.0": _MINUS, "": UNKNOWN, "?": TAKEN_BACK},
}
_SPELLINGS = (({"true", "false"}, "true/false"), ({"yes", "no"}, "yes/no"), ({"-1", "-1.0"}, "±1"))
_CLASS_COLUMNS = frozenset(
    {
        *("label", "labels", "class", "classes", "class name", "class label", "category", "categories", "tag", "tags"),
        *("cls", "target", "choice", "choices", "species", "breed"),
    }
)
_PLURAL = frozenset({"labels", "classes", "categories", "tags", "choices"})
_NO_LABELS = frozenset(
    {
        *("", "unnamed: 0", "index", "split", "fold", "source", "width", "height", "bytes", "status", "offset"),
        *("error message", "sha256", "caption", "url", "lanit path", "lanit image id", "lanit source"),
    }
)
"""Columns that say something else, and are none of labels unless a phrase is called so."""
_ANNOTATED = r'^(\{"choices": ?\[|\[\{"[^\[]*labels": ?\[)'
_MOSTLY = 0.9  # of the cells: a column of 0 and 1 in which the others are mistakes


def plain(name: str) -> str:
    """A name in the form in which names are compared: lower case, single spaces, "_" as a space."""
    return " ".join(name.replace("_", " ").casefold().split())


def tidy(name: str) -> str:
    """A name as a phrase: "_" as a space, single spaces."""
    return " ".join(name.replace("_", " ").split())


_NAMES = frozenset(map(plain, (*PATH_COLUMNS, *KEY_COLUMNS, *NAME_COLUMNS)))


@dataclass(frozen=True)
class FoundLabels:
    """domains: D phrases. codes: int8 (m×D), of each row of the table. words: where they stand, for a person.

    by_class: whether all are classes, of which an image may have several in rows of its own.
    """

    domains: tuple[str, ...]
    codes: Codes
    words: str
    by_class: bool


@dataclass(frozen=True)
class _Classes:
    """Of one column of classes: said, bool (m), where it says anything; pairs of rows and numbers of names."""

    said: NDArray[np.bool_]
    rows: NDArray[np.int64]
    numbers: NDArray[np.int64]
    names: tuple[str, ...]


def find_labels(
    cells: Cells, rows: int, domains: Sequence[str] | None, path: Path, *, blanks: bool, annotated: bool = False
) -> FoundLabels:
    """The labels among ``cells``, columns of ``rows`` rows.

    domains: those wanted, by columns of their names, or else as classes; none for all that are labels. blanks: whether
    a cell of 0 and 1 may be empty, or "?". annotated: whether a tool for labelling images wrote them, whose one column
    of texts has classes, however few rows there are. Raises LanitError where there are none, or a cell is none.
    """
    by_name: dict[str, list[tuple[str, pa.ChunkedArray]]] = {}
    for name, column in cells:
        by_name.setdefault(plain(name), []).append((name, column))
    if domains is None:
        read = {tidy(each[0][0]): (each, _if_binary(*each[0])) for each in by_name.values()}
        binary = {domain: (each, said) for domain, (each, said) in read.items() if said is not None}
    else:
        wanted = {domain: by_name[plain(domain)] for domain in domains if plain(domain) in by_name}
        binary = {domain: (each, _binary(*each[0], path)) for domain, each in wanted.items()}
    found: dict[str, Codes] = {}
    for domain, (each, said) in binary.items():
        if len(each) > 1:
            raise LanitError(f"{path} has {len(each)} columns '{excerpt(each[-1][0])}'", "Keep one of them.")
        _check(said.codes, *each[0], path, blanks)
        found[domain] = said.codes
    words = [_words_of({domain: said.spelling for domain, (_, said) in binary.items()})] if binary else []
    if domains is None or not binary:
        rest = [(name, column) for name, column in cells if tidy(name) not in binary]
        for name, classified in _class_columns(rest, rows, domains, path, annotated):
            found |= _as_codes(classified, domains, [*found], path)
            words.append(f"{len(classified.names)} classes in {name}")
    if not found:
        raise _none(cells, domains, path)
    codes = np.stack([*found.values()], axis=1) if rows else np.empty((0, len(found)), np.int8)
    return FoundLabels(tuple(found), codes, ", ".join(words), not binary)


def _none(cells: Cells, domains: Sequence[str] | None, path: Path) -> LanitError:
    missing = f"for any of: {listed(domains)}" if domains else "of labels"
    others = f" It has {listed([name for name, _ in cells])}." if cells else ""
    hint = f"Give each a column of 0 and 1, or name the images' classes in a column 'label'.{others}"
    return LanitError(f"{path} has no column {missing}", hint)


@dataclass(frozen=True)
class _Binary:
    """codes: int8 (m), −3 for nonsense. spelling: how they are written, for a person."""

    codes: Codes
    spelling: str


def _if_binary(name: str, column: pa.ChunkedArray) -> _Binary | None:
    """A column that nobody named, where it is one of 0 and 1, but for a few slips."""
    read = None if plain(name) in _NAMES | _NO_LABELS else _read_binary(column)
    if read is None or not len(column):
        return read
    said = read.codes[read.codes != UNKNOWN]
    return read if len(said) and (said != _WRONG).mean() >= _MOSTLY else None


def _binary(name: str, column: pa.ChunkedArray, path: Path) -> _Binary:
    read = _read_binary(column)
    if read is None:
        message = f"{path}: column '{excerpt(name)}' holds {column.type}, no labels"
        raise LanitError(message, "Write 0 or 1, or leave it out.")
    return read


def _read_binary(column: pa.ChunkedArray) -> _Binary | None:
    """What each cell says; none for a column that cannot hold 0 and 1."""
    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    column = column.cast(kind)
    if types.is_null(kind) or is_text(kind):
        encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
        texts = [text.strip().lower() for text in encoded.dictionary.to_pylist()]
        of_text = np.array([*(_CODES.get(text, _WRONG) for text in texts), UNKNOWN], np.int8)
        codes = of_text[pc.fill_null(encoded.indices, len(texts)).to_numpy(False)]
        spelling = next((words for some, words in _SPELLINGS if some.intersection(texts)), "0/1")
    elif types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        numbers = column.cast(pa.float64()).fill_null(np.nan).to_numpy()
        chosen = [np.isnan(numbers), numbers == 1, numbers == 0, numbers == -1]
        codes = np.select(chosen, [UNKNOWN, 1, 0, _MINUS], _WRONG).astype(np.int8)
        spelling = "true/false" if types.is_boolean(kind) else "±1" if (codes == _MINUS).any() else "0/1"
    else:
        return None
    codes[codes == _MINUS] = UNKNOWN if (codes == 0).any() else 0  # beside 0, −1 is what nobody is sure of
    return _Binary(codes, spelling)


def _check(codes: Codes, name: str, column: pa.ChunkedArray, path: Path, blanks: bool) -> None:
    """Raise LanitError for the first cell that is no label."""
    wrong = (codes == _WRONG) | ((codes < 0) & (not blanks))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        cell = column[row].as_py()
        found = "" if cell is None or cell != cell else excerpt(str(cell))
        hint = "Write 0 or 1, or leave it empty." if blanks else "Write 0 or 1 everywhere."
        raise LanitError(f"{path}: column '{excerpt(name)}' has '{found}' in row {row + 1}", hint)


def _words_of(spellings: dict[str, str]) -> str:
    """spellings: by column."""
    kinds = set(spellings.values())
    kind = kinds.pop() if len(kinds) == 1 else "0/1"
    return f"{kind} in {next(iter(spellings))}" if len(spellings) == 1 else f"{len(spellings)} columns of {kind}"


def _class_columns(
    cells: Cells, rows: int, domains: Sequence[str] | None, path: Path, annotated: bool
) -> list[tuple[str, _Classes]]:
    """Columns of classes: of lists and those called so; else the one column of texts that could be it. Of several that
    may have ``domains``, those that do."""
    able = [(name, column) for name, column in cells if _may_be_classes(name, column)]
    called = [
        pair for pair in able if is_list(pair[1].type) or plain(pair[0]) in _CLASS_COLUMNS or _is_annotated(pair[1])
    ]
    chosen = called or [pair for pair in able if is_text(pair[1].type)]
    found = [(name, _classes(name, column, domains, path)) for name, column in chosen]
    if domains is not None:
        wanted = set(map(plain, domains))
        return [pair for pair in found if wanted & set(map(plain, pair[1].names))]
    if called:
        return [pair for pair in found if pair[1].names]
    few = len(found) == 1 and (annotated or 2 * len(found[0][1].names) <= rows)
    return found if few and found[0][1].names else []


def _is_annotated(column: pa.ChunkedArray) -> bool:
    """Whether a column has choices or regions as Label Studio writes them into a cell."""
    return is_text(column.type) and bool(pc.any(pc.match_substring_regex(column.cast(pa.string()), _ANNOTATED)).as_py())


def _may_be_classes(name: str, column: pa.ChunkedArray) -> bool:
    if plain(name) in _NAMES | _NO_LABELS:
        return False
    kind = column.type
    if is_list(kind):
        return is_text(kind.value_type)
    return is_text(kind) or (types.is_integer(kind) and plain(name) in _CLASS_COLUMNS)


def _classes(name: str, column: pa.ChunkedArray, domains: Sequence[str] | None, path: Path) -> _Classes:
    if is_list(column.type):
        said = column.is_valid().to_numpy()
        rows = pc.list_parent_indices(column).to_numpy()
        encoded = pc.list_flatten(column).combine_chunks().dictionary_encode()
        lists = [[text] if text else [] for text in encoded.dictionary.to_pylist()]
    else:
        texts = pc.utf8_trim_whitespace(column.cast(pa.string())).combine_chunks()
        texts = pc.if_else(pc.equal(texts, ""), None, texts)
        said, rows = texts.is_valid().to_numpy(False), np.flatnonzero(texts.is_valid().to_numpy(False))
        encoded = texts.drop_null().dictionary_encode()
        cells = encoded.dictionary.to_pylist()
        numbers_of = _numbered(cells, name, domains, path) if plain(name) in _CLASS_COLUMNS else []
        lists = numbers_of or _split(cells, plain(name) in _PLURAL)
    numbers: dict[str, int] = {}
    names: list[str] = []
    of_cell: list[list[int]] = []
    for texts_of in lists:
        of_cell.append([])
        for text in filter(None, map(tidy, texts_of)):
            if plain(text) not in numbers:
                numbers[plain(text)] = len(names)
                names.append(text)
            of_cell[-1].append(numbers[plain(text)])
    codes = encoded.indices.to_numpy(False)
    counts = np.array([len(each) for each in of_cell], np.int64)
    flat = np.array([number for each in of_cell for number in each], np.int64)
    begins = np.cumsum(counts) - counts
    repeated = np.repeat(np.arange(len(codes)), counts[codes])
    within = np.arange(len(repeated)) - np.repeat(np.cumsum(counts[codes]) - counts[codes], counts[codes])
    return _Classes(said, rows[repeated], flat[begins[codes[repeated]] + within], tuple(names))


def _numbered(cells: list[str], name: str, domains: Sequence[str] | None, path: Path) -> list[list[str]]:
    """Classes by number as the phrases that they count, from 0 on; −1 is none. Empty where the cells are no numbers."""
    if not cells or not all(cell.lstrip("-").isdigit() for cell in cells):
        return []
    if domains is None or max(map(int, cells)) >= len(domains):
        message = f"{path}: column '{excerpt(name)}' has classes by number, as {excerpt(cells[0])}, without their names"
        raise LanitError(
            message, f"Write them, a line each from 0 on: --prompts classes.txt --labels {shlex.quote(str(path))}"
        )
    return [[domains[int(cell)]] if int(cell) >= 0 else [] for cell in cells]


def _split(cells: list[str], several: bool) -> list[list[str]]:
    """The names in each cell: a list as JSON or Python writes it, or separated by "|"; where a column is for
    ``several``, by ";" or "," too."""
    marks = ("|", ";", ",") if several else ("|",)
    mark = next((mark for mark in marks if any(mark in cell for cell in cells if not cell.startswith("["))), None)
    found = []
    for cell in cells:
        names = _written_list(cell)
        found.append(names if names is not None else cell.split(mark) if mark else [cell])
    return found


def _written_list(cell: str) -> list[str] | None:
    if not cell.startswith(("[", "{")):
        return None
    value = None
    for parse in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            value = parse(cell)
            break
    if isinstance(value, dict):
        value = value.get("choices")
    if isinstance(value, list) and any(isinstance(each, dict) for each in value):
        value = [label for each in value if isinstance(each, dict) for label in labels_in(each)]
    return [str(each) for each in value] if isinstance(value, list) else None


def _as_codes(found: _Classes, domains: Sequence[str] | None, taken: list[str], path: Path) -> dict[str, Codes]:
    """A column for each class, those wanted alone where ``domains`` are."""
    of_name = {plain(name): number for number, name in enumerate(found.names)}
    wanted = {name: plain(name) for name in (found.names if domains is None else domains)}
    clash = {plain(name) for name in taken} & set(wanted.values()) if domains is None else set()
    if clash:
        raise LanitError(f"{path} has two columns for '{excerpt(min(clash))}'", "Keep one of them.")
    out = {}
    for name, key in wanted.items():
        if key in of_name:
            out[name] = np.where(found.said, 0, UNKNOWN).astype(np.int8)
            out[name][found.rows[found.numbers == of_name[key]]] = 1
    return out
