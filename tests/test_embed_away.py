"""What cannot be listed or found for a moment is not gone: its rows stay until somebody says that they are to go."""

from __future__ import annotations

import json
import os
import shlex
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from typer.testing import CliRunner

import cli
from lanit.errors import LanitError, UsageError
from pipeline.embedding.embed import EmbedOptions, embed
from pipeline.inputs.opening import find_sources
from pipeline.store.store import Store


def rows(root: Path) -> list[str]:
    """Paths with an embedding."""
    return sorted(Store.open(root).ok_images()["path"].to_pylist())


def inputs(root: Path) -> list[str]:
    return [entry.source for entry in Store.open(root).manifest.sources]


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()


def test_an_input_that_is_away_keeps_its_rows_and_its_place_until_it_is_forgotten(
    make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path
) -> None:
    first, second, root = make_images(2, "first"), make_images(3, "second", seed=1), tmp_path / "store"
    embed([first, second], root, tiny_clip)
    second.rename(tmp_path / "unmounted")
    report = embed([first], root, tiny_clip)
    assert (report.skipped, report.kept, report.away, report.dropped, report.stored) == (2, 3, 3, 0, 5)
    [warning] = report.warnings
    command = f"lanit embed {first} --store {root} --forget {second}"
    assert warning.startswith(f"{second}: cannot be found now; 3 images of it stay")
    assert warning.endswith(command)
    assert inputs(root) == [str(first), str(second)]
    (tmp_path / "unmounted").rename(second)
    report = embed([first, second], root, tiny_clip)
    assert (report.ok, report.skipped, report.away, report.warnings) == (0, 5, 0, ())
    report = embed([first], root, tiny_clip)
    assert (report.kept, report.away, report.warnings) == (3, 0, ())

    second.rename(tmp_path / "gone")
    result: Any = CliRunner().invoke(cli.app, shlex.split(command)[1:])
    assert result.exit_code == 0, result.output
    assert inputs(root) == [str(first)]
    assert len(rows(root)) == 2
    report = embed([first], root, tiny_clip, EmbedOptions(forget=(str(second),)))
    assert "has no input" in report.warnings[0], "the same command again does no harm"
    assert report.stored == 2


def test_an_empty_folder_of_which_the_store_has_images_is_refused_and_the_hint_forgets_it(
    make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path
) -> None:
    first, second, root = make_images(2, "first"), make_images(3, "second", seed=1), tmp_path / "store"
    embed([first, second], root, tiny_clip)
    second.rename(tmp_path / "unmounted")
    second.mkdir()
    before = (root / "store.json").read_bytes()
    for given in ([first, second], [second]):
        with pytest.raises(LanitError, match="the store has 3 of it: perhaps its disk is not mounted") as caught:
            embed(given, root, tiny_clip)
        assert (root / "store.json").read_bytes() == before
    assert embed([first], root, tiny_clip).away == 3, "an empty mount point is no more there than a missing one"
    result: Any = CliRunner().invoke(cli.app, shlex.split(caught.value.hint.partition("lanit ")[2]))
    assert result.exit_code == 0, result.output
    assert inputs(root) == [str(first)]


