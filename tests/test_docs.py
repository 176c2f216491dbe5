"""README.md and the pages in docs/ against the code: commands, their options, the tree, links, words."""

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
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}
LINES_OF_README = 100
"""One screen, and its table of pages."""
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands


def blocks(text: str, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [body for name, body in found if name == language]


def shell_blocks(page: str) -> Iterator[list[list[str]]]:
    """Of each shell block of a page, the words of its ``lanit`` lines, here-documents and comments left out."""
    for block in blocks(PAGES[page], "sh"):
        text = re.sub(r"<<'END'\n.*?^END\n", "\n", block, flags=re.MULTILINE | re.DOTALL)
        lines = [shlex.split(line, comments=True) for line in text.splitlines()]
        yield [words[words.index("lanit") + 1 :] for words in lines if "lanit" in words]


def shell_lines(page: str) -> Iterator[list[str]]:
    for lines in shell_blocks(page):
        yield from lines


def table_rows() -> dict[str, bool]:
    """Commands of the table, and whether they are marked as printing JSON."""
    rows = re.findall(r"^\| `lanit ([a-z-]+)`( \*)? \|", PAGES["COMMANDS.md"], re.MULTILINE)
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


@pytest.mark.parametrize("words", [words for page in PAGES for words in shell_lines(page)], ids=" ".join)
def test_every_example_parses(words: list[str]) -> None:
    if words == ["--version"]:
        return
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
    (tree,) = (block for block in blocks(PAGES["STRUCTURE.md"], "") if block.startswith("cli.py"))
    folder = Path()
    for line in tree.splitlines():
        names = line[:27].strip()
        for name in names.split(", "):
            path = ROOT / (folder if line.startswith("  ") else Path()) / name
            assert path.exists(), path
        if not line.startswith("  ") and names.endswith("/"):
            folder = Path(names)


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md", "manifests", *PAGES])
def test_links_lead_somewhere(page: str) -> None:
    (path,) = {ROOT / page, ROOT / "docs" / page, ROOT / page / "README.md"} & set(ROOT.rglob("*.md"))
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", path.read_text(encoding="utf-8")):
        linked = path.parent / target if target else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked.read_text(encoding="utf-8")), f"{target}#{anchor}"


def anchors(text: str) -> set[str]:
    """What a link into a page can name: its headings, as they are turned into anchors, and those written out."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    found = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return found | set(re.findall(r'<a id="([^"]+)">', text))


def test_the_readme_is_one_screen_and_leads_to_every_page() -> None:
    assert len(README.splitlines()) <= LINES_OF_README
    linked = set(re.findall(r"\]\(docs/([\w.]+)", README))
    assert linked >= {*PAGES} - {"README.md"}


GLOSSARY = set(re.findall(r'<a id="([a-z-]+)">', PAGES["GLOSSARY.md"]))
LINKED = ("store", "revision", "margin", "base prompt", "slack domain")
OWN_WORDS = {"GLOSSARY.md", "LOG.md", "METHOD.md", "README.md", "STRUCTURE.md"}
"""Pages that explain words themselves, or that are for those who know them."""


def prose(text: str) -> str:
    """Without code and headings."""
    return re.sub(r"^```.*?^```$|`[^`\n]*`|^#[^\n]*$", "", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", sorted(PAGES.keys() - OWN_WORDS))
def test_a_page_leads_to_the_glossary_where_a_word_of_it_first_stands(page: str) -> None:
    assert {word.replace(" ", "-") for word in LINKED} <= GLOSSARY
    text = prose(PAGES[page])
    for word in LINKED:
        first = re.search(rf"\b{word}s?\b", text, re.IGNORECASE)
        if first:
            link = f"[{first[0]}](GLOSSARY.md#{word.replace(' ', '-')})"
            assert text[first.start() - 1 :].startswith(link), f"{word}: {text[first.start() - 40 : first.end() + 20]}"


def test_every_make_target_has_a_line_of_help_and_those_named_in_the_docs_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert set(phony.split()) == set(re.findall(r"^([a-z]+):.*## .+$", makefile, re.MULTILINE))
    for page in (*PAGES.values(), (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")):
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
