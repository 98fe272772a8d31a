"""Pictures in transformers' `generate`: inserted into the prompt once, before rows are repeated, sliced or extended.

transformers repeats every tensor of a request row by row, so the pictures [a, b] of one row would become [a, a, b, b].
Embedded prompts have one row per prompt and cannot be mixed up.

Shapes: B rows, T tokens, D width of the LLM, N pictures of S x S pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Cache

from janusflow.model.prefix import CACHE, one_cache


class PicturePrompts:
    """Generation for a network with `embed(input_ids, pixel_values) -> (B, T, D)`.

    The prompt is embedded once. Passes over it (the first one, each one without a cache, each part of a chunked one)
    use those embeddings; all tokens that follow, generated or proposed, are read as tokens, even image tokens.
    """

    embed: Callable[..., Tensor]
    get_input_embeddings: Callable[[], nn.Module]
    config: Any

    @property
    def num_understanding_tokens(self) -> int:
        """Number of image tokens of one input picture."""
        raise NotImplementedError

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Repeat rows for beams and several answers; each row keeps its own pictures.

        Raises:
            ValueError: if image tokens and pictures differ in number, or pictures come with embedded prompts.
        """
        pixel_values = kwargs.pop("pixel_values", None)
        if kwargs.get("inputs_embeds") is not None or input_ids is None or input_ids.shape[1] == 0:
            if pixel_values is not None:
                raise ValueError(
                    "pixel_values were given with inputs_embeds, which hold their pictures; give input_ids"
                )
        elif not kwargs.get("mm_encoder_outputs"):
            covered = kwargs.get("attention_mask")
            if covered is None:  # transformers drops a mask that hides nothing; the positions have its length
                covered = kwargs.get("position_ids")
            whole = covered is None or covered.shape[-1] == input_ids.shape[1]
            kwargs["prompt_embeds"] = self._embed_prompt(input_ids, pixel_values, kwargs.get(CACHE), whole=whole)
        input_ids, kwargs = super()._expand_inputs_for_generation(  # type: ignore[misc]
            expand_size, is_encoder_decoder, input_ids, **kwargs
        )
        if pixel_values is not None:  # an assistant model embeds them itself
            kwargs["pixel_values"] = pixel_values
        return input_ids, kwargs

    def _embed_prompt(
        self, input_ids: Tensor, pixel_values: Tensor | None, past: Cache | None, *, whole: bool
    ) -> Tensor:
        """Embed a whole prompt, (B, T, D); where a cache given by the caller has read it already, values may be zeros.

        Args:
            input_ids: (B, T) the prompt, or only its new tokens.
            pixel_values: (N, 3, S, S) all pictures of the prompt, or only those of its new tokens.
            past: cache that has read the tokens before.
            whole: whether `input_ids` contain those too.
        """
        read = 0 if past is None else int(past.get_seq_length())
        new = input_ids
        if read and whole:
            new = input_ids[:, read:]
            placed, fresh = (int((ids == self.config.image_token_id).sum()) for ids in (input_ids, new))
            given = 0 if pixel_values is None else len(pixel_values) * self.num_understanding_tokens
            if given == placed and fresh:
                return self.embed(input_ids, pixel_values)
            if given == placed:
                pixel_values = None  # the cache has read them all
        return F.pad(self.embed(new, pixel_values), (0, 0, read, 0))

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Run transformers' method, and replace tokens of the prompt by their embeddings, pictures included.

        Args:
            input_ids: (B, T) the tokens so far.
            past_key_values, cache: cache that has read the first of them.
            inputs_embeds: the prompt, if the caller embedded it.
            prompt_embeds: (B, P, D), see `_embed_prompt`.
            **kwargs: passed to transformers.
        """
        cache = one_cache(past_key_values, cache)
        if prompt_embeds is not None:
            kwargs.pop("pixel_values", None)
        inputs = super().prepare_inputs_for_generation(  # type: ignore[misc]
            input_ids, inputs_embeds=inputs_embeds, **{CACHE: cache}, **kwargs
        )
        read = 0 if cache is None else int(cache.get_seq_length())
        ids = inputs.get("input_ids")
        if prompt_embeds is not None and ids is not None and read < prompt_embeds.shape[1]:
            prompt = prompt_embeds[:, read : read + ids.shape[1]]
            after = self.get_input_embeddings()(ids[:, prompt.shape[1] :])
            inputs |= {"input_ids": None, "inputs_embeds": torch.cat([prompt, after], dim=1)}
        return dict(inputs)
