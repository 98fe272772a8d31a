"""Find commands that other packages register: a function, or a typer application with its own commands.

    [project.entry-points."janusflow.commands"]
    icons = "my_package.cli:app"

They are imported when such a command is run, and for `--help`.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from janusflow.cli.options import SuggestingCommand, one_sentence
from janusflow.functions import load_plugin, plugins

GROUP = "janusflow.commands"


class PluginGroup(TyperGroup):
    """The commands of the package, followed by those of other packages."""

    def list_commands(self, ctx: Any) -> list[str]:
        own = super().list_commands(ctx)
        return [*own, *sorted(plugins(GROUP, own))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if (own := super().get_command(ctx, cmd_name)) is not None:
            return own
        found = plugins(GROUP).get(cmd_name)
        return None if found is None else _command(found)


def _command(plugin: Any) -> Any:
    """Return the command of an entry point, or one that raises the error if it cannot be loaded."""
    try:
        found = load_plugin(plugin, "command")
    except ValueError as error:
        found = _broken(error)
    if isinstance(found, typer.Typer):
        command = get_command(found)
        command.name = plugin.name
        return command
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
    app.command(plugin.name, cls=SuggestingCommand)(one_sentence(found))
    return get_command(app)


def _broken(error: ValueError) -> Any:
    def command() -> None:
        raise error

    command.__doc__ = f"Not available: {error}."
    return command
