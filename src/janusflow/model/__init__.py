"""The networks. Importing this package registers JanusFlow's with transformers' Auto classes."""

from janusflow.model import auto  # noqa: F401 (registers)
from janusflow.model.janusflow import JanusFlowForConditionalGeneration
from janusflow.model.prefix import PromptPrefix

__all__ = ["JanusFlowForConditionalGeneration", "PromptPrefix"]
