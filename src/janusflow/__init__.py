"""JanusFlow: one model that understands and generates images.

`from janusflow import JanusFlow` is the entry point (see `janusflow.pipelines.janusflow`). Importing this module loads
nothing heavy: torch and transformers are imported when a name is first used.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from janusflow import moved

__version__ = "0.1.0"

moved.install()
logging.getLogger(__name__).addHandler(logging.NullHandler())  # see `janusflow.progress.say`

_HOMES = {
    "JanusFlow": "janusflow.pipelines.janusflow",
    "JanusFlowConfig": "janusflow.config",
    "JanusFlowForConditionalGeneration": "janusflow.model",
    "JanusFlowProcessor": "janusflow.processing.processor",
    "StepEnd": "janusflow.engine.settings",
    "settings_of": "janusflow.pipelines.provenance",
}

__all__ = [
    "JanusFlow",
    "JanusFlowConfig",
    "JanusFlowForConditionalGeneration",
    "JanusFlowProcessor",
    "StepEnd",
    "__version__",
    "settings_of",
]

if TYPE_CHECKING:
    from janusflow.config import JanusFlowConfig
    from janusflow.engine.settings import StepEnd
    from janusflow.model import JanusFlowForConditionalGeneration
    from janusflow.pipelines.janusflow import JanusFlow
    from janusflow.pipelines.provenance import settings_of
    from janusflow.processing.processor import JanusFlowProcessor


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'janusflow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
