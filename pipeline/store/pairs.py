"""``pairs.parquet``: which image of a store is to become which other one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lanit.errors import LanitError
from pipeline.commands import store_option
from pipeline.files import atomic_path, sealed, sha256_bytes
from pipeline.parquet_seals import close_sealed, is_whole
from pipeline.store.schemas import SCHEMA_VERSION, pairs_schema, with_metadata

if TYPE_CHECKING:
    from pipeline.store.store import Store

PAIRS_NAME = "pairs.parquet"


def write_pairs(store: Store, sources: NDArray[np.int64], targets: NDArray[np.int64]) -> None:
    """Replace the pairs of a store, whose lock is held, by these rows of its embedded images."""
    ids = store.ok_images()["image_id"].combine_chunks()
    table = pa.table([ids.take(pa.array(rows)) for rows in (sources, targets)], schema=pairs_schema())
    document = {"schema_version": SCHEMA_VERSION, "kind": "pairs", "rows": len(table)}
    described = with_metadata(pairs_schema(), sealed(document))
    with (
        atomic_path(store.root / PAIRS_NAME) as temporary,
        pq.ParquetWriter(temporary, described, compression="zstd", write_statistics=False) as file,
    ):
        file.write_table(table.replace_schema_metadata())
        close_sealed(file, temporary)


def partners(store: Store) -> NDArray[np.int64] | None:
    """For each embedded image the row of its partner, int64 (n), −1 where it has none; none where there are no pairs.

    Pairs of which an image is gone count no more. Raises LanitError where the file is damaged.
    """
    path = store.root / PAIRS_NAME
    if not path.is_file():
        return None
    try:
        if not is_whole(path):
            raise ValueError("its content was changed since it was written")
        pairs = pq.read_table(path, schema=pairs_schema())
    except (OSError, ValueError, pa.ArrowException) as error:
        again = f"Pair the images again: lanit pair FROM TO{store_option(store.root)}"
        raise LanitError(f"{path} is damaged ({str(error).splitlines()[0]})", again) from error
    ids = store.ok_images()["image_id"].combine_chunks()
    rows = [pc.index_in(pairs[name], value_set=ids).fill_null(-1).to_numpy() for name in pairs.column_names]
    known = (rows[0] >= 0) & (rows[1] >= 0)
    found = np.full(len(ids), -1, np.int64)
    found[rows[0][known]] = rows[1][known]
    return found if known.any() else None


def record_of(store: Store, rows: NDArray[np.int64]) -> dict[str, Any]:
    """What a run notes of the pairs that it learns from: how many they are, and a digest of the images, wherever these
    lie in the store. rows: as :func:`partners` gives them."""
    ids, sources = store.ok_images()["image_id"], np.flatnonzero(rows >= 0)
    named = zip(ids.take(sources).to_pylist(), ids.take(rows[sources]).to_pylist(), strict=True)
    return {"count": len(sources), "sha256": sha256_bytes("\n".join(sorted(map(" ".join, named))).encode())}
