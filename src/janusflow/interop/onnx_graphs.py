"""The ONNX graphs of a JanusFlow model: small modules around parts of the network, with their inputs.

    token_embeddings   input_ids -> inputs_embeds
    picture_encoder    pixel_values -> features: the embeddings at <begin_of_image> and the image tokens of a picture
    language_model     inputs_embeds and the keys and values of earlier tokens -> logits, keys, values
    velocity           latents, their time and a prompt's keys and values -> velocity: one evaluation of the ODE
    vae_decoder        latents -> pixels

Keys and values are those of all layers in one tensor, so that a prompt that `language_model` has read can be passed to
`velocity` unchanged.

Shapes: B rows, T new tokens, P tokens before, D width of the LLM, V vocabulary; K layers, g key-value heads of width d;
N pictures, (C, H, W) a latent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from janusflow.device import CPU
from janusflow.model import JanusFlowForConditionalGeneration
from janusflow.model.prefix import CACHE
from janusflow.vae import LatentCodec

BATCH, TOKENS, BEFORE = 2, 5, 3  # sizes of the examples that graphs are traced with; none is fixed in the graph


@dataclass(frozen=True)
class Graph:
    """A graph that becomes a file.

    Attributes:
        name: name of the file, without its suffix.
        module: computes the outputs from the inputs, in their order.
        inputs: example inputs, by name.
        outputs: names of the outputs.
        dynamic: for each input, the axes whose size is free, with their names.
    """

    name: str
    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    dynamic: Mapping[str, Mapping[int, str]]


class GrowingLayer(DynamicLayer):
    """A cache layer that starts with keys and values (B, g, P, d) and keeps what is added, (B, g, P + T, d)."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append the keys and values of the new tokens."""
        self.keys = torch.cat([self.keys, key_states], dim=-2)
        self.values = torch.cat([self.values, value_states], dim=-2)
        return self.keys, self.values


def run_llm(
    network: JanusFlowForConditionalGeneration,
    embeds: Tensor,
    positions: Tensor,
    seen: Tensor,
    layers: list[GrowingLayer],
) -> Tensor:
    """Return the last hidden states (B, T, D) of new tokens.

    Args:
        network: the network whose LLM runs.
        embeds: (B, T, D).
        positions: (B, T).
        seen: (B, T, P + T) bool, which tokens each new token attends to.
        layers: cache layers of the LLM with the tokens before; the new ones are added.
    """
    hidden = (~seen)[:, None].to(embeds.dtype) * torch.finfo(embeds.dtype).min
    outputs = network.language_model(
        inputs_embeds=embeds,
        attention_mask=hidden,
        position_ids=positions,
        use_cache=False,  # the layers keep what they are given
        **{CACHE: Cache(layers=layers)},
    )
    states: Tensor = outputs.last_hidden_state
    return states


def layers_of(keys: Tensor, values: Tensor) -> list[GrowingLayer]:
    """Return the cache layers of stacked keys and values, (K, B, g, P, d) each."""
    return [GrowingLayer(*layer) for layer in zip(keys.unbind(0), values.unbind(0), strict=True)]


class TokenEmbeddings(nn.Module):
    """input_ids (B, T) -> inputs_embeds (B, T, D)."""

    def __init__(self, network: JanusFlowForConditionalGeneration) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: Tensor) -> Tensor:
        """Look up the tokens."""
        embeds: Tensor = self.network.get_input_embeddings()(input_ids)
        return embeds


class PictureEncoder(nn.Module):
    """pixel_values (N, 3, S, S) in [-1, 1] -> features (N, 1 + tokens, D): f_enc, its aligner, and the embedding of the
    beginning."""

    def __init__(self, network: JanusFlowForConditionalGeneration) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Encode pictures."""
        features: Tensor = self.network.understanding_encoder(pixel_values)
        return features


class LanguageModel(nn.Module):
    """One pass of the LLM over new tokens, for prompts of both kinds and for each token of an answer."""

    def __init__(self, network: JanusFlowForConditionalGeneration) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor, past_keys: Tensor, past_values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Read new tokens.

        Args:
            inputs_embeds: (B, T, D) embeddings of the new tokens.
            attention_mask: (B, P + T) int64, 1 at tokens, 0 at padding. A token's position is the number of tokens
                before it.
            past_keys, past_values: (K, B, g, P, d) of the tokens before; P is 0 at the beginning.

        Returns:
            Logits (B, V) of the token that follows the last one; keys and values (K, B, g, P + T, d).
        """
        before = past_keys.shape[3]
        positions = (attention_mask.cumsum(-1) - 1).clamp(min=0)[:, before:]
        index = torch.arange(attention_mask.shape[1], device=inputs_embeds.device)
        causal = index[None, :] <= index[before:, None]  # (T, P + T)
        layers = layers_of(past_keys, past_values)
        seen = causal[None] & attention_mask.bool()[:, None]
        states = run_llm(self.network, inputs_embeds, positions, seen, layers)
        keys, values = (torch.stack([getattr(layer, name) for layer in layers]) for name in ("keys", "values"))
        return self.network.logits(states[:, -1]), keys, values


