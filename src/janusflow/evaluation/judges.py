"""Models that judge: rules of one's own, a local transformers model, or an OpenAI-compatible endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from PIL import Image


class Judge(Protocol):
    """Whoever reads a prompt, perhaps with pictures, and replies in words."""

    name: str

    def reply(
        self,
        prompt: str,
        images: Sequence[Image.Image] = (),
        *,
        system: str = "",
        temperature: float = 0.0,
        attempt: int = 0,
    ) -> str:
        """The reply to one prompt.

        Args:
            prompt: the question.
            images: shown with it.
            system: system prompt; "" for none.
            temperature: of the sampling; 0 is greedy.
            attempt: another number asks anew where a cached reply was of no use.

        Raises:
            NotJudgedError: if no reply can be had.
        """
        ...
