"""Functions of a user's own, named as `module:function` on the command line and in recipes."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from janusflow.arguments import quoted


def load_function(name: str, setting: str) -> Callable[..., Any]:
    """The function that `module:function` names, of a module in the current folder or an installed one.

    Raises:
        ValueError: if there is none.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        raise ValueError(f"{setting} is {quoted(name)}; expected module:function, such as my_judge:score")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:  # whatever a module of others raises
        said = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{setting} is {quoted(name)}; expected module:function of a module that loads ({said})"
        ) from error
    if not callable(found):
        raise ValueError(f"{setting} is {quoted(name)}, which is no function but {type(found).__name__}")
    return found


def code_of(function: Callable[..., Any]) -> str:
    """A short digest of the file that holds a function, to tell whether it has changed; empty where there is none."""
    try:
        text = inspect.getsource(inspect.getmodule(function) or function)
    except (OSError, TypeError):
        return ""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
