"""The networks. Importing this package registers that of JanusFlow with transformers' Auto classes."""

from janusflow.model import auto  # noqa: F401 (registers)
from janusflow.model.janusflow import JanusFlowForConditionalGeneration
from janusflow.model.prefix import PromptPrefix

__all__ = ["JanusFlowForConditionalGeneration", "PromptPrefix"]
