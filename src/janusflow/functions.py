"""Load functions and classes by name: `module:name` from the command line and recipes, and entry points."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Collection
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from janusflow.arguments import quoted


def load_function(
    name: str, setting: str, *, form: str = "module:function", example: str = "my_judge:score"
) -> Callable[..., Any]:
    """Load `module:function` from a module in the current folder or an installed one.

    Args:
        name: name that the user gave.
        setting: name of the option, for error messages.
        form, example: expected form and an example of it, for error messages.

    Raises:
        ValueError: if it cannot be loaded or called.

    Example:
        >>> load_function("math:sqrt", "--judge")(4.0)
        2.0
    """
    module, _, function = name.partition(":")
    if not module or not function:
        raise ValueError(f"{setting} is {quoted(name)}; expected {form}, such as {example}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:  # whatever a third-party module raises
        said = f"{type(error).__name__}: {error}"
        raise ValueError(f"{setting} is {quoted(name)}; expected {form} of a module that loads ({said})") from error
    if not callable(found):
        raise ValueError(f"{setting} is {quoted(name)}, which is no function but {type(found).__name__}")
    return found


def plugins(group: str, built_in: Collection[str] = ()) -> dict[str, EntryPoint]:
    """Return the entry points that packages register in a group, by name; built-in names are not replaced."""
    return {found.name: found for found in entry_points(group=group) if found.name not in built_in}


def load_plugin(plugin: EntryPoint, what: str) -> Any:
    """Load an object that another package registers.

    Args:
        what: kind of plug-in, for error messages.

    Raises:
        ValueError: if it cannot be loaded.
    """
    try:
        return plugin.load()
    except Exception as error:  # whatever a third-party package raises
        raise ValueError(
            f"{what} {plugin.name!r} is registered as {plugin.value}, which does not load "
            f"({type(error).__name__}: {error}); reinstall or remove that package"
        ) from error


def code_of(function: Callable[..., Any]) -> str:
    """Return a short digest of the file that contains a function, to detect changes; empty if there is no file."""
    try:
        text = inspect.getsource(inspect.getmodule(function) or function)
    except (OSError, TypeError):
        return ""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
