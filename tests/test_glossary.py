"""The words of pages are those of the glossary, and a page explains the ones that it uses."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.inspection import terminal_tables
from pipeline.showing.glossary import WORDS, PageWords
from pipeline.showing.pages import render_page
from pipeline.showing.volume import volume

ROOT = Path(__file__).parent.parent
ASSETS = ROOT / "pipeline" / "assets"


def test_every_word_means_what_the_glossary_says() -> None:
    rows = re.findall(r'^\| <a id="([a-z-]+)"></a>(.+?) \| (.+) \|$', (ROOT / "docs" / "GLOSSARY.md").read_text(), re.M)
    plain = {word: re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", meaning) for _, word, meaning in rows}
    assert {word: re.sub(r"[`*]", "", meaning) for word, meaning in plain.items()} == WORDS
    assert [f"word-{anchor}" for anchor, _, _ in rows] == [anchor for anchor, _, _ in used(*WORDS)]


def used(*words: str) -> list[tuple[str, str, str]]:
    page = PageWords()
    for word in words:
        page.link(word)
    return page.used


def test_a_link_shows_the_meaning_escaped_and_a_word_is_explained_once() -> None:
    page = PageWords()
    first = page.link("base prompt", "<Base>")
    assert page.link("base prompt") != first
    assert '<a class="term" href="#word-base-prompt"' in first
    assert "&lt;Base&gt;</a>" in first
    assert "&#34;a face.&#34;" in first
    assert [word for _, word, _ in page.used] == ["base prompt"]
    with pytest.raises(KeyError):
        page.link("no such word")


def test_every_word_that_a_template_links_is_in_the_glossary() -> None:
    linked = [word for page in ASSETS.rglob("*.html") for word in re.findall(r'\bterm\("([^"]+)"', page.read_text())]
    assert {"margin", "base prompt", "revision", "kept", "recognised", "store", "domain"} <= set(linked)
    assert set(linked) <= set(WORDS)


class _Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids, self.links = list[str](), list[str]()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if "id" in found:
            self.ids.append(found["id"] or "")
        if found.get("class") == "term":
            self.links.append((found["href"] or "").removeprefix("#"))


def test_a_page_explains_at_its_end_the_words_that_it_links_and_no_others() -> None:
    lists = dict.fromkeys(("runs", "warnings", "together", "cards_of_runs"), ())
    values = lists | {"reload": None, "written": "now", "judge": "CLIP"}
    html = render_page("runs.html", values)
    page = _Page(html)
    assert page.links == ["word-recognised", "word-kept"]
    assert [each for each in page.ids if each.startswith("word-")] == page.links
    assert len(page.ids) == len(set(page.ids))
    assert html.index('id="word-kept"') > html.index('class="term"')


def test_review_explains_its_words_beside_its_keys() -> None:
    page = _Page(render_page("review/index.html", {}))
    assert {"word-margin", "word-offset", "word-revision"} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


@pytest.mark.parametrize("quiet", [False, True])
def test_inspect_labels_says_where_words_are_explained_unless_quiet(
    quiet: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal_tables, "show_statistics", lambda *_, **__: None)
    report: Any = SimpleNamespace(comparison=None, rules=(), statistics=None)
    with volume(quiet=quiet, verbose=False):
        terminal_tables.show_inspection(report)
    assert ("docs/GLOSSARY.md" in capsys.readouterr().err) is not quiet
