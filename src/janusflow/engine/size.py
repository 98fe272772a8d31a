"""The number and size of the pictures of a request, and whether they fit into the model's context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from janusflow.arguments import counted, given, whole_number
from janusflow.config import JanusFlowConfig

T = TypeVar("T")


@dataclass(frozen=True)
class Size:
    """The output of a request: `prompts` times `per_prompt` pictures of `height` x `width` pixels."""

    prompts: int
    per_prompt: int
    height: int
    width: int

    @property
    def pictures(self) -> int:
        """The total number of pictures."""
        return self.prompts * self.per_prompt

    def one_each(self, name: str, values: list[Tensor]) -> Tensor:
        """Stack one value per generated picture, from one for all, one per prompt, or one per picture.

        Raises:
            ValueError: for another number of values.
        """
        return torch.stack(self.spread(name, values))

    def spread(self, name: str, values: Sequence[T]) -> list[T]:
        """Return the values that `one_each` stacks as a list.

        Raises:
            ValueError: for another number of values.
        """
        spread = list(values)
        if len(spread) == 1:
            spread *= self.pictures
        elif len(spread) == self.prompts:
            spread = [value for value in spread for _ in range(self.per_prompt)]
        if len(spread) != self.pictures:
            raise ValueError(
                f"{given(len(spread), name)} for {counted(self.prompts, 'prompt')} with "
                f"{counted(self.per_prompt, 'picture')} each; give one for all, one per prompt, or one per picture"
            )
        return spread


def check_size(config: JanusFlowConfig, height: object, width: object, latents: Tensor | None) -> tuple[int, int]:
    """Return height and width in pixels: as given, from the latents, or the size that the weights were trained at.

    Raises:
        ValueError: if one is not a positive multiple of the side of an image token (16 in the released checkpoints).
    """
    if isinstance(latents, Tensor) and latents.ndim == 4:
        height = latents.shape[2] * config.latent_downscale if height is None else height
        width = latents.shape[3] * config.latent_downscale if width is None else width
    multiple = config.token_size
    return _multiple("height", height, config, multiple), _multiple("width", width, config, multiple)


def _multiple(name: str, value: object, config: JanusFlowConfig, multiple: int) -> int:
    refusal = f"{name} is {value!r:.40}; expected a positive multiple of {multiple} pixels"
    try:
        pixels = whole_number(name, config.image_size if value is None else value)
    except ValueError as error:
        raise ValueError(refusal) from error
    if pixels % multiple:
        raise ValueError(refusal)
    return pixels


def check_context(config: JanusFlowConfig, prompt_mask: Tensor, image_tokens: int) -> None:
    """Check that prompts fit into the LLM's positions together with the time and image tokens.

    Raises:
        ValueError: if one does not; names the longest prompt's tokens and the maximum.
    """
    longest, room = int(prompt_mask.sum(dim=1).max()), config.text_config.max_position_embeddings
    if longest + 1 + image_tokens > room:
        raise ValueError(
            f"a prompt has {longest} tokens; next to {image_tokens} image tokens the model's context of {room} "
            f"holds at most {max(room - 1 - image_tokens, 0)}"
        )
