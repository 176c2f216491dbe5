"""A text of a user in a Markdown page is shown letter by letter, and nothing comes of it."""

from __future__ import annotations

import pytest

from pipeline.showing.markdown import markdown_text

TEXTS = ["<script>x</script>", "a | b", "`x` *y* _z_ ~~w~~", "[l](http://a.b)", "![p](x)", "# head", "&lt; &amp;",
         "\\*", "https://a.b www.a.b me@a.b", "blond hair", "été 微笑 👩‍👧"]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("place", ["# {}", "a {} b", "| x |\n|---|\n| {} |"])
def test_a_text_is_shown_as_it_is(text: str, place: str) -> None:
    markdown = pytest.importorskip("markdown_it", reason="comes with rich").MarkdownIt("commonmark").enable("table")
    html = markdown.render(place.format(markdown_text(text)))
    plain = markdown.render(place.format("PLACE"))
    for mark, letter in (("&quot;", '"'), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        html = html.replace(mark, letter)
    assert html == plain.replace("PLACE", text)


def test_lines_and_codes_of_terminals_become_spaces() -> None:
    assert markdown_text("a\n\n# b\x1b[1m\u202e c") == "a \\# b \\[1m c"
