"""The prompt, read once: keys and values of its tokens, which every step of the ODE attends to and none changes.

Shapes: R rows, P prompt tokens (padded on the right), heads and head width as the LLM has them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import Cache, LlamaModel
from transformers.cache_utils import DynamicLayer


class FrozenLayer(DynamicLayer):
    """A cache layer that shows what it holds before the new keys and values, and keeps nothing of the new ones."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return torch.cat([self.keys, key_states], dim=-2), torch.cat([self.values, value_states], dim=-2)


class RecordingLayer(DynamicLayer):
    """A cache layer for one pass over a prompt: it keeps the keys and values that it gets, and adds nothing to them.

    The second run of a layer under gradient checkpointing therefore sees what the first one saw.
    """

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
        return key_states, value_states


@contextmanager
def cache_under_checkpointing(llm: LlamaModel) -> Iterator[None]:
    """Keeps the cache of an LLM that is trained with gradient checkpointing, for the calls in the body.

    transformers drops the cache then, because a layer that runs again for its gradients would write into it twice. The
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


@dataclass
class PromptPrefix:
    """Keys and values of R prompts, and which of them a row may see.

    Attributes:
        layers: per LLM layer, keys and values of shape (R, heads, P, head width).
        visible: (R, P) 1 where the row attends to the prompt token, 0 at padding and at masked tokens.
        lengths: (R,) number of the prompt's tokens: the position id of the time token that follows.
    """

    layers: list[tuple[Tensor, Tensor]]
    visible: Tensor
    lengths: Tensor

    def cache(self) -> Cache:
        """A transformers cache over this prefix that stays as it is, however often the LLM runs on it."""
        return Cache(layers=[FrozenLayer(keys, values) for keys, values in self.layers])

    def select(self, rows: Tensor) -> PromptPrefix:
        """The prefix with the given rows, (R',) indices, in that order; a row may be taken several times."""
        layers = [(keys[rows], values[rows]) for keys, values in self.layers]
        return PromptPrefix(layers, self.visible[rows], self.lengths[rows])

    def unconditional(self) -> PromptPrefix:
        """The same rows for the empty prompt: BOS alone stays visible and the positions stay those of the prompt.

        Attention is causal, so the first column of a prompt's keys and values is that of BOS alone; only the mask
        changes and the tensors are shared.
        """
        visible = torch.zeros_like(self.visible)
        visible[:, 0] = 1
        return PromptPrefix(self.layers, visible, self.lengths)

    @staticmethod
    def concatenate(first: PromptPrefix, second: PromptPrefix) -> PromptPrefix:
        """Rows of `first`, then rows of `second`; both must be padded to the same P."""
        layers = [
            (torch.cat([k1, k2]), torch.cat([v1, v2]))
            for (k1, v1), (k2, v2) in zip(first.layers, second.layers, strict=True)
        ]
        visible = torch.cat([first.visible, second.visible])
        return PromptPrefix(layers, visible, torch.cat([first.lengths, second.lengths]))
