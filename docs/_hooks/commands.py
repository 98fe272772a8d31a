"""Writes the command line reference from the commands themselves, in place of the line `::: commands`."""

from __future__ import annotations

import re
from typing import Any

import typer.cli
import typer.main

from janusflow.cli import app

EXAMPLES = re.compile(r"(?:^ *janusflow .*\n+)+", re.MULTILINE)

GROUPS = re.compile(
    r"^### [^\n]+\n\n[^\n]+\n\n\*\*Usage\*\*:\n\n```console\n[^\n]+ COMMAND \[ARGS\]\.\.\.\n.*?(?=^####)", re.M | re.S
)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls this for each page."""
    return markdown.replace("::: commands", _commands()) if "::: commands" in markdown else markdown


def _commands() -> str:
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="janusflow")
    text = typer.cli.get_docs_for_click(obj=command, ctx=context, name="janusflow", indent=1)
    text = re.sub(r"\*\*Commands\*\*:\n\n(?:\* .*\n)+\n", "", text)  # cut off at some 50 characters
    text = GROUPS.sub("", text).replace("#### ", "### ")
    text = text.replace("janusflow eval run", "janusflow eval")  # the default command of `eval`
    text = re.sub(r"\[bold\](.*?)\[/bold\]", r"**\1**", text)
    return EXAMPLES.sub(_as_code, text)


def _as_code(examples: re.Match[str]) -> str:
    lines = [line.strip() for line in examples[0].splitlines() if line.strip()]
    return "\n".join(["```bash", *lines, "```", "", ""])
