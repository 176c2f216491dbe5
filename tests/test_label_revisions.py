"""Label revisions come back as they were written, in blocks or whole, and memory does not grow with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipeline.store.label_revisions
from lanit.errors import LanitError
from lanit.rules import Rule
from pipeline.clip.fingerprint import Fingerprint
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.store.label_revisions import (
    LabelBlock,
    LabelRevision,
    RevisionFile,
    RevisionHeader,
    digest_of,
    with_overrides,
    write_revision,
)
from pipeline.store.schemas import with_metadata

DOMAINS = ("hat", "hat.red", "größe: 3", "a|b")  # a dot is a path in Parquet
FINGERPRINT = Fingerprint("made-up", "0" * 64, {"size": 32}, "gelu", "fp32", 4)


def header(human: bool = False, digest: str = "0", **changes: Any) -> RevisionHeader:
    prompts = PromptSet(DOMAINS, ("a {}.",), ("a.",), "test", (0.0, 0.01, 0.0, -0.5))
    values: dict[str, Any] = {"rule": Rule(), "origin": "label", "parent": None} | changes
    return RevisionHeader(FINGERPRINT, prompts, inputs_sha256=digest, human=human, **values)


def blocks_of(count: int, size: int, human: bool, seed: int = 0) -> Iterator[LabelBlock]:
    rng = np.random.default_rng(seed)
    for start in range(0, count, size):
        rows = min(size, count - start)
        margin = rng.normal(size=(rows, len(DOMAINS))).astype(np.float32)
        marks = (rng.random((rows, len(DOMAINS))) < 0.3) & human
        ids = pa.array([f"{start + i:016x}" for i in range(rows)])
        paths = pa.array([f"a b/é{start + i}.png" for i in range(rows)])
        yield LabelBlock(
            start, rows, active=margin > 0, margin=margin, similarity_base=margin[:, 1] / 2, human=marks,
            image_ids=ids, paths=paths,
        )  # fmt: skip


def whole(blocks: list[LabelBlock]) -> dict[str, np.ndarray]:
    names = ("active", "margin", "similarity_base", "human")
    return {name: np.concatenate([getattr(block, name) for block in blocks]) for name in names}


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.store.label_revisions, "BLOCK_ROWS", 10)


@pytest.mark.parametrize("human", [False, True])
@pytest.mark.parametrize(("count", "size"), [(1, 10), (10, 10), (37, 7), (23, 3)])
@pytest.mark.usefixtures("small_groups")
def test_what_is_written_in_blocks_is_read_in_blocks_and_whole(
    count: int, size: int, human: bool, tmp_path: Path
) -> None:
    path = tmp_path / "r.parquet"
    write_revision(path, header(human), blocks_of(count, size, human))
    expected = whole(list(blocks_of(count, size, human)))
    file = RevisionFile.open(path, 7, FINGERPRINT)
    assert (file.number, file.rows, file.has_human, file.domains) == (7, count, human, DOMAINS)
    assert file.prompt_set.offsets == (0.0, 0.01, 0.0, -0.5)
    found = list(file.blocks(active=True, margin=True, base=True, human=True, keys=True))
    assert max(block.rows for block in found) <= 10
    assert [block.start for block in found] == list(np.cumsum([0, *(block.rows for block in found[:-1])]))
    for name, values in whole(found).items():
        np.testing.assert_array_equal(values, expected[name])
        assert values.dtype == expected[name].dtype
    read = file.read()
    assert (read.human is not None) == human
    for name, values in expected.items():
        if name != "human" or human:
            np.testing.assert_array_equal(getattr(read, name), values)
    assert (
        list(read.paths)
        == [f"a b/é{i}.png" for i in range(count)]
        == pa.concat_arrays([block.paths for block in found]).to_pylist()
    )


@pytest.mark.usefixtures("small_groups")
def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    write_revision(path, header(), blocks_of(25, 5, False))
    file = RevisionFile.open(path, 1, FINGERPRINT)
    for block in file.blocks(margin=True):
        assert block.margin.shape == (block.rows, len(DOMAINS))
        for name in ("active", "similarity_base", "human", "image_ids", "paths"):
            with pytest.raises(LookupError, match=name):
                getattr(block, name)
    assert sum(block.rows for block in file.blocks()) == 25


@pytest.mark.usefixtures("small_groups")
def test_rows_are_taken_in_the_order_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    write_revision(path, header(True), blocks_of(37, 6, True))
    file, rows = RevisionFile.open(path, 1, FINGERPRINT), [36, 0, 12, 12, 5]
    read, taken = file.read(), file.take(rows)
    np.testing.assert_array_equal(taken.margin, read.margin[rows])
    np.testing.assert_array_equal(taken.active, read.active[rows])
    np.testing.assert_array_equal(taken.human, read.human[rows] if read.human is not None else None)
    assert taken.paths.to_pylist() == list(read.paths[rows])
    assert file.take([]).rows == 0
    with pytest.raises(IndexError):
        file.take([37])


def test_a_revision_in_memory_gives_the_same_blocks(
    make_revision: Callable[..., LabelRevision], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.store.label_revisions, "BLOCK_ROWS", 4)
    revision = make_revision(np.random.default_rng(0).normal(size=(9, 3)))
    found = list(revision.blocks(active=True, margin=True, human=True, keys=True))
    assert [(block.start, block.rows) for block in found] == [(0, 4), (4, 4), (8, 1)]
    np.testing.assert_array_equal(np.concatenate([block.margin for block in found]), revision.margin)
    assert not any(block.human.any() for block in found)
    assert [path for block in found for path in block.paths.to_pylist()] == list(revision.paths)


def test_a_header_knows_its_own_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    write_revision(path, header(), blocks_of(5, 5, False))
    assert header().is_of(path)
    others = (
        header(digest="1"),
        header(human=True),
        header(parent=1),
        header(origin="train:a step 3"),
        header(rule=Rule("top-k", 2)),
    )
    assert not any(other.is_of(path) for other in others)
    path.write_bytes(path.read_bytes()[:100])
    assert not header().is_of(path)


def test_the_same_labels_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_revision(tmp_path / name, header(), blocks_of(25, 5, False))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("cut", [4, 300, -20])
def test_a_damaged_file_is_one_line(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    write_revision(path, header(), blocks_of(5, 5, False))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(LanitError, match="revision 2 cannot be read") as caught:
        RevisionFile.open(path, 2, FINGERPRINT)
    assert "lanit label" in caught.value.hint


def _replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    assert len(old) == len(new)
    assert data.count(old) > 0
    return data.replace(old, new)


def test_a_changed_byte_in_any_page_is_noticed(tmp_path: Path) -> None:
    path, pages = tmp_path / "r.parquet", 0
    write_revision(path, header(True), blocks_of(400, 400, True))
    whole, group = path.read_bytes(), pq.read_metadata(path).row_group(0)
    for column in (group.column(number) for number in range(group.num_columns)):
        data = bytearray(whole)
        data[column.data_page_offset + column.total_compressed_size - 3] ^= 0x10
        path.write_bytes(data)
        with pytest.raises(LanitError, match="revision 2 cannot be read") as caught:
            RevisionFile.open(path, 2, FINGERPRINT).read()
        assert "lanit label" in caught.value.hint
        assert not header(True).is_of(path), "the same command writes it anew"
        pages += 1
    assert pages == 3 + 3 * len(DOMAINS)


def test_what_a_revision_says_of_itself_is_sealed(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    write_revision(path, header(), blocks_of(5, 5, False))
    whole = pq.read_table(path)
    said = whole.schema.metadata[b"lanit"]
    for old, new in ((b"adaptive", b"argmax12"), (b'"parent": null', b'"parent": 1234'), (b"0.01", b"0.02")):
        pq.write_table(whole.replace_schema_metadata({b"lanit": _replaced(said, old, new)}), path)
        with pytest.raises(LanitError, match="revision 3 cannot be read"):
            RevisionFile.open(path, 3, FINGERPRINT)
    for damaged in (said[:40], b"\xff" + said, b'{"kind": "labels", "schema_version": 2}'):
        pq.write_table(whole.replace_schema_metadata({b"lanit": damaged}), path)
        with pytest.raises(LanitError, match=r"revision 3 cannot be read|is not a label revision"):
            RevisionFile.open(path, 3, FINGERPRINT)
    pq.write_table(whole.drop_columns(["margin:hat"]), path)
    with pytest.raises(LanitError, match="columns are not those of its prompts"):
        RevisionFile.open(path, 3, FINGERPRINT)


def test_a_revision_without_seal_and_checksums_is_still_read_and_known(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    write_revision(path, header(), blocks_of(5, 5, False))
    before, whole = RevisionFile.open(path, 1, FINGERPRINT).read(), pq.read_table(path)
    pq.write_table(whole.cast(with_metadata(whole.schema.remove_metadata(), header().metadata)), path)
    np.testing.assert_array_equal(RevisionFile.open(path, 1, FINGERPRINT).read().margin, before.margin)
    assert header().is_of(path)


def test_damage_within_a_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    write_revision(path, header(), blocks_of(3000, 3000, False))
    data = bytearray(path.read_bytes())
    data[1000 : len(data) // 2] = b"\xff" * (len(data) // 2 - 1000)
    path.write_bytes(data)
    with pytest.raises(LanitError, match="revision 2 cannot be read"):
        RevisionFile.open(path, 2, FINGERPRINT).read()


def test_other_files_and_other_models_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(LanitError, match="is not a label revision"):
        RevisionFile.open(tmp_path / "other.parquet", 1, FINGERPRINT)
    write_revision(tmp_path / "r.parquet", header(), blocks_of(5, 5, False))
    other = Fingerprint("made-up", "1" * 64, {"size": 32}, "gelu", "fp32", 4)
    with pytest.raises(LanitError, match="revision 1 was made with made-up"):
        RevisionFile.open(tmp_path / "r.parquet", 1, other)


def test_labels_by_people_replace_only_what_they_say() -> None:
    (block,) = blocks_of(40, 40, False)
    given = np.random.default_rng(1).integers(-1, 2, block.active.shape).astype(np.int8)
    merged = with_overrides(block, given)
    for row in range(block.rows):
        for n in range(len(DOMAINS)):
            said = given[row, n]
            assert merged.active[row, n] == (block.active[row, n] if said < 0 else said == 1)
            assert merged.human[row, n] == (said >= 0)
    np.testing.assert_array_equal(merged.margin, block.margin)


def test_digests_tell_values_shapes_and_types_apart() -> None:
    arrays = [np.arange(6), np.arange(6).reshape(2, 3), np.arange(6).astype(np.int8), np.arange(1, 7)]
    assert len({digest_of(array) for array in arrays}) == 4
    assert digest_of(np.arange(6), np.arange(6)) != digest_of(np.arange(6))
    assert digest_of(np.arange(12)[::2]) == digest_of(np.arange(0, 12, 2))
