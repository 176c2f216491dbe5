"""README.md against the code: its commands, their options, its tree, its links."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands


def blocks(text: str, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [body for name, body in found if name == language]


def shell_lines() -> Iterator[list[str]]:
    """The words of each ``lanit`` line in the README's shell blocks, here-documents and comments left out."""
    for block in blocks(README, "sh"):
        text = re.sub(r"<<'END'\n.*?^END\n", "\n", block, flags=re.MULTILINE | re.DOTALL)
        for line in text.splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] == "lanit":
                yield words[1:]


def table_rows() -> dict[str, bool]:
    """Commands of the README's table, and whether they are marked as printing JSON."""
    rows = re.findall(r"^\| `lanit ([a-z-]+)`( \*)? \|", README, re.MULTILINE)
    assert len(dict(rows)) == len(rows)
    return {name: bool(star) for name, star in rows}


def options(command: str) -> set[str]:
    return {option for parameter in COMMANDS[command].params for option in parameter.opts if option.startswith("-")}


FOLDERS = ("lanit", "pipeline", "docs", "manifests", "tests", "benchmarks", "findings")
TEXT = {"", ".py", ".sh", ".md", ".toml", ".txt", ".yaml", ".json", ".html", ".css"}
HOSTS = {"127.0.0.1", "evil.example", "a.b", "ns.adobe.com", "www.w3.org", "git-lfs.github.com"}


def test_the_two_commands_come_first() -> None:
    first = blocks(README, "sh")[0].splitlines()
    assert [line.split("#")[0].strip() for line in first] == ["make demo", "make test"]
    assert README.index("make demo") < 40


def test_the_table_lists_every_command_and_no_other() -> None:
    assert set(table_rows()) == set(COMMANDS)


def test_the_table_marks_the_commands_that_print_json() -> None:
    assert {name for name, star in table_rows().items() if star} == {
        name for name in COMMANDS if "--json" in options(name)
    }


@pytest.mark.parametrize("words", list(shell_lines()), ids=" ".join)
def test_every_example_parses(words: list[str]) -> None:
    command = COMMANDS[words[0]]
    used = {word for word in words[1:] if word.startswith("--")}
    assert used <= options(words[0])
    command.make_context(words[0], words[1:])  # parses and checks types; runs nothing


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_has_an_example(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0
    assert f"lanit {name}" in result.output.split("Example", 1)[1]


def test_every_file_of_the_tree_exists() -> None:
    (tree,) = (block for block in blocks(README, "") if block.startswith("cli.py"))
    folder = Path()
    for line in tree.splitlines():
        names = line[:27].strip()
        for name in names.split(", "):
            path = ROOT / (folder if line.startswith("  ") else Path()) / name
            assert path.exists(), path
        if not line.startswith("  ") and names.endswith("/"):
            folder = Path(names)


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "manifests/README.md", "docs/METHODS.md", "docs/RECIPES.md"]
)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        assert (ROOT / page).parent.joinpath(target).exists(), target


def test_every_make_target_has_a_line_of_help_and_those_named_in_the_docs_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert set(phony.split()) == set(re.findall(r"^([a-z]+):.*## .+$", makefile, re.MULTILINE))
    for page in (README, (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")):
        assert set(re.findall(r"`make ([a-z]+)`", page)) <= set(phony.split())


def test_no_file_names_a_registry_or_a_folder_of_one_machine() -> None:
    """No address but those that stand in for one or name a format; not where this checkout, its user or Python lie."""
    tops = {f"/{path.parts[1]}/" for path in (ROOT, Path.home(), Path(sys.base_prefix)) if len(path.parts) > 1}
    folders = "|".join(map(re.escape, tops - {"/tmp/", "/usr/"} | {f"{ROOT}/"}))
    pattern = re.compile(rf"index-url|find-links|(?<![\w.)}}])(?:{folders})")
    files = [*ROOT.glob("*.*"), ROOT / "Makefile", ROOT / ".ci" / "run"]
    files += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.*")]
    for path in files:
        if path.is_file() and path.name != ".git" and path.suffix in TEXT and path != Path(__file__):
            text = path.read_text(encoding="utf-8")
            found = pattern.search(text)
            assert not found, f"{path.name}: {found and found[0]}"
            assert set(re.findall(r"https?://([\w-]+(?:\.[\w-]+)+)", text)) <= HOSTS, path.name
