"""Janus and Janus-Pro: transformers' network, extended to generate pictures token by token.

    text out:   embed(ids, pixels) -> LLM -> logits
    image out:  read(ids, mask) -> cache; next_logits(states), embed_codes(tokens), decode(tokens)
    training:   forward(ids, pixels, latents=codes) -> logits, code_logits

Shapes: B rows, T tokens, D width of the LLM, K codes of the VQ codec, L = n x n tokens of a picture.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, GenerationConfig, GenerationMixin, LogitsProcessorList
from transformers import JanusForConditionalGeneration as TransformersJanus
from transformers.cache_utils import DynamicLayer
from transformers.models.janus.modeling_janus import JanusCausalLMOutputWithPast

from janusflow.device import execution_device
from janusflow.model.janusflow import GENERATION_TOKEN
from janusflow.model.picture_prompts import PicturePrompts
from janusflow.model.prefix import CACHE, RecordingLayer, cache_under_checkpointing, one_cache
from janusflow.model.vq_codec import code_distances


@dataclass
class JanusOutput(JanusCausalLMOutputWithPast):
    """Output of `forward` with pictures to generate.

    Attributes:
        code_logits: (M, L, K) logits of each code of the pictures, from the tokens before it.
    """

    code_logits: Tensor | None = None


class JanusForConditionalGeneration(PicturePrompts, TransformersJanus):
    """transformers' class of the same name, saved and opened as such; only methods are added."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        latents: Tensor | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run transformers' forward, and return logits of the codes of pictures to generate.

        Args:
            input_ids: (B, T). A picture to generate is `<begin_of_image>` and L times `GENERATION_TOKEN`.
            latents: (M, L) codes of these pictures, in reading order; None if there are none.
            past_key_values, cache: two names of one argument, as in `LlamaForCausalLM`.
            pixel_values, attention_mask, position_ids, inputs_embeds, labels, use_cache, logits_to_keep, **kwargs:
                as in transformers. With `latents`, `labels` are not used.

        Raises:
            ValueError: if the number of image tokens in the ids does not match the pictures, or latents are given
                without ids.
        """
        more = {"attention_mask": attention_mask, "position_ids": position_ids, "use_cache": use_cache, **kwargs}
        more[CACHE] = one_cache(past_key_values, cache)
        if latents is None:
            more |= {"pixel_values": pixel_values, "labels": labels, "logits_to_keep": logits_to_keep}
            return super().forward(input_ids=input_ids, inputs_embeds=inputs_embeds, **more)
        if input_ids is None:
            raise ValueError("latents need input_ids, which say where the pictures are; inputs_embeds do not")
        embeds = self.embed(input_ids, pixel_values, codes=latents)
        outputs = self.model.language_model(inputs_embeds=embeds, **more)
        states = outputs.last_hidden_state
        before = states[:, :-1][input_ids[:, 1:] == GENERATION_TOKEN]  # (M L, D), each followed by a code
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        return JanusOutput(
            logits=self.lm_head(states[:, keep]),
            hidden_states=outputs.hidden_states,
            code_logits=self.next_logits(before).unflatten(0, latents.shape),
        )

    @property
    def device(self) -> torch.device:
        """The device that the network computes on, also when its weights are offloaded."""
        return execution_device(self)

    def generate(
        self,
        inputs: Tensor | None = None,
        attention_mask: Tensor | None = None,
        logits_processor: LogitsProcessorList | None = None,
        *,
        generation_config: GenerationConfig | None = None,
        **options: Any,
    ) -> Any:
        """Run transformers' method; text with a complete configuration bypasses Janus' own override of it.

        The override sets guidance twice, which transformers warns about at every answer.
        """
        options |= {"attention_mask": attention_mask, "logits_processor": logits_processor}
        with cache_under_checkpointing(self.model.language_model):
            if generation_config is None or options.get("generation_mode", "text") != "text":
                return super().generate(inputs, generation_config=generation_config, **options)
            unguided = copy(generation_config)
            unguided.guidance_scale = 1.0
            options.pop("generation_mode", None)
            return GenerationMixin.generate(self, inputs, generation_config=unguided, **options)

    def _supports_mm_encoder_outputs(self) -> bool:
        """Return False: transformers would encode pictures before `PicturePrompts` inserts them into the prompt."""
        return False

    @property
    def num_understanding_tokens(self) -> int:
        """Number of image tokens of one input picture."""
        return int(self.config.vision_config.num_image_tokens)

    def see(self, pixel_values: Tensor) -> Tensor:
        """Return the embeddings that `embed` inserts for pictures: (N, 3, S, S) -> (N, tokens, D)."""
        pixels = pixel_values.to(self.model.vision_model.embeddings.patch_embedding.weight.dtype)
        seen = self.model.get_image_features(pixels, return_dict=True).pooler_output
        assert isinstance(seen, Tensor)
        return seen

    def embed(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        *,
        seen: Tensor | None = None,
        codes: Tensor | None = None,
    ) -> Tensor:
        """Return the input embeddings of text with pictures in it.

        Args:
            input_ids: (B, T); `image_token_id` at each token of an input picture, `GENERATION_TOKEN` at each token of
                one to generate.
            pixel_values: (N, 3, S, S), the input pictures of all rows in reading order.
            seen: output of `see` for these pictures, instead of `pixel_values`.
            codes: (M, L) codes of the pictures to generate, in reading order.

        Returns:
            (B, T, D): token embeddings, the tower's aligned features at an input picture's tokens, and the aligned
            embeddings of codes.

        Raises:
            ValueError: if the number of image tokens in the ids does not match the pictures.
        """
        embeds = self.get_input_embeddings()(input_ids.clamp(min=0))
        drawn = input_ids == GENERATION_TOKEN
        if int(drawn.sum()) != (0 if codes is None else codes.numel()):
            given = 0 if codes is None else codes.numel()
            raise ValueError(f"input_ids hold {int(drawn.sum())} tokens of pictures to generate; {given} were given")
        if codes is not None:
            embeds = embeds.masked_scatter(drawn[..., None], self.embed_codes(codes.flatten()).to(embeds.dtype))
        inside = input_ids == self.config.image_token_id
        seen = self.see(pixel_values) if pixel_values is not None and len(pixel_values) else seen
        count, size = 0 if seen is None else len(seen), self.num_understanding_tokens
        if int(inside.sum()) != count * size:
            raise ValueError(f"input_ids hold {int(inside.sum())} image tokens; {count} pictures of {size} were given")
        if seen is None:
            return embeds
        return embeds.masked_scatter(inside[..., None].expand_as(embeds), seen.to(embeds.dtype))

    @property
    def image_tokens(self) -> int:
        """Number of tokens of a generated picture, L."""
        return int(self.config.vq_config.num_patches) ** 2

    @property
    def drawn_size(self) -> int:
        """Side of a generated picture in pixels."""
        vq = self.config.vq_config
        return int(vq.num_patches * 2 ** (len(vq.channel_multiplier) - 1))

    def read(
        self, input_ids: Tensor, attention_mask: Tensor, *, seen: Tensor | None = None, codes: Tensor | None = None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Read prompts that are padded on the left.

        Args:
            input_ids: (B, T).
            attention_mask: (B, T), 0 at padding.
            seen, codes: features and codes of the pictures in the prompts; see `embed`.

        Returns:
            The last state, (B, D), and per LLM layer keys and values, (B, heads, T, head width).
        """
        positions = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
        llm = self.model.language_model
        layers = [RecordingLayer() for _ in llm.layers]
        pictures = seen is not None or codes is not None
        inputs = (
            {"inputs_embeds": self.embed(input_ids, seen=seen, codes=codes)} if pictures else {"input_ids": input_ids}
        )
        with cache_under_checkpointing(llm):
            outputs = llm(
                **inputs,
                attention_mask=attention_mask,
                position_ids=positions,
                **{CACHE: Cache(layers=layers)},
                use_cache=False,
            )
        return outputs.last_hidden_state[:, -1], [(layer.keys, layer.values) for layer in layers]

    def step(self, tokens: Tensor, cache: Cache, attention_mask: Tensor | None, positions: Tensor) -> Tensor:
        """Return the state after one more image token, computed by transformers' forward.

        Args:
            tokens: (B,) generated codes.
            cache: cache of the tokens before, to which this one is added.
            attention_mask: (B, T) over all tokens, this one included; None if none is hidden.
            positions: (B,) position of the token.

        Returns:
            (B, D).
        """
        llm = self.model.language_model
        with cache_under_checkpointing(llm):
            outputs = llm(
                inputs_embeds=self.embed_codes(tokens)[:, None],
                attention_mask=attention_mask,
                position_ids=positions[:, None],
                **{CACHE: cache},
                use_cache=False,
            )
        return outputs.last_hidden_state[:, -1]

    def embed_codes(self, tokens: Tensor) -> Tensor:
        """Return the LLM's input embeddings of generated codes: (B,) -> (B, D)."""
        embeds = self.prepare_embeddings_for_image_generation(tokens[:, None])[:, 0]
        assert isinstance(embeds, Tensor)
        return embeds

    def next_logits(self, states: Tensor) -> Tensor:
        """Return the logits of the next code: (B, D) -> (B, K)."""
        logits = self.model.generation_head(states)
        assert isinstance(logits, Tensor)
        return logits

    def decode(self, tokens: Tensor) -> Tensor:
        """Decode codes (B, L) to pixels (B, 3, S, S) in about [-1, 1], float32 and not clipped."""
        return self.model.vqmodel.decode(tokens).float()

    def encode(self, pixels: Tensor) -> Tensor:
        """Encode pixels (B, 3, S, S) in [-1, 1] to the codes (B, L) nearest by angle.

        transformers' own `vqmodel.encode` takes the nearest by distance; the codec was trained with both sides of the
        comparison scaled to length 1.
        """
        return code_distances(self.model.vqmodel, pixels)[1].argmin(dim=-1)


