"""A store's folder is a store's: nobody else's folder is written to, and nobody else's file in a store is removed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import cli
from lanit.errors import LanitError
from pipeline.embedding.embed import EmbedOptions, embed
from pipeline.files import sha256_file
from pipeline.store.schemas import Manifest
from pipeline.store.store import Store
from pipeline.store.store_folder import claim_store, lock_store, read_manifest

COMMANDS = [
    "embed photos --clip sample",
    "label --prompts sample-faces",
    "label --clusters 2",
    "inspect-labels",
    "suggest-prompts",
    "search smiling",
    "duplicates",
    "index",
    "train --out run --preset small-32",
    "export --out out --to csv",
]
"""All that write to a store: parts, label revisions, the index, caches."""


def snapshot(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def write(root: Path, name: str, text: str = "mine") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def table_of_images(images: Path, path: Path) -> Path:
    files = sorted(images.rglob("*.png"))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"key": [f.name for f in files], "image": [f.read_bytes() for f in files]}), path)
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_writes_to_the_folder_of_somebody_else(
    command: str, make_images: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_images(1, "photos")
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "mine/store.json", '{"shop": "flowers"}')
    table_of_images(tmp_path / "photos", tmp_path / "mine" / "images" / "part-0000.parquet")
    before = snapshot(tmp_path)
    result: Any = CliRunner().invoke(cli.app, [*command.split(), "--store", "mine"])
    assert result.exit_code == 1, result.output
    assert "--store mine holds other files and is no store of lanit" in result.stderr
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"README.md": "", ".gitignore": "*"},
        {".catalogue.sqlite.123.tmp": "", ".lock": ""},
        {"images/.unfinished.jsonl.123.tmp": "{"},
        {"store.json": json.dumps({"schema_version": 7, "fingerprint": {}, "parts": []}), "notes.txt": ""},
        {"images/unfinished.jsonl": '{"schema_version": 2, "overwrite": false, "storage": "", "fingerprint": {}}\n'},
    ],
    ids=["missing", "bare", "killed at once", "killed before the first part", "another version", "killed later"],
)
def test_a_free_folder_and_a_store_in_any_state_are_claimed(tmp_path: Path, files: dict[str, str]) -> None:
    root = tmp_path / "store"
    for name, text in files.items():
        write(root, name, text)
    claim_store(root)
    with lock_store(root):
        pass
    assert not [path for path in root.rglob("*") if path.suffix == ".tmp"]


@pytest.mark.parametrize(
    "name",
    ["thesis.txt", "images/a.png", "images/part-00000-12345678.parquet", "store.json", "images/unfinished.jsonl"],
)
def test_a_file_of_the_user_makes_a_folder_no_store(tmp_path: Path, name: str) -> None:
    write(tmp_path, name)
    with pytest.raises(LanitError, match="is no store of lanit") as caught, lock_store(tmp_path):
        pytest.fail("the folder is the user's")
    assert caught.value.hint == "Give a new or empty folder: --store DIR"
    assert set(snapshot(tmp_path)) == {name}


def test_what_others_put_into_a_store_stays_and_what_lanit_left_there_goes(
    make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path
) -> None:
    folder, root = make_images(3), tmp_path / "store"
    embed([folder], root, tiny_clip)
    [part] = (root / "images").iterdir()
    mine = {"images/catalogue.sqlite", "images/part-0000.parquet", "images/.notes.tmp", "notes.txt", "labels/.x.tmp"}
    for name in mine:
        write(root, name)
    other = table_of_images(folder, root / "images" / "part-00007-12345678.parquet")
    mine.add(other.relative_to(root).as_posix())
    for name in (".catalogue.sqlite.123.tmp", "images/.part-00000-12345678.parquet.123.tmp"):
        write(root, name)
    stray = root / "images" / f"part-00009-{sha256_file(part)[:8]}.parquet"
    shutil.copy(part, stray)
    embed([make_images(4)], root, tiny_clip)
    [new] = Store.open(root).manifest.parts
    assert not part.exists()
    assert new.file != part.relative_to(root).as_posix()
    assert set(snapshot(root)) == mine | {new.file, "store.json", ".lock"}


def test_an_input_is_never_removed_even_if_lanit_wrote_it(
    make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path
) -> None:
    folder, root = make_images(3), tmp_path / "store"
    embed([folder], root, tiny_clip)
    [part] = (root / "images").iterdir()
    stray = root / "images" / f"part-00009-{sha256_file(part)[:8]}.parquet"
    shutil.copy(part, stray)
    report = embed([folder, stray], root, tiny_clip)  # to lanit a table of paths, which lie elsewhere
    assert (report.skipped, report.failed) == (3, 3)
    assert stray.exists()
    for path in (root / "images").iterdir():
        assert path == stray or path.relative_to(root).as_posix() == Store.open(root).manifest.parts[0].file


def test_a_manifest_may_name_no_file_but_parts(
    make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path
) -> None:
    root = tmp_path / "store"
    embed([make_images(2)], root, tiny_clip)
    manifest = read_manifest(root)
    assert manifest is not None
    document = manifest.to_json()
    for file in ("../thesis.parquet", "/etc/part-00000-12345678.parquet", "images/../../part-00000-12345678.parquet"):
        document["parts"][0]["file"] = file
        with pytest.raises(LanitError, match="damaged: it has a part"):
            Manifest.from_json(document, "store.json")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:200]),
    "empty": lambda path: path.write_bytes(b""),
    "changed": lambda path: path.write_text(path.read_text().replace('"rows": 3', '"rows": 4')),
    "another version": lambda path: path.write_text(
        path.read_text().replace('"schema_version": 2', '"schema_version": 3')
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_store_json_that_is_not_understood_is_replaced_by_what_its_message_says(
    make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path, damage: str
) -> None:
    folder, root = make_images(3), tmp_path / "a store"
    embed([folder], root, tiny_clip)
    whole = snapshot(root)
    write(root, "labels/r0001.parquet")
    DAMAGES[damage](root / "store.json")
    for use in (Store.open, lambda root: embed([folder], root, tiny_clip)):
        with pytest.raises(LanitError) as caught:
            use(root)
        assert caught.value.hint == f"Run: lanit embed DIR --store '{root}' --overwrite"
    embed([folder], root, tiny_clip, EmbedOptions(overwrite=True))
    assert snapshot(root) == whole | {"labels/r0001.parquet": b"mine"}


def test_where_overwriting_fails_a_store_json_that_is_not_understood_loses_no_part(
    make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path
) -> None:
    root = tmp_path / "store"
    embed([make_images(3)], root, tiny_clip)
    DAMAGES["cut short"](root / "store.json")
    before = snapshot(root)
    write(tmp_path, "bad/a.png")
    with pytest.raises(LanitError, match="can be decoded"):
        embed([tmp_path / "bad"], root, tiny_clip, EmbedOptions(overwrite=True))
    assert snapshot(root) == before
