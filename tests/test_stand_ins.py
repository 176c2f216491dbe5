"""What stands in the place of a file is named for what it is, wherever a file is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lanit.errors import LanitError
from pipeline.clip.models import load_clip
from pipeline.decoding.images import decode_rgb
from pipeline.evaluation.perceptual import _alexnet
from pipeline.files import read_json
from pipeline.inputs.opening import open_inputs
from pipeline.models.tensor_folders import read_tensors
from pipeline.prompts.learned_prompts import read_learned_prompts
from pipeline.prompts.prompt_sets import read_prompt_set
from pipeline.stand_ins import stand_in
from pipeline.words.vocabulary import read_vocabulary

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"7" * 64 + b"\nsize 123456\n"
PAGE = b'\n<!DOCTYPE HTML PUBLIC "-//IETF">\n<html><head><title>404\n Not Found</title></head><body>No</body></html>'
XML = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code><Message>gone</Message></Error>'


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (POINTER, "a Git LFS pointer and not the file itself: fetch the files of the repository: git lfs pull"),
        (PAGE, "a web page (404 Not Found): download it again"),
        (b"\xef\xbb\xbf<!-- made by x --><html lang=en>", "a web page: download it again"),
        (XML, "an error message of a server (NoSuchKey): download it again"),
        (b"404: Not Found", "an error message of a server (404: Not Found): download it again"),
        (b'{"error":"Repository not found"}', 'an error message of a server ({"error":"Repository not found"}): '
         "download it again"),
        (b"Entry not found", "an error message of a server (Entry not found): download it again"),
    ],
)  # fmt: skip
def test_each_kind_is_told_by_its_beginning(data: bytes, words: str, tmp_path: Path) -> None:
    found = stand_in(data)
    assert found is not None
    assert found.reason == words
    for name in ("a.jpg", "b.tga"):  # what is taken for a TGA by its content fails in another way
        (tmp_path / name).write_bytes(data)
        with pytest.raises(LanitError) as caught:
            decode_rgb(tmp_path / name)
        assert words in str(caught.value)


def test_photographs_prompts_and_tables_are_none(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    texts = [
        "not found in nature",
        "501 jeans",
        "404",
        "web page\n<html> on a screen",
        '{"image_path": "a.jpg"}',
        "",
        "path,a",
    ]
    for data in [(tmp_path / "a.png").read_bytes(), *map(str.encode, texts), b"\0" * 512]:
        assert stand_in(data) is None, data


def places(path: Path) -> Any:
    [origin] = open_inputs([path])
    return list(origin.places())


READERS: list[tuple[str, Callable[[Path], Any]]] = [
    *((f"x.{suffix}", places) for suffix in ("tar", "zip", "parquet", "csv", "jsonl")),
    *((f"w.{suffix}", lambda path: load_clip(str(path))) for suffix in ("pt", "safetensors")),
    ("prompts.txt", read_prompt_set),
    ("words.txt", read_vocabulary),
    ("prompts.safetensors", read_learned_prompts),
    ("generator.safetensors", read_tensors),
    ("alexnet.pth", _alexnet),
    ("config.json", read_json),
]


@pytest.mark.parametrize(("name", "read"), READERS, ids=[name for name, _ in READERS])
def test_every_reader_of_files_says_so_in_one_line(name: str, read: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / name
    for data, message, hint in [
        (POINTER, "is a Git LFS pointer and not the file itself", "Fetch the files of the repository: git lfs pull"),
        (PAGE, "is a web page (404 Not Found)", "Download it again."),
    ]:
        path.write_bytes(data)
        with pytest.raises(LanitError) as caught:
            read(path)
        assert (caught.value.message, caught.value.hint) == (f"{path} {message}", hint)


def test_a_folder_of_a_clip_whose_weights_were_not_fetched_says_so(tiny_clip_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_bytes((tiny_clip_folder / "open_clip_config.json").read_bytes())
    (tmp_path / "open_clip_model.safetensors").write_bytes(POINTER)
    with pytest.raises(LanitError, match=r"model\.safetensors is a Git LFS pointer"):
        load_clip(str(tmp_path))
