"""Registers the network with transformers' Auto classes, and a processor that is only imported when first opened."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, ProcessorMixin

from janusflow.config import JanusFlowConfig
from janusflow.model.janusflow import JanusFlowForConditionalGeneration


class JanusFlowProcessor(ProcessorMixin):
    """Placeholder for `janusflow.processing.processor.JanusFlowProcessor`, so that the network does not import it.

    transformers finds a processor by the name of its class.
    """

    @classmethod
    def from_pretrained(cls, *place: Any, **options: Any) -> Any:
        """Open the actual processor."""
        from janusflow.processing import processor

        return processor.JanusFlowProcessor.from_pretrained(*place, **options)


AutoConfig.register(JanusFlowConfig.model_type, JanusFlowConfig, exist_ok=True)
AutoModelForImageTextToText.register(JanusFlowConfig, JanusFlowForConditionalGeneration, exist_ok=True)
AutoProcessor.register(JanusFlowConfig, JanusFlowProcessor, exist_ok=True)
