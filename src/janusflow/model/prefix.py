"""The prompt, read once: keys and values of its tokens, which every step of the ODE attends to and none changes.

Shapes: R rows, P prompt tokens (padded on the right), heads and head width as in the LLM.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import Cache, LlamaModel
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import CausalLMOutputWithPast

from janusflow.model.llama import Attend, causal_attention, full_attention

CACHE = next(entry.name for entry in fields(CausalLMOutputWithPast) if entry.name in ("cache", "past_key_values"))
"""transformers' name for the cache in arguments and results of its models: `cache` since 5.24."""


def one_cache(past_key_values: Cache | None, cache: Cache | None) -> Cache | None:
    """Return the cache that was given under either of its names.

    Raises:
        ValueError: if both were given.
    """
    if past_key_values is not None and cache is not None:
        raise ValueError("past_key_values and cache were given, which are two names of one argument; give one")
    return past_key_values if cache is None else cache


class FrozenLayer(DynamicLayer):
    """A cache layer that returns its contents followed by the new keys and values, and does not keep the new ones."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return torch.cat([self.keys, key_states], dim=-2), torch.cat([self.values, value_states], dim=-2)


class RecordingLayer(DynamicLayer):
    """A cache layer for one pass over a prompt: it keeps the keys and values that it gets, and adds nothing to them.

    Under gradient checkpointing, the second run of a layer therefore sees what the first one saw.
    """

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
        return key_states, value_states


@contextmanager
def cache_under_checkpointing(llm: LlamaModel) -> Iterator[None]:
    """Keep the cache of an LLM that is trained with gradient checkpointing, for the calls in the body.

    transformers drops this cache, because a layer that runs again for its gradients would write to it twice. The cache
    layers above can be read and recorded any number of times. The checkpoints in the body are not reentrant: gradients
    also flow through the cache, which is not an argument of the checkpointed layer.
    """
    layers = [layer for layer in llm.layers if layer.training and layer.gradient_checkpointing]
    before = [(layer._can_checkpoint_with_cache, layer._gradient_checkpointing_func) for layer in layers]
    for layer in layers:
        layer._can_checkpoint_with_cache = True
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
    try:
        yield
    finally:
        for layer, (allowed, function) in zip(layers, before, strict=True):
            layer._can_checkpoint_with_cache, layer._gradient_checkpointing_func = allowed, function


@dataclass(eq=False)
class PromptPrefix:
    """Keys and values of R prompts, and which of them a row may see.

    Attributes:
        layers: per LLM layer, keys and values of shape (R, heads, P, head width).
        visible: (R, P) 1 where the row attends to the prompt token, 0 at padding and at masked tokens.
        lengths: (R,) number of prompt tokens, which is the position id of the time token that follows.
    """

    layers: list[tuple[Tensor, Tensor]]
    visible: Tensor
    lengths: Tensor

    def cache(self) -> Cache:
        """Return a transformers cache of this prefix that does not change, however often the LLM runs on it."""
        return Cache(layers=[FrozenLayer(keys, values) for keys, values in self.layers])

    def select(self, rows: Tensor) -> PromptPrefix:
        """Return the prefix with the given rows, (R',) indices, in that order; a row may be taken several times."""
        layers = [(keys[rows], values[rows]) for keys, values in self.layers]
        return PromptPrefix(layers, self.visible[rows], self.lengths[rows])

    def unconditional(self) -> PromptPrefix:
        """Return the same rows for the empty prompt: only BOS is left, and the positions stay those of the prompt.

        Attention is causal, so the first column of a prompt's keys and values is that of BOS without the rest.
        """
        layers = [(keys[:, :, :1], values[:, :, :1]) for keys, values in self.layers]
        return PromptPrefix(layers, torch.ones_like(self.visible[:, :1]), self.lengths)

    @staticmethod
    def concatenate(*parts: PromptPrefix) -> PromptPrefix:
        """Return the rows of all parts, padded on the right to the longest P."""
        widest = max(part.visible.shape[1] for part in parts)

        def padded(tensors: Sequence[Tensor], *, tokens_from_end: int) -> Tensor:
            tail = (0, 0) * (tokens_from_end - 1)
            return torch.cat([F.pad(x, (*tail, 0, widest - x.shape[-tokens_from_end])) for x in tensors])

        layers = [
            (padded([keys for keys, _ in layer], tokens_from_end=2), padded([v for _, v in layer], tokens_from_end=2))
            for layer in zip(*(part.layers for part in parts), strict=True)
        ]
        visible = padded([part.visible for part in parts], tokens_from_end=1)
        return PromptPrefix(layers, visible, torch.cat([part.lengths for part in parts]))

    @cached_property
    def groups(self) -> list[PrefixGroup]:
        """The rows grouped by the number of prompt tokens that they see, without the hidden tokens."""
        counts = self.visible.sum(dim=1)
        groups = []
        for count in counts.unique().tolist():
            rows = (counts == count).nonzero()[:, 0]
            columns = self.visible[rows].nonzero()[:, 1].view(len(rows), count)
            layers = [
                (keys[rows[:, None], :, columns].transpose(1, 2), values[rows[:, None], :, columns].transpose(1, 2))
                for keys, values in self.layers
            ]
            first, last = int(rows[0]), int(rows[-1])
            whole = last - first + 1 == len(rows)  # a slice copies nothing
            groups.append(PrefixGroup(slice(first, last + 1) if whole else rows, layers))
        return groups


@dataclass(frozen=True)
class PrefixGroup:
    """The n rows that see the same number P of prompt tokens; per layer keys and values (n, heads, P, d)."""

    rows: Tensor | slice
    layers: list[tuple[Tensor, Tensor]]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, causal: bool = True) -> Tensor:
        """Attend from new tokens to the group's prompts and, causally or not, to each other: (n, T, heads, d) each."""
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        keys, values = self.layers[layer]
        attention = causal_attention if causal else full_attention
        return attention(q, torch.cat([keys, k.to(keys)], 2), torch.cat([values, v], 2)).transpose(1, 2)


def attend_after(prefix: PromptPrefix, *, causal: bool = True) -> Attend:
    """Return the attention of a pass over R rows of T new tokens each.

    Every row sees its prompt and its own past, or with `causal=False` all of its own tokens.
    """
    groups = prefix.groups

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (part.unflatten(0, (len(prefix.lengths), -1)) for part in (q, k, v))
        q = q.to(v.dtype)
        if len(groups) == 1:
            return groups[0].attend(layer, q, k, v, causal=causal).flatten(0, 1)
        out = torch.empty_like(q)
        for group in groups:
            out[group.rows] = group.attend(layer, q[group.rows], k[group.rows], v[group.rows], causal=causal)
        return out.flatten(0, 1)

    return attend


def attend_and_record(rows: int, layers: list[tuple[Tensor, Tensor]]) -> Attend:
    """Return causal attention of R rows of T tokens with none before; it appends each layer's keys and values."""

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (part.unflatten(0, (rows, -1)).transpose(1, 2).contiguous() for part in (q, k, v))
        layers.append((k.to(v.dtype), v))
        return causal_attention(q.to(v.dtype), *layers[-1]).transpose(1, 2).flatten(0, 1)

    return attend
