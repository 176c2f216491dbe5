"""A file of another store in the place of one's own is told in one line, and what the line says to type mends it."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pipeline.labelling.people as people_files
from lanit.errors import LanitError
from lanit.rules import Rule
from pipeline.clip.models import ClipModel
from pipeline.embedding.embed import EmbedOptions, embed
from pipeline.files import read_json, sealed, write_json
from pipeline.labelling.label import label
from pipeline.labelling.people import Answer, add_answers, forget_answers, read_people
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.store import label_ledger
from pipeline.store.store import Store

PARTS = EmbedOptions(part_rows=3)
WORDS = PromptSet(("red", "blue noise"), ("a photo of {}.",), ("a photo.",), "colours")
OTHER_WORDS = PromptSet(("green",), ("a photo of {}.",), ("a photo.",), "colours")


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


def relabel(store: Store, clip: ClipModel, words: PromptSet = WORDS) -> int:
    return label(store, clip, words, Rule()).revision


def say(store: Store, row: int) -> None:
    """One answer, which goes into the table at once where ``MOST_LINES`` is 0."""
    path = store.ok_images()["path"][row].as_py()
    add_answers(store, [Answer("red", True, path=path)])


def entries(store: Store) -> set[str]:
    return set(read_json(store.root / "labels" / "ledger.json")["footers_sha256"])


@pytest.fixture
def labelled(stores: tuple[Store, Store], tiny_clip: ClipModel, monkeypatch: pytest.MonkeyPatch) -> tuple[Store, Store]:
    """Both with a revision by the same words, and with an answer, about another image in each."""
    monkeypatch.setattr(people_files, "MOST_LINES", 0)
    for row, store in enumerate(stores):
        assert relabel(store, tiny_clip) == 1
        say(store, row)
    return stores


def swap(labelled: tuple[Store, Store], name: str) -> None:
    own, foreign = (store.root / "labels" / name for store in labelled)
    assert own.read_bytes() != foreign.read_bytes()
    shutil.copy(foreign, own)


def test_a_revision_of_another_store_is_refused_and_the_next_labelling_is_good(
    labelled: tuple[Store, Store], tiny_clip: ClipModel
) -> None:
    store = labelled[0]
    swap(labelled, "r0001.parquet")
    for reading in (store.labels, store.newest_labels, lambda: store.revision_file(1)):
        with pytest.raises(LanitError, match=r"label revision 1 cannot be read .*another file") as caught:
            reading()
        assert caught.value.hint == f"Run: lanit label --prompts FILE --store {store.root}"
    assert relabel(store, tiny_clip) == 2
    assert store.labels().number == 2
    with pytest.raises(LanitError, match="another file"):
        store.labels(1)


def test_answers_of_another_store_are_refused_and_can_be_begun_anew(labelled: tuple[Store, Store]) -> None:
    store = labelled[0]
    swap(labelled, "people.parquet")
    with pytest.raises(LanitError, match=r"people\.parquet is damaged .*another file") as caught:
        read_people(store)
    assert f"lanit label --forget-people --store {store.root}" in caught.value.hint
    assert forget_answers(store) is None
    say(store, 2)
    assert read_people(store).kept == 1


def test_a_store_without_a_ledger_is_read_and_gets_one_from_the_next_labelling_that_can_write(
    labelled: tuple[Store, Store], tiny_clip: ClipModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = labelled[0]
    (store.root / "labels" / "ledger.json").unlink()
    before = relabel(store, tiny_clip)  # with the answer
    (store.root / "labels" / "ledger.json").unlink()
    with monkeypatch.context() as patch:

        def refuse(*_: Any) -> None:
            raise LanitError("cannot write: read-only file system")

        patch.setattr("pipeline.store.store.lock_store", refuse)
        assert relabel(store, tiny_clip) == before
    assert not (store.root / "labels" / "ledger.json").exists()
    assert (store.labels(1).number, read_people(store).kept) == (1, 1)
    assert relabel(store, tiny_clip) == before
    assert entries(store) == {"r0001.parquet", f"r{before:04d}.parquet", "people.parquet"}


def test_a_writer_killed_before_the_entry_leaves_nothing_wrong(
    labelled: tuple[Store, Store], tiny_clip: ClipModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = labelled[0]

    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(label_ledger, "enter_all", killed)
        for write in (lambda: relabel(store, tiny_clip, OTHER_WORDS), lambda: say(store, 3)):
            with pytest.raises(KeyboardInterrupt):
                write()
    assert entries(store) == {"r0001.parquet"}
    assert store.labels().domains == ("green",)
    assert read_people(store).kept == 2
    assert relabel(store, tiny_clip, OTHER_WORDS) == 2
    assert entries(store) == {"r0001.parquet", "r0002.parquet", "people.parquet"}


@pytest.mark.parametrize("content", ["{", "[]", '{"footers_sha256": {"r0001.parquet": 1}}', "of another store"])
def test_a_damaged_ledger_is_one_warning_and_written_anew_by_the_next_labelling(
    labelled: tuple[Store, Store], content: str, tiny_clip: ClipModel, capsys: pytest.CaptureFixture[str]
) -> None:
    store = labelled[0]
    path = store.root / "labels" / "ledger.json"
    relabel(store, tiny_clip)
    whole = path.read_bytes()
    relabel(labelled[1], tiny_clip)
    foreign = (labelled[1].root / "labels" / "ledger.json").read_text()
    path.write_text(foreign if content == "of another store" else content)
    assert store.labels(1).number == 1
    assert read_people(store).kept == 1
    warning = capsys.readouterr().err
    assert warning.count("warning:") == warning.count("\n") == 1
    assert "lanit label writes it anew" in warning
    relabel(store, tiny_clip)
    assert path.read_bytes() == whole


def test_answers_replaced_while_they_are_read_are_no_other_file(
    labelled: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, real, calls = labelled[0], label_ledger.footer_sha256, []

    def overtaken(path: Path) -> str:
        footer = real(path)
        calls.append(path)
        if len(calls) == 1:
            say(store, 4)
        return footer

    monkeypatch.setattr(label_ledger, "footer_sha256", overtaken)
    assert read_people(store).kept == 2
