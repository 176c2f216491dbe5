"""Every schema of the store, and the identity of the model that filled it. Described in manifests/README.md."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import pyarrow as pa

from lanit.errors import LanitError
from pipeline.clip.fingerprint import Fingerprint
from pipeline.decoding.frames import Frame, parse_frame

SCHEMA_VERSION = 2
METADATA_KEY = b"lanit"
"""Key of the JSON document in the key-value metadata of every Parquet file of the store."""

StoredType = Literal["float32", "float16"]
"""Type of the embeddings on disk; they are float32 once read."""
STORAGE_TYPES: dict[StoredType, pa.DataType] = {"float32": pa.float32(), "float16": pa.float16()}

PART_NAME = re.compile(r"images/part-\d{5,}-(?P<digest>[0-9a-f]{8})\.parquet")
"""Of a part, relative to the store; ``digest`` is the beginning of its SHA-256."""

ACTIVE_PREFIX = "label:"
MARGIN_PREFIX = "margin:"
HUMAN_PREFIX = "human:"
_ANEW = "Write the store anew: lanit embed DIR --overwrite"


def images_schema(embedding_dim: int, storage: StoredType = "float32") -> pa.Schema:
    """A part of the images table: one row per image found, in the order of (source, offset, path)."""
    return pa.schema(
        [
            pa.field("image_id", pa.string(), nullable=False),
            pa.field("path", pa.string(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
            pa.field("offset", pa.int64()),
            pa.field("modified_ns", pa.int64()),
            pa.field("width", pa.int32()),
            pa.field("height", pa.int32()),
            pa.field("bytes", pa.int64()),
            pa.field("sha256", pa.string()),
            pa.field("status", pa.string(), nullable=False),
            pa.field("error_message", pa.string()),
            pa.field("embedding", pa.list_(STORAGE_TYPES[storage], embedding_dim)),
        ]
    )


def labels_schema(domains: Sequence[str], *, human: bool) -> pa.Schema:
    """A label revision: one row per image with status ok, in store order; two columns per domain.

    human: whether some labels were set by people; then a third column per domain says which.
    """
    columns = [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("similarity_base", pa.float32(), nullable=False),
    ]
    for domain in domains:
        columns.append(pa.field(ACTIVE_PREFIX + domain, pa.bool_(), nullable=False))
        columns.append(pa.field(MARGIN_PREFIX + domain, pa.float32(), nullable=False))
        if human:
            columns.append(pa.field(HUMAN_PREFIX + domain, pa.bool_(), nullable=False))
    return pa.schema(columns)


def people_schema(*, dictionary: bool = True) -> pa.Schema:
    """Labels by people: one row for each answer. dictionary: texts as numbers of a list of them, as they are in memory,
    where an image has many answers; on disk they are plain."""
    text = pa.dictionary(pa.int32(), pa.string()) if dictionary else pa.string()
    return pa.schema(
        [
            pa.field("image_id", text),
            pa.field("path", text),
            pa.field("sha256", text),
            pa.field("phrase", text, nullable=False),
            pa.field("label", pa.bool_()),
        ]
    )


def pairs_schema() -> pa.Schema:
    """Paired images: one row for each image that has a partner, which is what it is to become."""
    return pa.schema(
        [pa.field("image_id", pa.string(), nullable=False), pa.field("target_id", pa.string(), nullable=False)]
    )


def with_metadata(schema: pa.Schema, metadata: dict[str, Any]) -> pa.Schema:
    """``schema`` carrying ``metadata`` as JSON; equal values give equal bytes."""
    return schema.with_metadata({METADATA_KEY: json.dumps(metadata, ensure_ascii=False, sort_keys=True).encode()})


def metadata_of(schema: pa.Schema) -> dict[str, Any]:
    """The JSON document of a file's schema; empty where the file carries none. Raises LanitError if it is damaged."""
    try:
        value = json.loads((schema.metadata or {}).get(METADATA_KEY, b"{}"))
    except (ValueError, RecursionError) as error:
        raise LanitError(f"its metadata is damaged ({error})", _ANEW) from error
    if not isinstance(value, dict):
        raise LanitError("its metadata is damaged (no JSON object)", _ANEW)
    return value


