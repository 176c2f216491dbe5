"""For tests: stores of made-up embeddings, written straight into files as ``lanit embed`` and ``lanit label`` would."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.clip.fingerprint import Fingerprint
from pipeline.files import sha256_bytes, write_json
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.store.schemas import SCHEMA_VERSION, Manifest, Part, SourceEntry, StoredType, images_schema, with_metadata
from pipeline.store.store import Store
from tests.label_builders import add_labels

Columns = dict[str, list[Any]]


def write_store(
    root: Path, parts: Iterable[tuple[Columns, np.ndarray]], sources: Iterable[str], dim: int, storage: StoredType
) -> Store:
    """parts: of each its columns but the embedding, none for those left out, and the unit-norm embeddings (n×dim) of
    its rows with status ok."""
    fingerprint = Fingerprint("made-up", "0" * 64, {"size": 32}, "gelu", "fp32", dim)
    metadata = {"schema_version": SCHEMA_VERSION, "kind": "images", "fingerprint": fingerprint.to_json()}
    schema, written = with_metadata(images_schema(dim, storage), metadata), list[Part]()
    (root / "images").mkdir(parents=True)
    for columns, vectors in parts:
        ok = np.array(columns["status"]) == "ok"
        values = np.zeros((len(ok), dim), storage)
        values[ok] = vectors
        nothing = [None] * len(ok)
        arrays = [
            pa.array(columns.get(field.name, nothing), field.type) for field in schema if field.name != "embedding"
        ]
        flat = pa.array(values.ravel(), schema.field("embedding").type.value_type)
        arrays.append(pa.FixedSizeListArray.from_arrays(flat, dim, mask=pa.array(~ok)))
        digest = sha256_bytes(repr(columns).encode() + values.tobytes())[:8]
        file = f"images/part-{len(written):05d}-{digest}.parquet"
        pq.write_table(pa.Table.from_arrays(arrays, schema=schema), root / file)
        written.append(Part(file, len(ok), int(ok.sum())))
    entries = tuple(SourceEntry(source) for source in dict.fromkeys(sources))
    write_json(root / "store.json", Manifest(fingerprint, "sample", None, storage, entries, tuple(written)).to_json())
    return Store.open(root)


def store_of_embeddings(
    place: Path, embeddings: np.ndarray, name: str = "store", paths: Sequence[str] | None = None,
    sources: Sequence[str] | None = None, contents: Sequence[str] | None = None, storage: StoredType = "float32",
    part_rows: int = 2048,
) -> Store:  # fmt: skip
    """``place``/name: a store of unit-norm embeddings, float32 (n×k). paths, sources, contents: of each row; equal
    contents are equal images. Parts have ``part_rows`` rows with an embedding; each begins with one that failed."""
    count = len(embeddings)
    paths = paths or [f"{number:07d}.jpg" for number in range(count)]
    sources = sources or [str(place / "images")] * count
    digests = [sha256_bytes(text.encode()) for text in contents or paths]

    def part(start: int) -> tuple[Columns, np.ndarray]:
        chosen = slice(start, min(start + part_rows, count))
        ok = chosen.stop - start
        return {
            "image_id": [f"{row:016x}" for row in (count + start, *range(start, chosen.stop))],
            "path": [f"bad-{start}", *paths[chosen]],
            "source": [sources[start], *sources[chosen]],
            "width": [None, *range(100 + start, 100 + chosen.stop)],
            "height": [None] + [50] * ok,
            "bytes": [0] + [1234] * ok,
            "sha256": [None, *digests[chosen]],
            "status": ["failed"] + ["ok"] * ok,
            "error_message": ["made up"] + [None] * ok,
        }, embeddings[chosen]

    return write_store(place / name, map(part, range(0, count, part_rows)), sources, embeddings.shape[1], storage)


def store_of_folder(
    place: Path, folder: Path, labels: dict[str, set[str]] | None, name: str = "store",
    storage: StoredType = "float32", part_rows: int = 3, dim: int = 6,
) -> Store:  # fmt: skip
    """``place``/name: a store of the image files of a folder, with random embeddings. labels: domains to the paths
    having them, or none for no revision. Files whose name begins with "bad" have failed. Parts have ``part_rows``
    rows."""
    rng, source = np.random.default_rng(len(name)), str(folder.resolve())
    paths = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    ok = [path for path in paths if not path.startswith("bad")]
    vectors = dict(zip(ok, rng.normal(size=(len(ok), dim)), strict=True))

    def size(path: str) -> tuple[int | None, int | None]:
        if path not in vectors:
            return None, None
        with Image.open(folder / path) as image:
            return image.width, image.height

    def part(start: int) -> tuple[Columns, np.ndarray]:
        chosen = paths[start : start + part_rows]
        data = [(folder / path).read_bytes() for path in chosen]
        found = np.array([vectors[path] for path in chosen if path in vectors]).reshape(-1, dim)
        return {
            "image_id": [hashlib.blake2b(f"{source}\0{path}".encode(), digest_size=8).hexdigest() for path in chosen],
            "path": chosen,
            "source": [source] * len(chosen),
            "width": [size(path)[0] for path in chosen],
            "height": [size(path)[1] for path in chosen],
            "bytes": [len(each) for each in data],
            "sha256": [sha256_bytes(each) for each in data],
            "status": ["ok" if path in vectors else "failed" for path in chosen],
            "error_message": [None if path in vectors else "made up, with a comma" for path in chosen],
        }, found / np.linalg.norm(found, axis=1, keepdims=True)

    store = write_store(place / name, map(part, range(0, len(paths), part_rows)), [source], dim, storage)
    if labels is not None:
        active = np.array([[path in having for having in labels.values()] for path in ok])
        margin = np.where(active, 1, -1) * rng.uniform(0.01, 0.1, active.shape)
        prompts = PromptSet(tuple(labels), ("a {}.",), ("a.",), "made up")
        add_labels(store, active, margin, np.full(len(ok), 0.2, np.float32), prompts=prompts)
    return store