def cache_of(layers: list[tuple[Tensor, Tensor]], rows: Tensor) -> Cache:
    """Return a growing transformers cache that starts with the given rows, (R,) indices, of read prompts."""
    found = [DynamicLayer() for _ in layers]
    for layer, (keys, values) in zip(found, layers, strict=True):
        layer.update(keys[rows], values[rows])
    return Cache(layers=found)


def unconditional_ids(input_ids: Tensor, attention_mask: Tensor, pad_token_id: int) -> Tensor:
    """Return the prompts of the guidance rows, with visible pad tokens for all but the first and the last token.

    Args:
        input_ids: (B, T) padded on the left.
        attention_mask: (B, T).
        pad_token_id: the tokenizer's pad token.
    """
    empty = torch.full_like(input_ids, pad_token_id)
    empty[:, -1] = input_ids[:, -1]
    first = attention_mask.argmax(dim=1, keepdim=True)
    return empty.scatter(1, first, input_ids.gather(1, first))


def without_words(ids: list[int], pad: int) -> tuple[list[int], list[int]]:
    """Return the row of `unconditional_ids` for one prompt, and its positions (`Family.without_words`)."""
    row = torch.tensor([ids])
    return unconditional_ids(row, torch.ones_like(row), pad)[0].tolist(), list(range(len(ids)))
