"""Escape external text (names of models, items and scores, replies of judges) for Markdown, LaTeX, CSV and terminals.

Nothing in it takes effect there: no HTML, link or table cell in Markdown, no command in LaTeX, no formula in a
spreadsheet, no control sequence on a terminal. HTML pages are escaped by their templates.
"""

from __future__ import annotations

import re
from typing import Any

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
MARKDOWN = re.compile(r"[\\`*\[\]~]|(?<!\w)_|_(?!\w)")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # first characters of a spreadsheet's formulas
TEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    }
)


def one_line(text: str) -> str:
    """Return a text with spaces for line breaks, and other control characters made visible."""
    return CONTROL.sub(lambda found: " " if found[0].isspace() else f"\\x{ord(found[0]):02x}", text)


def markdown_text(text: str) -> str:
    """Escape a text for a line or a table cell of Markdown."""
    text = MARKDOWN.sub(lambda found: f"\\{found[0]}", one_line(text))
    text = re.sub(r"&(?=#?\w+;)", "&amp;", text)
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text).replace("|", "&#124;")


def markdown_code(text: str) -> str:
    """Return a text as code in one line of Markdown, between more backticks than it has in a row."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence, space = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{space}{one_line(text)}{space}{fence}"


def tex_text(text: str) -> str:
    """Escape a text for LaTeX."""
    return one_line(text).translate(TEX)


def csv_cell(value: Any) -> Any:
    """Return a value for a CSV file; a text that a spreadsheet would run gets a leading apostrophe."""
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def plain_label(text: str) -> str:
    """Return a label for a figure in which matplotlib reads no formula."""
    return one_line(text).replace("$", r"\$")
