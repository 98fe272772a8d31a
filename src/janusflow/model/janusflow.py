"""The network: one LLM that reads text, input pictures and noisy latents.

    text out:   embed(ids, pixels) -> LLM -> logits
    image out:  encode_prompts(ids) -> prefix; velocity(x, t, prefix): g_enc -> LLM -> g_dec

Shapes: B rows, T tokens, D width of the LLM, V vocabulary, N pictures, (C, H, W) a latent, L its image tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn
from transformers import Cache, GenerationMixin, LlamaModel, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from janusflow.config import JanusFlowConfig
from janusflow.device import execution_device
from janusflow.model.attention import PACKED as PACKED  # registers it
from janusflow.model.convnext import GlobalResponseNorm
from janusflow.model.generation_decoder import GenerationDecoder
from janusflow.model.generation_encoder import EncodedLatent, GenerationEncoder
from janusflow.model.inputs import check_inputs
from janusflow.model.llama import run_layers, runs_plainly
from janusflow.model.picture_prompts import PicturePrompts
from janusflow.model.prefix import (
    CACHE,
    PromptPrefix,
    RecordingLayer,
    attend_after,
    attend_and_record,
    cache_under_checkpointing,
    one_cache,
)
from janusflow.model.understanding_encoder import UnderstandingEncoder

GENERATION_TOKEN = -1  # in ids, a token of a picture to generate; no tokenizer has it


@dataclass
class JanusFlowOutput(CausalLMOutputWithPast):
    """Output of `forward`.

    Attributes:
        velocity: (M, C, H, W) float32, velocity of the latents to generate.
    """

    velocity: Tensor | None = None


class JanusFlowForConditionalGeneration(PicturePrompts, PreTrainedModel, GenerationMixin):
    """JanusFlow (arXiv 2411.07975) as a transformers model.

    `engine/text.py` or transformers' `generate` produces text; `engine/jobs.py` integrates `velocity` to a picture.
    """

    config: JanusFlowConfig
    config_class = JanusFlowConfig
    base_model_prefix = "language_model"
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    output_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _no_split_modules: ClassVar = ["LlamaDecoderLayer", "SiglipEncoderLayer", "SiglipVisionEmbeddings", "ConvNextBlock"]
    _skip_keys_device_placement = ("past_key_values", "cache")
    encode_pixels: Callable[[Tensor], Tensor] | None = None
    """The VAE's encoder, (N, 3, S, S) -> (N, C, h, w), which is not part of the network. The pipeline sets it if
    `config.understanding_encoder` reads latents."""

    def __init__(self, config: JanusFlowConfig) -> None:
        super().__init__(config)
        self.understanding_encoder = UnderstandingEncoder(config)
        self.generation_encoder = GenerationEncoder(config)
        self.language_model = LlamaModel(config.text_config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.generation_decoder = GenerationDecoder(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, GlobalResponseNorm):
            init.zeros_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, UnderstandingEncoder):
            init.normal_(module.begin_embedding, std=self.config.text_config.initializer_range)

    @property
    def device(self) -> torch.device:
        """The device that the network computes on, also when its weights are offloaded."""
        return execution_device(self)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.language_model.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.language_model.embed_tokens = value

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        self.lm_head = new_embeddings

    # --- text out ---------------------------------------------------------------------------------------------------

    @property
    def num_understanding_tokens(self) -> int:
        """Number of image tokens of one input picture."""
        return self.config.num_understanding_tokens

    def see(self, pixel_values: Tensor) -> Tensor:
        """Return the embeddings that `embed` inserts for pictures: (N, 3, S, S) -> (N, 1 + tokens, D)."""
        return self._see(pixel_values, self.understanding_encoder.begin_embedding.dtype)

    def _see(self, pixel_values: Tensor, dtype: torch.dtype) -> Tensor:
        shared = None
        if self.config.understanding_encoder == "siglip":
            pictures = pixel_values.to(dtype)
        elif self.encode_pixels is None:
            raise ValueError("this network understands the VAE's latents; open it with JanusFlow.from_pretrained")
        else:
            pictures = self.encode_pixels(pixel_values).clone().to(pixel_values.device)  # not an inference tensor
            shared = self.generation_encoder if self.config.understanding_encoder == "shared" else None
        seen = self.understanding_encoder(pictures, shared)
        assert isinstance(seen, Tensor)
        return seen

    def embed(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        encoded: EncodedLatent | None = None,
        *,
        seen: Tensor | None = None,
    ) -> Tensor:
        """Return the input embeddings of text with pictures in it.

        Args:
            input_ids: (B, T). Each picture is `<begin_of_image>` and its image tokens: `image_token_id` for an input
                picture, `GENERATION_TOKEN` for one to generate.
            pixel_values: (N, 3, S, S), the input pictures of all rows in reading order.
            encoded: the latents to generate, in reading order.
            seen: output of `see` for the input pictures, instead of `pixel_values`.

        Returns:
            (B, T, D): token embeddings; f_enc's output at the tokens of an input picture and the begin-of-understanding
            embedding at its `<begin_of_image>`; g_enc's output and the time embedding for one to generate.

        Raises:
            ValueError: if the number of image tokens in the ids does not match the pictures.
        """
        embeds = self.get_input_embeddings()(input_ids.clamp(min=0))
        if pixel_values is not None:
            seen = self._see(pixel_values, embeds.dtype)
        drawn = None if encoded is None else torch.cat([encoded.time[:, None], encoded.tokens], dim=1)
        embeds = self._lay(embeds, input_ids, self.config.image_token_id, seen)
        return self._lay(embeds, input_ids, GENERATION_TOKEN, drawn)

    def _lay(self, embeds: Tensor, input_ids: Tensor, token: int, pictures: Tensor | None) -> Tensor:
        """Insert pictures, (N, 1 + tokens, D), at each run of `token` and the `<begin_of_image>` before it."""
        inside = input_ids == token
        count, size = (0, 0) if pictures is None else (pictures.shape[0], pictures.shape[1] - 1)
        if int(inside.sum()) != count * size:
            raise ValueError(f"input_ids hold {int(inside.sum())} image tokens; {count} pictures of {size} were given")
        if pictures is None or not count:
            return embeds
        starts = torch.zeros_like(inside)
        starts[:, :-1] = inside[:, 1:] & (input_ids[:, :-1] == self.config.begin_image_token_id)
        if int(starts.sum()) != count:
            raise ValueError(f"{int(starts.sum())} <begin_of_image> tokens stand before image tokens, not {count}")
        return embeds.masked_scatter((inside | starts)[..., None].expand_as(embeds), pictures.to(embeds.dtype))

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Run transformers' method, and keep its cache also under gradient checkpointing."""
        with cache_under_checkpointing(self.language_model):
            return super().generate(*args, **kwargs)

    def logits(self, states: Tensor) -> Tensor:
        """Return next-token logits of the last hidden states: (..., D) -> (..., V)."""
        return self.lm_head(states)

    @can_return_tuple
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
        t: Tensor | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> JanusFlowOutput:
        """Return next-token logits as transformers' vision-language models do, and velocities of latents.

        Args:
            input_ids: (B, T), or `inputs_embeds`: (B, T, D), exactly one of them.
            pixel_values: (N, 3, S, S), the pictures that `input_ids` contain tokens for.
            attention_mask: (B, T) 1 at tokens and 0 at (left) padding.
            position_ids, use_cache, logits_to_keep: as in `LlamaForCausalLM`.
            past_key_values, cache: two names of one argument, also as in `LlamaForCausalLM`.
            labels: (B, T) target ids, -100 where no loss is computed; adds `loss`, the mean next-token cross-entropy,
                to the output. With `num_items_in_batch`, which transformers' `Trainer` passes when it accumulates
                gradients, `loss` is the sum over this batch divided by that number.
            latents: (M, C, H, W) x_t of the pictures to generate (runs of `GENERATION_TOKEN` in `input_ids`).
            t: (M,) their times.
            **kwargs: `num_items_in_batch`, those of `transformers.utils.TransformersKwargs`, and `documents` of a
                packed row (`model/attention.py`).

        Raises:
            ValueError: for arguments that do not go together, or an unknown one.
        """
        check_inputs(input_ids, inputs_embeds, pixel_values, latents, t, kwargs)
        if latents is not None and self.config.image_attention != "causal" and kwargs.get("documents") is None:
            raise ValueError("bidirectional image tokens are generated by velocity, and trained in packed rows")
        items = kwargs.pop("num_items_in_batch", None)
        encoded = None if latents is None or t is None else self.generation_encoder(latents, t)
        cache = one_cache(past_key_values, cache)
        decoding = cache is not None and cache.get_seq_length() > 0
        if input_ids is None:
            embeds = inputs_embeds
        elif decoding and pixel_values is None and t is None:  # any token that the model wrote is read as a token
            embeds = self.get_input_embeddings()(input_ids)
        else:
            embeds = self.embed(input_ids, pixel_values, encoded)
        outputs = self.language_model(
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=use_cache,
            **{CACHE: cache},
            **kwargs,
        )
        states = outputs.last_hidden_state
        velocity = None
        if encoded is not None and input_ids is not None:
            at_pictures = rearrange(states[input_ids == GENERATION_TOKEN], "(m l) d -> m l d", m=len(encoded.tokens))
            velocity = self.generation_decoder(at_pictures, encoded.skip, encoded.time)
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.logits(states[:, keep])
        loss = None
        if labels is not None:
            vocabulary = self.config.text_config.vocab_size
            loss = self.loss_function(logits, labels, vocab_size=vocabulary, num_items_in_batch=items)
        return JanusFlowOutput(
            loss=loss,
            logits=logits,
            **{CACHE: getattr(outputs, CACHE)},
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            velocity=velocity,
        )

    # --- image out --------------------------------------------------------------------------------------------------

    def encode_prompts(self, input_ids: Tensor, attention_mask: Tensor) -> PromptPrefix:
        """Read prompts once, for any number of steps and pictures.

        Gradients flow through the prefix, also under gradient checkpointing.

        Args:
            input_ids: (B, P) ids up to, but without, the `<begin_of_image>` that the time token replaces; padded on
                the right.
            attention_mask: (B, P) 1 at tokens, 0 at padding.
        """
        llm, embeds = self.language_model, self.get_input_embeddings()(input_ids)
        read: list[tuple[Tensor, Tensor]] = []
        if runs_plainly(llm):
            rows, tokens = input_ids.shape
            positions = torch.arange(tokens, device=embeds.device).repeat(rows)
            nothing = positions[:0]
            run_layers(llm, embeds.flatten(0, 1), positions, attend_and_record(rows, read), keep=nothing)
        else:
            layers = [RecordingLayer() for _ in llm.layers]
            with cache_under_checkpointing(llm):
                llm(inputs_embeds=embeds, use_cache=False, **{CACHE: Cache(layers=layers)})
            read = [(layer.keys, layer.values) for layer in layers]
        return PromptPrefix(read, visible=attention_mask, lengths=attention_mask.sum(dim=1))

    def velocity(self, x: Tensor, t: Tensor, prefix: PromptPrefix, of: Tensor | None = None) -> Tensor:
        """Return v(x, t | prompt), the velocity of the latent from noise (t = 0) to data (t = 1).

        Args:
            x: (N, C, H, W) latents z_t.
            t: (N,) in [0, 1].
            prefix: the prompts of B rows.
            of: (B,) index of each row's latent, so that rows that differ only in their prompts share its encoding;
                None if there is one row per latent.

        Returns:
            (B, C, H, W) in x's dtype.
        """
        encoded = self.generation_encoder(x, t)
        embeds, time, skip = torch.cat([encoded.time[:, None], encoded.tokens], dim=1), encoded.time, encoded.skip
        if of is not None:
            embeds, time, skip = embeds[of], time[of], skip[of]  # (B, 1 + L, D), (B, D), (B, C', h, w)
        llm, new, causal = self.language_model, embeds.shape[1], self.config.image_attention == "causal"
        positions = prefix.lengths[:, None] + torch.arange(new, device=x.device)
        if runs_plainly(llm):
            attend = attend_after(prefix, causal=causal)
            states = run_layers(llm, embeds.flatten(0, 1), positions.flatten(), attend).view_as(embeds)
        else:
            mask = torch.cat([prefix.visible, prefix.visible.new_ones(len(embeds), new)], dim=1)
            if not causal:  # (B, 1, 1 + L, P + 1 + L), added to the scores
                hidden = (1 - mask[:, None, None].to(embeds.dtype)) * torch.finfo(embeds.dtype).min
                mask = hidden.expand(-1, -1, new, -1)
            with cache_under_checkpointing(llm):
                states = llm(
                    inputs_embeds=embeds,
                    attention_mask=mask,
                    position_ids=positions,
                    **{CACHE: prefix.cache()},
                    use_cache=False,  # nothing is added; under gradient checkpointing, True only causes a warning
                ).last_hidden_state
        return self.generation_decoder(states[:, 1:], skip, time).to(x.dtype)
