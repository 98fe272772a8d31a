"""Functions of a user's own, named as `module:function` on the command line and in recipes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def load_function(name: str, setting: str) -> Callable[..., Any]:
    """The function that `module:function` names, of a module in the current folder or an installed one.

    Raises:
        ValueError: if there is none.
    """
    module, _, function = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{setting} is {name!r}; expected module:function of a module that can be imported") from error
    if not callable(found):
        raise ValueError(f"{setting} is {name!r}, which is no function but {type(found).__name__}")
    return found
