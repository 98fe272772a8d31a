"""Functions and classes of others: named as `module:name` on the command line and in recipes, or entry points."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from janusflow.arguments import quoted


def load_function(
    name: str, setting: str, *, form: str = "module:function", example: str = "my_judge:score"
) -> Callable[..., Any]:
    """The function that `module:function` names, of a module in the current folder or an installed one.

    Args:
        name: as the user gave it.
        setting: what the user gave it for, for messages.
        form, example: what is expected instead, for messages.

    Raises:
        ValueError: if there is none.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        raise ValueError(f"{setting} is {quoted(name)}; expected {form}, such as {example}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:  # whatever a module of others raises
        said = f"{type(error).__name__}: {error}"
        raise ValueError(f"{setting} is {quoted(name)}; expected {form} of a module that loads ({said})") from error
    if not callable(found):
        raise ValueError(f"{setting} is {quoted(name)}, which is no function but {type(found).__name__}")
    return found


def load_plugin(plugin: EntryPoint, what: str) -> Any:
    """What another package registers.

    Args:
        plugin: its entry point.
        what: kind of thing that it is, for messages.

    Raises:
        ValueError: if it cannot be loaded.
    """
    try:
        return plugin.load()
    except Exception as error:  # whatever a package of others raises
        raise ValueError(
            f"{what} {plugin.name!r} is registered as {plugin.value}, which does not load "
            f"({type(error).__name__}: {error}); reinstall or remove that package"
        ) from error


def code_of(function: Callable[..., Any]) -> str:
    """A short digest of the file that holds a function, to tell whether it has changed; empty where there is none."""
    try:
        text = inspect.getsource(inspect.getmodule(function) or function)
    except (OSError, TypeError):
        return ""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
