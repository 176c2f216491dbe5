"""A sealed Parquet file notices a change of any byte, and any reader of Parquet takes it."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.parquet_seals import close_sealed, footer_sha256, is_whole


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


def test_what_is_sealed_in_memory_is_the_same_file(tmp_path: Path) -> None:
    table, sink = _write(tmp_path / "table.parquet"), io.BytesIO()
    writer = pq.ParquetWriter(sink, table.schema.with_metadata({b"lanit": b'"lanit_seal"'}))
    writer.write_table(table)
    close_sealed(writer, sink)
    assert sink.getvalue() == (tmp_path / "table.parquet").read_bytes()


def test_footers_tell_sealed_files_of_any_different_content_apart(tmp_path: Path) -> None:
    digests = set()
    for number in range(20):
        path = tmp_path / f"{number}.parquet"
        table = pa.table({"n": [0, 100 + number, 999]})  # the extremes and all sizes are equal
        writer = pq.ParquetWriter(path, table.schema, use_dictionary=False, compression="none")
        writer.write_table(table)
        close_sealed(writer, path)
        data = path.read_bytes()
        length = int.from_bytes(data[-8:-4], "little") + 8
        assert footer_sha256(path) == hashlib.sha256(data[-length:]).hexdigest()
        digests.add(footer_sha256(path))
    assert len(digests) == 20
    for cut in (0, 3, 7, 50):
        path.write_bytes(data[:cut])
        with pytest.raises(ValueError, match="does not end as a Parquet file"):
            footer_sha256(path)