@dataclass(frozen=True)
class Part:
    """One file of the images table. file: POSIX path in the store; rows, ok: counts of rows.

    footer_sha256: see ``parquet_seals``; none of a part that an older lanit noted.
    """

    file: str
    rows: int
    ok: int
    footer_sha256: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class SourceEntry:
    """An input of the store. source: absolute folder, tar or table, or a URL; image_column: of a table, if named."""

    source: str
    image_column: str | None = None


@dataclass(frozen=True)
class Manifest:
    """``store.json``: what the images table consists of. Its replacement is the only commit.

    clip_spec, clip_architecture: what ``load_clip`` was given, so that later commands need no ``--clip``.
    frame: that is read of files with several; none for the one that the file names, else the first.
    """

    fingerprint: Fingerprint
    clip_spec: str
    clip_architecture: str | None
    storage: StoredType
    sources: tuple[SourceEntry, ...]
    parts: tuple[Part, ...]
    frame: Frame | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "clip_spec": self.clip_spec,
            "clip_architecture": self.clip_architecture,
            "embedding_dim": self.fingerprint.embedding_dim,
            "fingerprint": self.fingerprint.to_json(),
            "storage": self.storage,
            "sources": [asdict(source) for source in self.sources],
            "parts": [part.to_json() for part in self.parts],
        } | ({} if self.frame is None else {"frame": self.frame})

    @classmethod
    def from_json(cls, value: Any, name: str) -> Manifest:
        """Raises LanitError, naming the file ``name``, for another schema version or a damaged file."""
        if not isinstance(value, dict) or "schema_version" not in value:
            raise LanitError(f"{name} is not the file of a store", _ANEW)
        version = value["schema_version"]
        if version != SCHEMA_VERSION:
            raise LanitError(f"{name} has schema version {version}; this lanit reads {SCHEMA_VERSION}", _ANEW)
        try:
            return cls(
                fingerprint=Fingerprint.from_json(value["fingerprint"]),
                clip_spec=_typed(value["clip_spec"], str),
                clip_architecture=_typed(value["clip_architecture"], str, type(None)),
                storage=_storage(value["storage"], name),
                sources=tuple(map(_source, value["sources"])),
                parts=tuple(map(_part, value["parts"])),
                frame=_frame(value.get("frame")),
            )
        except KeyError as error:
            raise LanitError(f"{name} is damaged: it lacks {error}", _ANEW) from error
        except (TypeError, ValueError) as error:
            raise LanitError(f"{name} is damaged: {error}", _ANEW) from error


def _source(entry: Any) -> SourceEntry:
    return SourceEntry(_typed(entry["source"], str), _typed(entry["image_column"], str, type(None)))


def _part(entry: Any) -> Part:
    """Raises ValueError for a file elsewhere than among the parts, whoever wrote the name, and for senseless counts."""
    footer = _typed(entry.get("footer_sha256"), str, type(None))
    part = Part(_typed(entry["file"], str), _typed(entry["rows"], int), _typed(entry["ok"], int), footer)
    if not PART_NAME.fullmatch(part.file) or not 0 <= part.ok <= part.rows:
        raise ValueError(f"it has a part {part.file!a} of {part.rows} rows, {part.ok} with an embedding")
    return part


def _frame(value: Any) -> Frame | None:
    try:
        return None if value is None else parse_frame(_typed(value, int, str))
    except LanitError as error:
        raise ValueError(error.message) from error


def _typed(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:
        raise TypeError(f"{ascii(value)[:40]} stands where there should be {kinds[0].__name__}")
    return value


def _storage(value: Any, name: str) -> StoredType:
    if value not in get_args(StoredType):
        raise LanitError(f"{name} has embeddings of an unknown type, {value}", _ANEW)
    storage: StoredType = value
    return storage
