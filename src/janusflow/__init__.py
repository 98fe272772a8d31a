"""JanusFlow: one model that understands and generates images.

`from janusflow import JanusFlow` is the face of the package (see `janusflow.pipeline`). Importing this module alone
loads nothing heavy: torch and transformers are imported when a name is first used.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())  # see `janusflow.progress.say`

_HOMES = {
    "JanusFlow": "janusflow.pipeline",
    "JanusFlowConfig": "janusflow.config",
    "JanusFlowForConditionalGeneration": "janusflow.model",
    "JanusFlowProcessor": "janusflow.processor",
    "StepEnd": "janusflow.settings",
    "settings_of": "janusflow.provenance",
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
    from janusflow.model import JanusFlowForConditionalGeneration
    from janusflow.pipeline import JanusFlow
    from janusflow.processor import JanusFlowProcessor
    from janusflow.provenance import settings_of
    from janusflow.settings import StepEnd


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'janusflow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
