"""The network. Importing this package registers it with transformers' Auto classes."""

from transformers import AutoConfig, AutoModelForImageTextToText

import janusflow.processing.processor  # noqa: F401 (registers itself; whole, for it may be what imports this)
from janusflow.config import JanusFlowConfig
from janusflow.model.janusflow import JanusFlowForConditionalGeneration
from janusflow.model.prefix import PromptPrefix

AutoConfig.register(JanusFlowConfig.model_type, JanusFlowConfig, exist_ok=True)
AutoModelForImageTextToText.register(JanusFlowConfig, JanusFlowForConditionalGeneration, exist_ok=True)

__all__ = ["JanusFlowForConditionalGeneration", "PromptPrefix"]
