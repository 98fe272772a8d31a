"""Text of others does nothing in Markdown, LaTeX, CSV and on a terminal."""

from __future__ import annotations

import pytest

from janusflow.evaluation.reports.markup import csv_cell, markdown_code, markdown_text, one_line, plain_label, tex_text

NASTY = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a | b",
    "[click](javascript:alert(1))",
    "![x](http://x/y.png)",
    "*bold* _italic_ ~~gone~~ `code`",
    "&lt;b&gt;",
    "two\nlines\r\n| a |",
    "\\\\[x](y)",
]


@pytest.mark.parametrize("text", NASTY)
def test_markdown_shows_a_text_as_it_is(text: str) -> None:
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark", {"html": True}).enable("table")
    table = f"| score | n |\n| --- | ---: |\n| {markdown_text(text)} | 1 |"
    tokens = markdown.parse(table)
    inline = [token for token in tokens if token.type == "inline"]
    assert len(inline) == 4, "one row of two cells"
    kinds = {child.type for child in inline[2].children or []}
    assert kinds <= {"text", "text_special"}
    assert "".join(child.content for child in inline[2].children or []) == one_line(text).strip()


@pytest.mark.parametrize("text", [*NASTY, "``", "`", "a``b`c"])
def test_code_in_markdown_does_not_end_early(text: str) -> None:
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark", {"html": True})
    (inline,) = (token for token in markdown.parse(f"- settings: {markdown_code(text)}") if token.type == "inline")
    assert [child.type for child in inline.children or []] == ["text", "code_inline"]


def test_names_that_need_no_escape_stay_as_they_are() -> None:
    for text in ("two_object", "n < 20", "R&D", "0.8 to 0.9", "models/janusflow-1.3b", "entity - whole"):
        assert markdown_text(text) == text


def test_other_forms() -> None:
    assert one_line("a\x1b[31mb\nc") == "a\\x1b[31mb c"
    assert tex_text("50 % \\input{x}\n$") == r"50 \% \textbackslash{}input\{x\} \$"
    given, written = ("=1+1", "@x", "-1.5", "+a", -2, "yes"), ["'=1+1", "'@x", "-1.5", "'+a", -2, "yes"]
    assert list(map(csv_cell, given)) == written
    assert plain_label("a $x") == r"a \$x"
