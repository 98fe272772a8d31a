"""Make documented modules that have moved importable by their old names, with a warning, until version 0.3."""

from __future__ import annotations

import importlib
import sys
import warnings
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_loader
from types import ModuleType
from typing import Any

MOVED = {
    "adapters": "checkpoint.adapters",
    "compat.umm": "interop.torchumm",
    "compat": "interop",
    "demo": "tinyworld.demo",
    "diffusers_pipeline": "interop.diffusers_pipeline",
    "evaluation.endpoint_judge": "evaluation.judges.endpoint",
    "evaluation.lmms": "interop.lmms",
    "evaluation.recipes": "evaluation.run.recipes",
    "evaluation.sample": "evaluation.score_sample",
    "generation": "engine.generation",
    "hub": "checkpoint.hub",
    "images": "processing.images",
    "janus": "pipelines.janus",
    "messages": "processing.messages",
    "pipeline": "pipelines.janusflow",
    "processor": "processing.processor",
    "provenance": "pipelines.provenance",
    "quantization": "checkpoint.quantization",
    "settings": "engine.settings",
    "sheet": "pipelines.sheet",
    "token_generation": "engine.token_generation",
    "understanding": "engine.understanding",
}
PLACES = {f"janusflow.{old}": f"janusflow.{new}" for old, new in MOVED.items()}


class MovedModules(MetaPathFinder, Loader):
    """Find a module by its old name; the result is the module itself, not a copy."""

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in PLACES:
            return None
        warnings.warn(f"{fullname} has moved to {PLACES[fullname]}", FutureWarning, stacklevel=2)
        found = find_spec(PLACES[fullname])
        origin = found.origin if found else None
        return spec_from_loader(fullname, self, origin=origin, is_package=fullname == "janusflow.compat")

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(PLACES[spec.name])
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Restore the module's own spec; it has been executed under its new name."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


def install() -> None:
    """Make the old names importable, after all other finders."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
