"""What lanit may remove and replace: what it wrote, by name, and nothing that lies beside it."""

from __future__ import annotations

import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lanit.errors import LanitError
from pipeline.files import (
    exclusive_lock,
    is_unwritable,
    read_json,
    sealed,
    sweep_beside,
    sweep_folder,
    temporary_name,
    unsealed,
    write_bytes,
    write_json,
)
from pipeline.folders import (
    appearing_folder,
    check_folder,
    is_free,
    locked_beside,
    locked_folder,
    plain_file,
    remove_ours,
    restore_folder,
)
from tests.children import CONTEXT, child


def _ours(name: str) -> bool:
    return name in {"a.json", "deep/b.bin"}


def _dead_pid() -> int:
    process = child(int)
    process.join()
    assert process.pid is not None
    return process.pid


def test_an_empty_folder_is_free_and_one_with_a_file_of_the_user_is_not(tmp_path: Path) -> None:
    assert is_free(tmp_path / "new")
    (tmp_path / "README.md").touch()
    (tmp_path / ".a.json.123.tmp").touch()
    assert is_free(tmp_path)
    (tmp_path / "thesis.txt").touch()
    assert not is_free(tmp_path)


def test_a_folder_of_the_user_is_refused_by_the_name_of_the_option(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(LanitError, match=r"--out .* holds other files and is no run of lanit"):
        check_folder(tmp_path, "--out", "run", lambda folder: (folder / "a.json").exists())
    (tmp_path / "a.json").touch()
    check_folder(tmp_path, "--out", "run", lambda folder: (folder / "a.json").exists())
    with pytest.raises(LanitError, match="is a file"):
        check_folder(tmp_path / "a.json", "--out", "run", lambda folder: True)


def test_temporary_files_of_others_go_and_those_of_the_user_stay(tmp_path: Path) -> None:
    for name in (".a.json.123.tmp", ".notes.tmp", "b.123.tmp", ".a.json.tmp", temporary_name(Path("c")).name):
        (tmp_path / name).touch()
    (tmp_path / ".step-1.77.old").mkdir()
    (tmp_path / ".step-1.77.old" / "file").touch()
    sweep_folder(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        ".notes.tmp",
        "b.123.tmp",
        ".a.json.tmp",
        f".c.{os.getpid()}.tmp",
    }


def test_what_living_processes_make_may_be_spared(tmp_path: Path) -> None:
    dead, alive = _dead_pid(), os.getppid()
    for pid in (dead, alive):
        (tmp_path / f".r.parquet.{pid}.tmp").touch()
    sweep_folder(tmp_path, spare_living=True)
    assert [path.name for path in tmp_path.iterdir()] == [f".r.parquet.{alive}.tmp"]


def test_beside_a_file_only_its_own_leftovers_of_dead_processes_go(tmp_path: Path) -> None:
    dead, alive = _dead_pid(), os.getppid()
    for name in (f".page.html.{dead}.tmp", f".page.html.{alive}.tmp", f".other.html.{dead}.tmp"):
        (tmp_path / name).touch()
    sweep_beside(tmp_path / "page.html")
    assert {path.name for path in tmp_path.iterdir()} == {f".page.html.{alive}.tmp", f".other.html.{dead}.tmp"}


def test_a_folder_appears_whole_in_the_place_of_an_older_one(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for text in ("old", "new"):
        with appearing_folder(folder, _ours) as filling:
            (filling / "deep").mkdir()
            write_bytes(filling / "deep" / "b.bin", text.encode())
    assert (folder / "deep" / "b.bin").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_holds_anything_else_is_not_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    with (
        pytest.raises(LanitError, match=r"holds thesis\.txt, which lanit did not write"),
        appearing_folder(folder, _ours),
    ):
        pytest.fail("it was to be refused before anything is made")
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_after_an_exception_the_older_folder_is_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with appearing_folder(folder, _ours) as filling:
        (filling / "a.json").write_text("old")
    with pytest.raises(LanitError, match="No such file"), appearing_folder(folder, _ours) as filling:
        (filling / "a.json").write_bytes((tmp_path / "missing").read_bytes())
    assert (folder / "a.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_lost_between_two_renames_comes_back(tmp_path: Path) -> None:
    retired = tmp_path / ".mo[d]el.123.old"
    retired.mkdir()
    (retired / "a.json").write_text("old")
    restore_folder(tmp_path / "mo[d]el")
    assert (tmp_path / "mo[d]el" / "a.json").read_text() == "old"


def test_who_locks_a_folder_brings_back_what_a_killed_process_was_replacing_in_it(tmp_path: Path) -> None:
    """Where it is there under its own name, the hidden one is a left-over."""
    for name in (".model.123.old", ".best.124.old", "best"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.json").write_text(name)
    with locked_folder(tmp_path, "--out"):
        found = {path.parent.name: path.read_text() for path in tmp_path.rglob("a.json")}
    assert found == {"model": ".model.123.old", "best": "best"}


def test_what_a_file_browser_leaves_in_a_folder_does_not_keep_it_from_being_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for text in ("old", "new"):
        with appearing_folder(folder, _ours) as filling:
            (filling / "a.json").write_text(text)
        (folder / ".DS_Store").touch()
    assert (folder / "a.json").read_text() == "new"
    remove_ours(folder, _ours)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_replaced_whole_has_its_lock_beside_it(tmp_path: Path) -> None:
    with (
        locked_beside(tmp_path / "out", "--out"),
        pytest.raises(LanitError, match="another lanit command is writing") as caught,
        locked_beside(tmp_path / "deep" / ".." / "out", "--out"),
    ):
        pytest.fail("both hold the folder")
    assert "another --out" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_only_what_is_ours_is_removed_and_links_are_not_followed(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "run"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "b.bin").write_text("mine")
    (folder / "other").mkdir(parents=True)
    (folder / "a.json").touch()
    (folder / "other" / "keep").touch()
    (folder / "deep").symlink_to(outside / "deep")
    remove_ours(folder, _ours)
    assert (outside / "deep" / "b.bin").read_text() == "mine"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*")} == {"deep", "other", "other/keep"}


def _hold(folder: Path, held: object, done: object) -> None:
    with locked_folder(folder, "--out"):
        held.set()  # type: ignore[attr-defined]
        done.wait(30)  # type: ignore[attr-defined]


def test_a_second_writer_of_a_folder_gets_one_line(tmp_path: Path) -> None:
    held, done = CONTEXT.Event(), CONTEXT.Event()
    process = child(_hold, tmp_path / "run", held, done)
    assert held.wait(30)
    with (
        pytest.raises(LanitError, match="another lanit command is writing to"),
        locked_folder(tmp_path / "run", "--out"),
    ):
        pytest.fail("both hold the folder")
    done.set()
    process.join(30)
    assert not (tmp_path / "run").exists()


def test_who_may_wait_for_a_folder_gets_it_once_it_is_free(tmp_path: Path) -> None:
    held = threading.Event()

    def hold() -> None:
        with locked_folder(tmp_path, "--out"):
            held.set()
            time.sleep(0.1)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(hold)
        assert held.wait(5)
        with locked_folder(tmp_path, "--out", wait_seconds=5):
            pass


def test_the_holder_of_a_lock_may_remove_its_file(tmp_path: Path) -> None:
    path, busy = tmp_path / ".lock", LanitError("busy", "Wait.")
    with exclusive_lock(path, busy):
        path.unlink()
    with exclusive_lock(path, busy), pytest.raises(LanitError, match="busy"), exclusive_lock(path, busy):
        pytest.fail("both hold the lock")


@pytest.mark.parametrize(("code", "expected"), [(errno.EROFS, True), (errno.EACCES, True), (errno.ENOSPC, False)])
def test_a_place_that_takes_no_files_is_told_from_a_full_disk(
    code: int, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(LanitError, match="cannot write") as caught:
        write_bytes(tmp_path / "a", b"")
    assert is_unwritable(caught.value) == expected


@pytest.mark.parametrize("change", ["value", "seal", "key", "key of the seal", "entry"])
def test_a_sealed_document_notices_every_change(tmp_path: Path, change: str) -> None:
    document = {"rows": 120, "name": "é", "deep": {"b": [1.5, None]}}
    path = tmp_path / "store.json"
    write_json(path, sealed(document))
    assert read_json(path) == document
    text = path.read_text(encoding="utf-8")
    seal = text.split("sha256:")[1][:64]
    old, new = {
        "value": ("120", "121"),
        "seal": (seal, seal[:-1] + ("0" if seal[-1] != "0" else "1")),
        "key": ('"rows"', '"sows"'),
        "key of the seal": ('"seal"', '"sea1"'),
        "entry": ('"rows": 120,', '"rows": 120, "more": 1,'),
    }[change]
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(LanitError, match="damaged"):
        read_json(path, "Run it again.")


def test_a_document_that_never_had_a_seal_is_taken_as_it_is() -> None:
    assert unsealed({"rows": 1}) == {"rows": 1}
    assert unsealed(sealed({"b": 1, "a": 2})) == {"a": 2, "b": 1}


def test_who_writes_in_a_folder_and_who_replaces_it_whole_do_not_meet(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with (
        locked_folder(folder, "--out"),
        pytest.raises(LanitError, match="another lanit command is writing to"),
        locked_beside(folder, "--out"),
    ):
        pytest.fail("both hold the folder")
    with (
        locked_beside(folder, "--out"),
        pytest.raises(LanitError, match="another lanit command is writing to"),
        locked_folder(folder, "--out"),
    ):
        pytest.fail("both hold the folder")
    assert not list(tmp_path.iterdir())


def test_the_lock_of_a_folder_for_others_goes_with_its_holder(tmp_path: Path) -> None:
    for passing in (False, True):
        with locked_folder(tmp_path, "--out", passing=passing):
            (tmp_path / "result").touch()
        assert (tmp_path / ".lock").exists() != passing


def test_a_plain_file_is_below_its_folder_and_reached_by_no_link(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.png").write_bytes(b"four")
    (tmp_path / "mine").write_bytes(b"mine")
    (folder / "link").symlink_to(tmp_path)
    (folder / "link.png").symlink_to(tmp_path / "mine")
    found = plain_file(folder, "deep/a.png")
    assert found is not None
    assert found.st_size == 4
    others = ("../mine", "deep/../../mine", str(tmp_path / "mine"), "link/mine", "link.png", "deep", "deep/b.png",
              "", "deep//a.png", "a\0b")  # fmt: skip
    assert [plain_file(folder, name) for name in others] == [None] * len(others)
