"""A sealed Parquet file notices a change of any byte, and any reader of Parquet takes it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.parquet_seals import close_sealed, is_whole


def _write(path: Path) -> pa.Table:
    table = pa.table({"path": ["a", "b"], "margin:hat": pa.array([0.5, None], pa.float32())})
    writer = pq.ParquetWriter(path, table.schema.with_metadata({b"lanit": b'"lanit_seal"'}))
    writer.write_table(table)
    close_sealed(writer, path)
    return table


def test_a_changed_byte_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    table = _write(path)
    assert pq.read_table(path).equals(table)
    data = path.read_bytes()
    assert is_whole(path)
    for place in range(0, len(data), 17):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert not is_whole(path), place
    for cut in (0, 3, 8, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        assert not is_whole(path), cut


def test_a_file_without_a_seal_is_not_taken_for_whole(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "plain.parquet")
    assert not is_whole(tmp_path / "plain.parquet")


def test_equal_tables_give_equal_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        _write(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
