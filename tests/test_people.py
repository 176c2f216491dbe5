"""Labels by people: kept on the disk, newest first, whatever becomes of the process, the files and the images."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import pipeline.labelling.people as people_files
from lanit.errors import LanitError
from lanit.rules import Rule
from pipeline.labelling.people import Answer, AnswerBook, add_answers, forget_answers, read_people
from pipeline.labelling.people_labels import AppliedLabels, PeopleCounts, apply_people
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.store.label_revisions import LabelBlock, RevisionHeader
from pipeline.store.store import Store
from tests.children import child

DOMAINS = ("smiling", "hat")


@pytest.fixture
def store(make_images: Callable[..., Path], make_labelled_store: Callable[..., Store]) -> Store:
    """Eight images in folders a and b, of different content."""
    return make_labelled_store(make_images(8), None)


def said(store: Store, domains: tuple[str, ...] = DOMAINS) -> dict[tuple[str, str], bool]:
    """What people say of the images of a store, by path and phrase."""
    applied = apply_people(read_people(store), store, domains)
    paths = store.ok_images()["path"].to_pylist()
    return {
        (paths[row], domains[column]): bool(on)
        for row, column, on in zip(applied.rows, applied.columns, applied.on, strict=True)
    }


def answer(store: Store, row: int, phrase: str = "smiling", label: bool | None = True) -> Answer:
    image = store.images_of(np.array([row]), ["image_id", "path", "sha256"]).to_pylist()[0]
    return Answer(phrase, label, image["image_id"], image["path"], image["sha256"])


def files(store: Store) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (store.root / "labels").iterdir()}


def test_the_newest_answer_counts_and_can_be_taken_back(store: Store) -> None:
    paths = store.ok_images()["path"].to_pylist()
    add_answers(store, [answer(store, 0), answer(store, 1, "Hat"), answer(store, 0, label=False)])
    assert said(store) == {(paths[0], "smiling"): False, (paths[1], "hat"): True}
    add_answers(store, [answer(store, 0)])
    assert said(store)[paths[0], "smiling"]
    add_answers(store, [answer(store, 0, label=None), answer(store, 1, "HAT", None)])
    assert said(store) == {}
    assert read_people(store).kept == 0


def test_one_answer_costs_one_line_and_many_lines_become_a_table(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people_files, "MOST_LINES", 3)
    expected = {}
    paths = store.ok_images()["path"].to_pylist()
    for n in range(8):
        label = n % 3 != 0
        add_answers(store, [answer(store, n, label=label)])
        expected[paths[n], "smiling"] = label
        lines = files(store).get("people.jsonl", b"").count(b"\n")
        assert lines == (0, 1, 2, 3, 0, 1, 2, 3)[n]
        assert said(store) == expected
        assert read_people(store).given == n + 1


def test_equal_answers_give_equal_bytes_and_the_same_again_writes_nothing(
    store: Store, make_labelled_store: Callable[..., Store], tmp_path: Path
) -> None:
    other = make_labelled_store(tmp_path / "images", None, name="other")
    for each in (store, other):
        add_answers(each, [answer(each, 2), answer(each, 3, "hat", False)])
        add_answers(each, [answer(each, 4)])
    before = files(store)
    assert before == files(other)
    add_answers(store, [answer(store, 4)])
    assert files(store) == before


def test_a_line_that_a_killed_writer_left_half_written_does_not_count_and_is_overwritten(store: Store) -> None:
    add_answers(store, [answer(store, 0)])
    add_answers(store, [answer(store, 1)])
    path = store.root / "labels" / "people.jsonl"
    whole = path.read_bytes()
    add_answers(store, [answer(store, 2)])
    path.write_bytes(path.read_bytes()[:-5])
    assert len(said(store)) == 2
    add_answers(store, [answer(store, 3)])
    assert path.read_bytes().startswith(whole)
    assert path.read_bytes().count(b"\n") == 2
    assert len(said(store)) == 3


def test_two_writers_lose_nothing(store: Store) -> None:
    def write(phrase: str) -> None:
        for row in range(6):
            add_answers(store, [answer(store, row, phrase)])

    writers = [threading.Thread(target=write, args=(phrase,)) for phrase in DOMAINS]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(said(store)) == 12
    assert read_people(store).given == 12


def outcome(store: Store) -> object:
    try:
        return said(store)
    except LanitError as error:
        return error


def test_damage_is_noticed_or_changes_nothing_and_can_be_begun_anew(store: Store) -> None:
    add_answers(store, [answer(store, row, phrase, row % 2 == 0) for row in range(4) for phrase in DOMAINS])
    for row in range(3):
        add_answers(store, [answer(store, 4 + row, "hat")])
    before, rng = said(store), np.random.default_rng(0)
    noticed = 0
    for name in ("people.parquet", "people.jsonl"):
        path = store.root / "labels" / name
        whole = path.read_bytes()
        for place in rng.choice(len(whole), 60, replace=False):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(bytes(damaged))
            found = outcome(store)
            noticed += isinstance(found, LanitError)
            assert found == before or (isinstance(found, LanitError) and "--forget-people --store" in found.hint), place
        path.write_bytes(whole)
    assert noticed > 100
    (store.root / "labels" / "people.parquet").unlink()
    with pytest.raises(LanitError, match="answers after number 0 are missing"):
        read_people(store)
    assert forget_answers(store) is None
    add_answers(store, [answer(store, 0)])
    assert len(said(store)) == 1


def test_a_renamed_folder_keeps_its_labels_and_images_to_come_get_theirs(
    store: Store, make_labelled_store: Callable[..., Store], tmp_path: Path
) -> None:
    paths = store.ok_images()["path"].to_pylist()
    add_answers(store, [answer(store, 0), answer(store, 1, "hat"), answer(store, 2, label=False)])
    add_answers(store, [Answer("hat", True, path="new/one.png"), Answer("hat", True, path="never.png")])
    counts = apply_people(read_people(store), store, DOMAINS).counts
    assert (counts.kept, counts.applied, counts.waiting, counts.changed) == (5, 3, 2, 0)
    moved = shutil.copytree(tmp_path / "images", tmp_path / "elsewhere" / "photos")
    (moved / "new").mkdir()
    shutil.copy(moved / paths[5], moved / "new" / "one.png")
    (moved / paths[1]).rename(moved / "renamed.png")
    (moved / paths[2]).unlink()
    later = make_labelled_store(moved, None, name="later")
    assert not set(later.ok_images()["image_id"].to_pylist()) & set(store.ok_images()["image_id"].to_pylist())
    shutil.copytree(store.root / "labels", later.root / "labels")
    assert said(later) == {
        (paths[0], "smiling"): True, ("renamed.png", "hat"): True, ("new/one.png", "hat"): True,
    }  # fmt: skip
    assert apply_people(read_people(later), later, DOMAINS).counts.waiting == 2


def test_what_changed_since_and_what_is_for_other_phrases_is_counted(
    store: Store, make_labelled_store: Callable[..., Store], tmp_path: Path
) -> None:
    add_answers(store, [answer(store, 0), answer(store, 1), answer(store, 1, "bald")])
    path = store.ok_images()["path"].to_pylist()[0]
    shutil.copy(tmp_path / "images" / store.ok_images()["path"].to_pylist()[7], tmp_path / "images" / path)
    later = make_labelled_store(tmp_path / "images", None, name="later")
    shutil.copytree(store.root / "labels", later.root / "labels")
    counts = apply_people(read_people(later), later, DOMAINS).counts
    assert (counts.applied, counts.changed, counts.other_phrases, counts.waiting) == (2, 1, 1, 0)


def test_a_path_that_two_inputs_have_in_common_is_no_answer(
    make_store: Callable[..., Store],
) -> None:
    store = make_store(np.eye(3, dtype=np.float32), paths=["x.png", "x.png", "y.png"])
    add_answers(store, [Answer("hat", True, path="x.png"), Answer("hat", True, path="y.png")])
    applied = apply_people(read_people(store), store, DOMAINS)
    assert (applied.rows.tolist(), applied.counts.waiting) == ([2], 1)


def revision_by_people(store: Store, human: np.ndarray, active: np.ndarray, rule: str = "adaptive") -> None:
    """A revision as earlier versions wrote it, with nothing beside it."""
    prompts = PromptSet(DOMAINS, ("a {}.",), ("a.",), "test")
    header = RevisionHeader(store.fingerprint, prompts, Rule(rule), "label", None, f"{rule} {human.sum()}", human=True)
    images = store.ok_images()
    ids, paths = (images[name].combine_chunks() for name in ("image_id", "path"))
    margin = np.zeros(active.shape, np.float32)
    store.write_labels(
        header,
        [
            LabelBlock(
                0,
                len(active),
                active=active,
                margin=margin,
                similarity_base=margin[:, 0],
                human=human,
                image_ids=ids,
                paths=paths,
            )
        ],
    )


def test_labels_by_people_of_older_revisions_are_taken_over_once(store: Store) -> None:
    human, active = np.zeros((2, 8, 2), bool), np.zeros((2, 8, 2), bool)
    human[0, :3, 0] = active[0, :3, 0] = True
    human[1, 2, 0], human[1, 5, 1], active[1, 5, 1] = True, True, True  # later: row 2 off, row 5 on
    for marks, on in zip(human, active, strict=True):
        revision_by_people(store, marks, on)
    revision_by_people(store, np.ones((8, 2), bool), np.ones((8, 2), bool), rule="given")  # a labelling by a table
    paths = store.ok_images()["path"].to_pylist()
    expected = {(paths[0], "smiling"): True, (paths[1], "smiling"): True, (paths[2], "smiling"): False}
    expected |= {(paths[5], "hat"): True}
    assert said(store) == expected
    assert "people.parquet" not in files(store), "reading writes nothing"
    add_answers(store, [answer(store, 0, label=False)])
    assert said(store) == expected | {(paths[0], "smiling"): False}
    assert read_people(store).table["sha256"].null_count == 0
    assert forget_answers(store) == 4
    assert said(store) == {}


def test_values_are_block_by_block() -> None:
    applied = AppliedLabels(
        np.array([0, 3, 3, 6]), np.array([1, 0, 1, 0]), np.array([True, False, True, True]), PeopleCounts()
    )
    whole = np.full((8, 2), -1)
    whole[0, 1], whole[3], whole[6, 0] = 1, (0, 1), 1
    for size in (1, 3, 8):
        blocks = [applied.values(start, min(size, 8 - start), 2) for start in range(0, 8, size)]
        np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_a_book_of_answers_keeps_what_others_keep_and_says_when_they_wrote(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people_files, "MOST_LINES", 4)
    book, other, expected = AnswerBook(store), AnswerBook(store), {}
    paths = store.ok_images()["path"].to_pylist()
    assert book.read().given == 0
    for number in range(12):  # the table is written three times meanwhile
        row, label = number % 5, number % 3 != 0
        assert book.add([answer(store, row, label=label)])
        assert book.is_current
        expected[paths[row], "smiling"] = label
        assert said(store) == expected
    other.read()
    assert other.add([answer(store, 6, "hat")])
    assert not book.is_current
    assert not book.add([answer(store, 7)]), "another wrote meanwhile"
    assert said(store) == expected | {(paths[6], "hat"): True, (paths[7], "smiling"): True}
    assert read_people(store).given == 14


def _answer_until_killed(store: Store, answers: list[Answer], told: int) -> None:
    book = AnswerBook(store)
    book.read()
    for number in range(100_000):
        book.add([Answer(**(vars(answers[number % 8]) | {"label": number // 8 % 2 == 0}))])
        os.write(told, bytes([number % 256]))


def test_killed_at_twenty_random_moments_every_acknowledged_answer_is_there_once(store: Store) -> None:
    paths, answers, rng = (
        store.ok_images()["path"].to_pylist(),
        [answer(store, row) for row in range(8)],
        random.Random(0),
    )
    for _ in range(20):
        reading, writing = os.pipe()
        process = child(_answer_until_killed, store, answers, writing)
        os.close(writing)
        os.read(reading, 1)
        time.sleep(rng.uniform(0, 0.1))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        with os.fdopen(reading, "rb") as rest:
            done = 1 + len(rest.read())
        found = said(store)
        assert len(found) == 8 or done < 8
        for row in range(min(done, 8)):
            last = [n for n in range(done) if n % 8 == row][-1]
            kept = found[paths[row], "smiling"]
            one_more = done % 8 == row  # written, yet not acknowledged
            assert kept == (last // 8 % 2 == 0) or (one_more and kept == (done // 8 % 2 == 0))
