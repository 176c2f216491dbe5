"""A file of another store in the place of one's own is told in one line, and what the line says to type mends it."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lanit.errors import LanitError
from pipeline.clip.models import ClipModel
from pipeline.embedding.embed import EmbedOptions, embed
from pipeline.files import read_json, sealed, write_json
from pipeline.store.store import Store

PARTS = EmbedOptions(part_rows=3)


def embedded(root: Path, images: Path, clip: ClipModel) -> Store:
    embed([images], root, clip, PARTS)
    return Store.open(root)


@pytest.fixture
def stores(make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path) -> tuple[Store, Store]:
    """Two of one CLIP, of six images each at the same paths; the one in the middle of a part differs, and no other."""
    one = make_images(6)
    other = shutil.copytree(one, tmp_path / "others")
    middle = sorted(one.rglob("*.png"))[4]
    first = embedded(tmp_path / "one", one, tiny_clip)
    shutil.copy(make_images(1, "fresh", seed=1) / "b" / "000.png", middle)
    second = embedded(tmp_path / "two", one, tiny_clip)
    shutil.copy2(other / middle.relative_to(one), middle)
    return first, second


def part_paths(stores: tuple[Store, Store], number: int) -> tuple[Path, Path]:
    own, foreign = (store.root / store.manifest.parts[number].file for store in stores)
    return own, foreign


def test_a_part_of_another_store_is_refused_and_embed_as_the_line_says_brings_back_the_own(
    stores: tuple[Store, Store], tiny_clip: ClipModel
) -> None:
    store = stores[0]
    own, foreign = part_paths(stores, 1)
    before = own.read_bytes()
    assert stores[0].manifest.parts[0] == stores[1].manifest.parts[0], "equal images are equal files"
    own.write_bytes(foreign.read_bytes())
    for reading in (lambda: Store.open(store.root), store.embeddings, store.ok_images):
        with pytest.raises(LanitError, match=r"part-00001-\w+\.parquet does not fit store.json") as caught:
            reading()
        command, lanit_embed, images, option, root = shlex.split(caught.value.hint)[1:]
        assert (command, lanit_embed, option, Path(root)) == ("lanit", "embed", "--store", store.root)
    report = embed([Path(images)], Path(root), tiny_clip, PARTS)
    assert (report.ok, report.skipped) == (3, 3)
    assert own.read_bytes() == before


def test_a_store_whose_parts_have_no_footers_noted_is_read_and_gets_them_from_embed(
    stores: tuple[Store, Store], tiny_clip: ClipModel
) -> None:
    store, path = stores[0], stores[0].root / "store.json"
    before = path.read_bytes()
    document = read_json(path)
    for part in document["parts"]:
        assert len(part.pop("footer_sha256")) == 64
    write_json(path, sealed(document))
    assert (Store.open(store.root).embeddings() == store.embeddings()).all()
    embed([Path(store.manifest.sources[0].source)], store.root, tiny_clip, PARTS)
    assert path.read_bytes() == before