def test_what_is_both_an_input_and_to_be_forgotten_is_refused(
    make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path
) -> None:
    folder = make_images(1)
    embed([folder], tmp_path / "store", tiny_clip)
    with pytest.raises(UsageError, match="both an input and to be forgotten"):
        embed([folder], tmp_path / "store", tiny_clip, EmbedOptions(forget=(f"{folder}/",)))
    with pytest.raises(UsageError, match="overwrite forgets"):
        EmbedOptions(overwrite=True, forget=("x",))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("shards/01.tar", ["01"]),
        ("{here}/shards/01.tar", ["01"]),
        ("shards/{{01..02}}.tar", ["01", "02"]),
        ("shards/*.tar", ["01", "02"]),
        ("*/*.tar", ["01", "02"]),
        ("*.tar", []),
        ("s3://bucket/photos/", ["s3"]),
        ("s3://bucket/*", ["s3"]),
        ("photos", []),
    ],
)
def test_an_input_is_forgotten_by_the_name_or_pattern_that_it_was_given_by(
    text: str, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    known = {f"{tmp_path}/shards/01.tar": "01", f"{tmp_path}/shards/02.tar": "02", "s3://bucket/photos": "s3"}
    assert [known[source] for source in find_sources(text.format(here=tmp_path), list(known))] == found


def test_a_subfolder_that_cannot_be_listed_keeps_its_rows_and_the_rest_goes_on(
    make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, root = make_images(6), tmp_path / "store"
    embed([folder], root, tiny_clip, EmbedOptions(part_rows=2))
    before = rows(root)
    (folder / "b" / "000.png").unlink()
    real = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).rstrip("/").endswith("/a"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        report = embed([folder], root, tiny_clip, EmbedOptions(part_rows=2))
    assert (report.found, report.skipped, report.kept, report.away, report.dropped) == (2, 2, 3, 3, 1)
    assert any(f"{folder}/a (Permission denied)" in warning for warning in report.warnings)
    assert any("3 images" in warning and "(below a/) cannot be listed now and stay" in warning
               for warning in report.warnings)  # fmt: skip
    assert rows(root) == [path for path in before if path != "b/000.png"]
    (folder / "a" / "001.png").unlink()
    report = embed([folder], root, tiny_clip, EmbedOptions(part_rows=2))
    assert (report.ok, report.skipped, report.dropped, report.away) == (0, 4, 1, 0)


def test_a_link_to_a_folder_that_is_away_keeps_the_rows_below_it(
    make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path
) -> None:
    folder, disk, root = make_images(2), make_images(2, "disk", seed=1), tmp_path / "store"
    (folder / "more").symlink_to(disk)
    embed([folder], root, tiny_clip)
    disk.rename(tmp_path / "unmounted")
    report = embed([folder], root, tiny_clip)
    assert (report.found, report.away, report.stored) == (2, 2, 4)
    assert "below more/" in report.warnings[0]
    (folder / "more").unlink()
    assert embed([folder], root, tiny_clip).dropped == 2


def test_images_of_a_metadata_file_stay_where_their_folder_cannot_be_listed(
    make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, root = make_images(4), tmp_path / "store"
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    (folder / "metadata.csv").write_text("file_name\n" + "\n".join(names) + "\n")
    embed([folder], root, tiny_clip)
    real = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).rstrip("/").endswith("/a"):
            raise OSError(5, "Input/output error", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    report = embed([folder], root, tiny_clip)
    assert (report.found, report.failed, report.away) == (2, 0, 2)
    assert rows(root) == names


def test_a_folder_behind_a_url_that_answers_with_an_error_keeps_its_rows(
    make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, root = make_images(4), tmp_path / "store"
    for path in images.rglob("*.png"):
        memory.pipe(f"/away-test/{path.relative_to(images).as_posix()}", path.read_bytes())
    embed(["memory://away-test"], root, tiny_clip)
    before, real = rows(root), type(memory).ls

    def ls(self: Any, path: str, detail: bool = True, **options: Any) -> Any:
        if path.rstrip("/").endswith("/a"):
            raise OSError("503, message='Service Unavailable'")
        return real(self, path, detail, **options)

    monkeypatch.setattr(type(memory), "ls", ls)
    report = embed(["memory://away-test"], root, tiny_clip)
    assert (report.found, report.away, report.dropped) == (2, 2, 0)
    assert any("Service Unavailable" in warning for warning in report.warnings)
    assert rows(root) == before


@pytest.mark.parametrize("cut", ["in the data", "in the header", "between members", "never written"])
def test_a_tar_cut_short_keeps_the_rows_of_what_is_missing(
    make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path, cut: str
) -> None:
    images, path, root = make_images(4), tmp_path / "photos.tar", tmp_path / "store"
    with tarfile.open(path, "w") as archive:
        for file in sorted(images.rglob("*.png")):
            archive.add(file, file.name)
    with tarfile.open(path) as archive:
        offset = archive.getmembers()[3].offset
    embed([path], root, tiny_clip)
    before, whole = rows(root), path.read_bytes()
    size = {"in the data": offset + 600, "in the header": offset + 100}.get(cut, offset)
    path.write_bytes(whole[:size] + bytes((3 << 20) * (cut == "never written")))
    report = embed([path], root, tiny_clip)
    assert (report.found, report.away, report.dropped) == (3, 1, 0)
    assert any("cut short or damaged" in warning for warning in report.warnings)
    assert rows(root) == before
    path.write_bytes(whole)
    report = embed([path], root, tiny_clip)
    assert (report.ok, report.skipped, report.away) == (0, 4, 0)


def test_a_tar_with_an_end_that_has_fewer_members_has_fewer_images(
    make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path
) -> None:
    images, path, root = make_images(4), tmp_path / "photos.tar", tmp_path / "store"
    for count in (4, 3):
        with tarfile.open(path, "w") as archive:
            for file in sorted(images.rglob("*.png"))[:count]:
                archive.add(file, file.name)
        report = embed([path], root, tiny_clip)
    assert (report.skipped, report.dropped, report.away, report.warnings) == (3, 1, 0, ())
    with tarfile.open(path, "w"):
        pass
    with pytest.raises(LanitError, match="the store has 3 of it"):
        embed([path], root, tiny_clip)


def test_a_table_cut_in_a_line_keeps_the_rows_that_it_may_have_named(
    make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path
) -> None:
    images, path, root = make_images(3), tmp_path / "list.jsonl", tmp_path / "store"
    lines = [json.dumps({"image_path": str(file)}) for file in sorted(images.rglob("*.png"))]
    path.write_text("\n".join(lines) + "\n")
    embed([path], root, tiny_clip)
    before = rows(root)
    path.write_text("\n".join(lines)[:-9])
    report = embed([path], root, tiny_clip)
    assert (report.found, report.away) == (2, 1)
    assert rows(root) == before


def damage(path: Path, column: str) -> None:
    """Change a byte at the end of the pages of a column."""
    import pyarrow.parquet as pq

    data, group = bytearray(path.read_bytes()), pq.read_metadata(path).row_group(0)
    for chunk in map(group.column, range(group.num_columns)):
        if chunk.path_in_schema.startswith(column):
            data[(chunk.dictionary_page_offset or chunk.data_page_offset) + chunk.total_compressed_size - 1] ^= 0x5A
    path.write_bytes(data)


@pytest.mark.parametrize("column", ["embedding", "path", "source", "sha256", "status"])
def test_a_changed_byte_in_a_part_is_noticed_and_mended_by_what_the_message_says(
    make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path, column: str
) -> None:
    first, second, root = make_images(3, "first"), make_images(3, "second", seed=1), tmp_path / "store"
    embed([first, second], root, tiny_clip, EmbedOptions(part_rows=2, batch_size=2))
    store = Store.open(root)
    before = {path.name: path.read_bytes() for path in (root / "images").iterdir()}
    part = root / store.manifest.parts[1].file  # rows of both
    damage(part, column)
    with pytest.raises(LanitError, match=f"{part.name} is damaged") as caught:
        store.images()
    assert caught.value.hint == f"Run: lanit embed {first} --store {root}"
    report = embed([first], root, tiny_clip, EmbedOptions(part_rows=2, batch_size=2))
    assert (report.ok, report.stored, report.dropped) == (2, 6, 0)
    assert f"{part.name} is damaged: its bytes do not have the digest in its name; its images" in report.warnings[0]
    assert {path.name: path.read_bytes() for path in (root / "images").iterdir()} == before


def test_where_a_damaged_part_had_images_of_an_input_that_is_away_nothing_is_dropped(
    make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path
) -> None:
    first, second, root = make_images(3, "first"), make_images(3, "second", seed=1), tmp_path / "store"
    embed([first, second], root, tiny_clip, EmbedOptions(part_rows=2))
    damage(root / Store.open(root).manifest.parts[2].file, "path")
    second.rename(tmp_path / "unmounted")
    before = {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with pytest.raises(
        LanitError, match=f"is damaged.* and {second}, of which it may have images, cannot be found"
    ) as caught:
        embed([first], root, tiny_clip)
    assert {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    result: Any = CliRunner().invoke(cli.app, shlex.split(caught.value.hint.partition("lanit ")[2]))
    assert result.exit_code == 0, result.output
    assert len(rows(root)) == 3
