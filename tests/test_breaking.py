"""The benchmark that tries to break lanit: that its own parts do what its verdicts rest on."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import typer

from benchmarks.breaking.constructions import constructions
from benchmarks.breaking.damage import KINDS, damage, same_file_of
from benchmarks.breaking.hints import situations
from benchmarks.breaking.results import differences, digest, is_leftover, leftovers, tree
from benchmarks.breaking.typing_hints import typed
from benchmarks.breaking.writing import WRITING, meetings
from cli import app

WRITES_NOTHING = {"doctor", "models", "mcp", "play", "push"}
NOT_KILLED = {
    "demo",  # all of whose steps are
    "review",  # tests/test_review.py and benchmarks/review kill its server between answers
    "runs",  # which writes nothing but a page
}


def test_every_command_that_writes_is_killed_and_meets_a_full_disk() -> None:
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert {writing.line.split()[0] for writing in WRITING} == commands - WRITES_NOTHING - NOT_KILLED


def test_no_two_meetings_are_the_same() -> None:
    pairs = [(meeting.parts, frozenset((meeting.first, meeting.second))) for meeting in meetings()]
    assert len(set(pairs)) == len(pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_changes_a_file_and_the_same_seed_damages_it_equally(kind: str, tmp_path: Path) -> None:
    whole, other = bytes(range(1, 256)) * 9, tmp_path / "other"
    other.write_bytes(whole[::-1])
    damaged = []
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(whole)
        assert damage(tmp_path / name, kind, random.Random(7), other)
        damaged.append((tmp_path / name).read_bytes())
    assert damaged[0] == damaged[1] != whole
    assert len(damaged[0]) < len(whole) if kind == "cut" else len(damaged[0]) == len(whole)


def test_a_part_with_another_digest_in_its_name_is_the_counterpart_and_another_step_is_not(tmp_path: Path) -> None:
    for name in ("part-00000-0123abcd.parquet", "part-00001-4567cdef.parquet", "step-00000004"):
        (tmp_path / name).touch()
    assert same_file_of(tmp_path, "part-00001-89ab0123.parquet") == tmp_path / "part-00001-4567cdef.parquet"
    assert same_file_of(tmp_path, "step-00000004") == tmp_path / "step-00000004"
    assert same_file_of(tmp_path, "r0001.parquet") is None


def test_seconds_make_no_difference_and_a_figure_does(tmp_path: Path) -> None:
    found = []
    for number, document in enumerate(
        ({"kid": 1.0, "seconds": 3}, {"kid": 1.0, "seconds": 4}, {"kid": 2.0, "seconds": 3})
    ):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(json.dumps(document) + "\n")
        found.append(digest(path, tmp_path))
    assert found[0] == found[1] != found[2]


def test_temporary_files_are_left_overs_and_an_empty_folder_is_a_difference(tmp_path: Path) -> None:
    wanted = tree(tmp_path)
    (tmp_path / ".model.4711.tmp").mkdir()
    (tmp_path / ".model.4711.tmp" / "model.json").touch()
    (tmp_path / "empty").mkdir()
    assert leftovers(tree(tmp_path)) == [".model.4711.tmp/model.json"]
    assert differences(tree(tmp_path), wanted) == ["empty/ (extra)"]
    assert not any(map(is_leftover, ("s/labels/r0001.parquet", "run/model/model.json", ".gitignore")))


@pytest.mark.parametrize(
    ("hint", "line", "message", "expected"),
    [
        ("Run: lanit label --prompts FILE", "search x", "", ["label --prompts ../prompts.txt"]),
        ("Run: lanit embed DIR --overwrite", "search x", "", ["embed ../faces --overwrite"]),
        ("Try --rule top-2.", "label --noun face --rule top-0", "", ["label --noun face --rule top-2"]),
        ("Add --clusters 9, or leave --words out.", "label --words w", "", ["label --words w --clusters 9", "label"]),
        ("Leave it out.", "search x --top 0", "--top is at least 1, not 0", ["search x"]),
        ("Choose one of flat, ivf.", "index --kind tree", "there is no index 'tree'", ["index --kind flat"]),
        ("Give a new folder.", "export --to csv --out x", "--out x is a file", ["export --to csv --out elsewhere"]),
        ("Free some space and run the same command again: it goes on.", "embed a", "", ["embed a"]),
        ("Check the disk and its permissions and run the same command again: it goes on.", "embed a", "", ["embed a"]),
    ],
)  # fmt: skip
def test_a_hint_is_typed_as_it_stands(hint: str, line: str, message: str, expected: list[str]) -> None:
    assert typed(hint, line, message) == expected


def test_situations_name_commands_and_constructions_are_found_with_their_hints() -> None:
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert {situation.line.split()[0] for situation in situations()} <= commands
    found = [place for place in constructions() if "--words are" in place.message]
    assert [place.hint for place in found] == ["Add --clusters 10, or leave --words out."]