class Velocity(nn.Module):
    """One evaluation of v(x, t | prompt)."""

    def __init__(self, network: JanusFlowForConditionalGeneration) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, latents: Tensor, t: Tensor, keys: Tensor, values: Tensor, visible: Tensor, lengths: Tensor
    ) -> Tensor:
        """Evaluate the velocity.

        Args:
            latents: (B, C, H, W) x_t.
            t: (B,) in [0, 1], 0 noise and 1 picture.
            keys, values: (K, B, g, P, d) of the prompts, without the `<begin_of_image>` that the time token replaces.
            visible: (B, P) int64, 1 at the prompt's tokens that a row sees: all for the conditional velocity, only the
                first for the unconditional one.
            lengths: (B,) int64, number of prompt tokens, for both velocities.

        Returns:
            (B, C, H, W).
        """
        network = self.network
        encoded = network.generation_encoder(latents, t)
        embeds = torch.cat([encoded.time[:, None], encoded.tokens], dim=1)
        rows, new = embeds.shape[:2]
        index = torch.arange(new, device=latents.device)
        own = index[None, :] <= index[:, None]
        if network.config.image_attention != "causal":
            own = torch.ones_like(own)
        prompt = visible.bool()[:, None].expand(-1, new, -1)
        seen = torch.cat([prompt, own[None].expand(rows, -1, -1)], dim=-1)  # (B, 1 + L, P + 1 + L)
        states = run_llm(network, embeds, lengths[:, None] + index, seen, layers_of(keys, values))
        velocity: Tensor = network.generation_decoder(states[:, 1:], encoded.skip, encoded.time)
        return velocity


class VaeDecoder(nn.Module):
    """latents (N, C, H, W), scaled as the network generates them -> pixels (N, 3, height, width) in [-1, 1]."""

    def __init__(self, codec: LatentCodec) -> None:
        super().__init__()
        self.vae = codec.vae
        self.scale, self.shift = codec.vae.config.scaling_factor, codec.vae.config.shift_factor or 0.0

    def forward(self, latents: Tensor) -> Tensor:
        """Decode pictures."""
        pixels: Tensor = self.vae.decode(latents / self.scale + self.shift, return_dict=False)[0]
        return pixels.clamp(-1, 1)


def cache_shape(config: Any, rows: int, tokens: int) -> tuple[int, int, int, int, int]:
    """Return the shape (K, B, g, P, d) of the keys, and of the values, of B rows of P tokens."""
    text = config.text_config
    return text.num_hidden_layers, rows, text.num_key_value_heads, tokens, text.head_dim


def graphs_of(network: JanusFlowForConditionalGeneration, codec: LatentCodec | None) -> list[Graph]:
    """Return the graphs of a model.

    Args:
        network: the network, in float32.
        codec: its VAE; without one there is no `vae_decoder`.
    """
    config, rows = network.config, {0: "batch"}
    latent = (BATCH, config.latent_channels, config.latent_size, config.latent_size)
    ids = torch.ones(BATCH, TOKENS, dtype=torch.int64, device=CPU)
    width, side = config.text_config.hidden_size, config.vision_config.image_size
    before = torch.zeros(cache_shape(config, BATCH, BEFORE), device=CPU)
    cached = {1: "batch", 3: "tokens_before"}
    graphs = [
        Graph(
            "token_embeddings",
            TokenEmbeddings(network),
            {"input_ids": ids},
            ("inputs_embeds",),
            {"input_ids": {0: "batch", 1: "tokens"}},
        ),
        Graph(
            "picture_encoder",
            PictureEncoder(network),
            {"pixel_values": torch.zeros(BATCH, 3, side, side, device=CPU)},
            ("features",),
            {"pixel_values": {0: "pictures"}},
        ),
        Graph(
            "language_model",
            LanguageModel(network),
            {
                "inputs_embeds": torch.zeros(BATCH, TOKENS, width, device=CPU),
                "attention_mask": torch.ones(BATCH, BEFORE + TOKENS, dtype=torch.int64, device=CPU),
                "past_keys": before,
                "past_values": before.clone(),
            },
            ("logits", "keys", "values"),
            {
                "inputs_embeds": {0: "batch", 1: "tokens"},
                "attention_mask": {0: "batch", 1: "all_tokens"},
                "past_keys": cached,
                "past_values": cached,
            },
        ),
        Graph(
            "velocity",
            Velocity(network),
            {
                "latents": torch.zeros(latent, device=CPU),
                "t": torch.zeros(BATCH, device=CPU),
                "keys": before,
                "values": before.clone(),
                "visible": torch.ones(BATCH, BEFORE, dtype=torch.int64, device=CPU),
                "lengths": torch.full((BATCH,), BEFORE, device=CPU),
            },
            ("velocity",),
            {
                "latents": rows,
                "t": rows,
                "keys": cached,
                "values": cached,
                "visible": {0: "batch", 1: "tokens_before"},
                "lengths": rows,
            },
        ),
    ]
    if codec is not None:
        latents = torch.zeros(latent, device=CPU)
        graphs.append(
            Graph("vae_decoder", VaeDecoder(codec), {"latents": latents}, ("pixels",), {"latents": {0: "pictures"}})
        )
    return graphs
