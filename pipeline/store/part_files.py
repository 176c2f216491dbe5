"""One part of the images table as a file: whether it is whole and whose it is, and reading it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lanit.errors import LanitError
from pipeline.clip.fingerprint import Fingerprint
from pipeline.files import sha256_file
from pipeline.parquet_seals import footer_sha256
from pipeline.store.schemas import PART_NAME, Part, StoredType, images_schema, metadata_of
from pipeline.store.store_folder import MANIFEST_NAME, is_parquet_of_lanit

_MISFIT = f"{{}} does not fit {MANIFEST_NAME} beside it"


def read_part(path: Path, columns: list[str], part: Part | None = None, hint: Callable[[], str] = str) -> pa.Table:
    """Columns of a part. part: as the store knows it, where it does. hint: gives that of the error.

    Raises LanitError where it is gone, its bytes are not those that were written, or it is not the file of ``part``.
    """
    try:
        fits = _has_footer_of(path, part)
        # not read_table, whose detour by a dataset takes longer than the checksums do
        with pq.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
            table = file.read(columns).select(columns)
    except FileNotFoundError as error:
        again = "Another command changed the store meanwhile: run this one again."
        raise LanitError(f"there is no {path} any more", again) from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise LanitError(f"{path} is damaged ({error})", hint()) from error
    if not fits:
        raise LanitError(_MISFIT.format(path), hint())
    return table


def check_part(path: Path, part: Part | None, fingerprint: Fingerprint, storage: StoredType) -> None:
    """Raise LanitError unless ``path`` ends as a part of this model and type, with footer and counts of ``part``.

    No page is read.
    """
    try:
        footer = pq.ParquetFile(path)
        fits = _has_footer_of(path, part)
    except FileNotFoundError as error:
        raise LanitError(f"the store lacks its part {path}") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise LanitError(f"{path} is damaged ({error})") from error
    with footer:
        schema, metadata = footer.schema_arrow, footer.metadata
    try:
        made_by = Fingerprint.from_json(metadata_of(schema).get("fingerprint", {}))
    except (LanitError, ValueError) as error:
        raise LanitError(f"{path} is damaged: {getattr(error, 'message', error)}") from error
    counts = (metadata.num_rows, _ok_of(metadata))
    if (
        (part is not None and (counts[0] != part.rows or counts[1] not in (None, part.ok)))
        or not schema.equals(images_schema(fingerprint.embedding_dim, storage))
        or made_by != fingerprint
        or not fits
    ):
        raise LanitError(_MISFIT.format(path))


def check_bytes(path: Path) -> None:
    """Raise LanitError unless the bytes of a part are those that its name stands for."""
    if not has_own_name(path):
        raise LanitError(f"{path} is damaged: its bytes do not have the digest in its name")


def has_own_name(path: Path) -> bool:
    """Whether the name of a file is that of a part with its bytes."""
    found = PART_NAME.fullmatch(f"{path.parent.name}/{path.name}")
    try:
        return found is not None and sha256_file(path).startswith(found["digest"])
    except OSError:
        return False


def is_part_of_lanit(path: Path) -> bool:
    """Whether nobody else can have written it: name, footer and bytes fit each other."""
    return is_parquet_of_lanit(path) and has_own_name(path)


def _has_footer_of(path: Path, part: Part | None) -> bool:
    return part is None or part.footer_sha256 in (None, footer_sha256(path))


def _ok_of(metadata: pq.FileMetaData) -> int | None:
    """Rows with an embedding, those without an error message, as the footer counts them; none where it does not."""
    total = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        [chunk] = [
            column for column in map(group.column, range(group.num_columns)) if column.path_in_schema == "error_message"
        ] or [None]
        if chunk is None or not chunk.is_stats_set or not chunk.statistics.has_null_count:
            return None
        total += chunk.statistics.null_count
    return total
