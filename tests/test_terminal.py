"""What reaches a terminal: text of others steers nothing, floods nothing, and is never a reason to stop."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
from rich.console import Console
from typer.testing import CliRunner

import cli
from lanit.errors import LanitError
from pipeline.showing import console
from pipeline.showing.terminal_text import brief, shortened, visible

TITLE = "a\x1b]0;PWNED\x1b\\b"
HOSTILE = f"{TITLE}\r\n[bold red]x[/] \u202egnp.exe\u202c \x9b2J \x07\u2028\ufeff \udce9\ud800 \x7f\x00"
STEERING = {*map(chr, range(32)), *map(chr, range(0x7F, 0xA0)), *"\u202e\u202c\u2028\ufeff\udce9\ud800"} - {"\n"}
GROUP: Any = typer.main.get_command(cli.app)


def test_what_steers_or_hides_is_written_as_an_escape() -> None:
    assert visible(TITLE) == r"a\x1b]0;PWNED\x1b\b"
    assert visible("a\tb\nc\rd\x00\x7f\x85") == r"a\tb\nc\rd\x00\x7f\x85"
    assert visible("\u202e\u2066\u200b\ufeff\U000e0041") == r"\u202e\u2066\u200b\ufeff\U000e0041"
    assert visible(os.fsdecode(b"caf\xe9")) == r"caf\xe9"
    assert visible("\ud800") == r"\ud800"
    for plain in ("café ñ 猫 שלום 👩‍👩‍👧 می‌خواهم", "[bold]x[/]", "C:\\new\\table", ""):
        assert visible(plain) == plain


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_of_a_hostile_text_steers_the_terminal(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    streams = {name: io.StringIO() for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(stream, "isatty", lambda: terminal)
        monkeypatch.setattr(sys, name, stream)
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr(console, "_PLAIN_SECONDS", 0.0)
    monkeypatch.setattr(console, "_console", lambda *, stderr=False: Console(
        file=sys.stderr if stderr else sys.stdout, width=400, emoji=False, color_system=None))  # fmt: skip
    shown = visible(HOSTILE)
    console.table(HOSTILE, (HOSTILE, HOSTILE), [(HOSTILE, HOSTILE)])
    console.counts(HOSTILE, {HOSTILE: 1})
    for say in (console.say, console.note, console.warn):
        say(HOSTILE)
    assert streams["stdout"].getvalue().count(shown) == 8
    assert streams["stderr"].getvalue() == f"{shown}\nwarning: {shown}\n"
    with console.progress(HOSTILE) as advance:
        advance(1, 2, HOSTILE)
        advance(2, 2, HOSTILE)
    console.print_json({"path": HOSTILE})
    for stream in streams.values():
        text = stream.getvalue()
        if stream is streams["stderr"] and terminal:  # a bar moves the cursor
            assert "PWNED\x1b" not in text
            assert "\x1b]0" not in text
            assert "[bold red]x[/]" in text
        else:
            assert not STEERING & set(text)
    assert json.loads(streams["stdout"].getvalue()[streams["stdout"].getvalue().index("{\n") :]) == {"path": HOSTILE}


def test_what_a_message_quotes_is_shortened_and_what_it_says_is_kept() -> None:
    phrase = "a face " * 2000
    told = brief(f"'{phrase}' has no {{}}, doesn't it: 'noun' isn't \"{phrase}\"")
    assert told == f"'{phrase[:60]}…' has no {{}}, doesn't it: 'noun' isn't \"{phrase[:60]}…\""
    assert brief("it doesn't " + "say " * 50 + "what isn't there") == "it doesn't " + "say " * 50 + "what isn't there"
    assert shortened("x" * 61) == "x" * 60 + "…"
    assert shortened("x" * 60) == "x" * 60
    cut = brief(f"cannot read {'x' * 10_000}: no picture")
    assert len(cut) < 600
    assert cut.startswith("cannot read xxx")
    assert cut.endswith("xxx: no picture")
    assert brief("\"'" * 50_000), "in no time"


def test_cells_of_a_table_are_bounded(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    console.table("t", ("a", "b"), [("x" * 50_000, "1")])
    assert 900 < capsys.readouterr().out.count("x") < 1100


def fail_in_label(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Any:
    def fail(name: str, noun: str | None = None) -> None:
        raise error

    monkeypatch.setattr("pipeline.store.store.Store.open", fail)
    return CliRunner().invoke(cli.app, ["label", "--prompts", "x"])


def test_errors_are_one_line_whatever_they_quote(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (LanitError(f"cannot read {HOSTILE}", "Type this"), OSError(2, "No such file", HOSTILE)):
        result = fail_in_label(monkeypatch, error)
        assert result.exit_code == 1
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: ")
        assert not STEERING & set(line)
    hint = f"Run: lanit label --prompts '{'long name ' * 30}'"
    line = fail_in_label(monkeypatch, LanitError(f"no phrase in '{'x' * 10_000}'", hint)).stderr
    assert line == f"error: no phrase in '{'x' * 60}…'. {hint}\n", "what is to be typed stays whole"
    line = CliRunner().invoke(cli.app, ["label", "--prompts", "x", "--k", "y" * 10_000]).stderr
    assert len(line) < 200


def test_a_file_that_is_cut_short_is_no_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    result = fail_in_label(monkeypatch, EOFError("No data left in file"))
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: a file is cut short (No data left in file). ")
    assert "lanit label" in line


@pytest.mark.parametrize("command", GROUP.commands)
def test_names_that_are_not_utf8_are_refused_before_any_work(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def work(**options: Any) -> None:
        raise AssertionError("begun")

    monkeypatch.setattr(GROUP.commands[command], "callback", work)
    name = os.fsdecode(b"caf\xe9/x")
    parameters = [parameter for parameter in GROUP.commands[command].params if parameter.opts[0].startswith("--")]
    taken = [parameter.opts[-1] for parameter in parameters if not parameter.is_flag]
    for arguments in ([name], *([option, name] for option in taken), *([f"{option}={name}"] for option in taken)):
        assert GROUP.main([command, *arguments], "lanit", standalone_mode=False) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert r"caf\xe9/x is not valid UTF-8. Rename it" in line
    if command == "label":  # a name relative to such a folder is such a name
        (tmp_path / name).mkdir(parents=True)
        monkeypatch.chdir(tmp_path / name)
        assert GROUP.main([command, "--prompts", "x"], "lanit", standalone_mode=False) == 2
        assert r"caf\xe9/x, where you are, is not valid UTF-8. Type: cd ~" in capsys.readouterr().err
        assert GROUP.main([command, "--help"], "lanit", standalone_mode=False) == 0
        monkeypatch.chdir(tmp_path)
    for fine in ("café/x", "猫", "\\xe9"):
        GROUP.main([command, "--nonsense", fine], "lanit", standalone_mode=False)
        assert "UTF-8" not in capsys.readouterr().err
