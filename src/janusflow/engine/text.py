"""Token-by-token text decoding: keys and values in fixed rows, prompts kept for the next turn, pictures encoded once.

    slots = Slots(llm, rows=2, room=600)
    states = slots.read([first_embeds, second_embeds])    # prefill, packed
    states = slots.step(embed(states.argmax(...)))         # one token per row

A scheduler lets conversations join and leave: `resize` makes room, `read` fills new rows, `move` closes the gap that a
conversation left, and `step` advances the first rows.

Shapes: B conversations, T tokens, D width, g key-value heads of width d, S tokens that fit into a row.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaModel

from janusflow.model.graphs import Graphed
from janusflow.model.kernels import kernels_of
from janusflow.model.llama import causal_attention, run_layers, runs_plainly

KEPT_TOKENS = 4096  # of past conversations: 0.8 GB in bfloat16 for the 1.3B model
KEPT_PICTURES = 16
PREFILL_TOKENS = 8192  # processed at once

Layers = list[tuple[Tensor, Tensor]]


def plain_llm(network: Any) -> LlamaModel | None:
    """Return the network's LLM if our own loop can run it and pictures can be encoded separately (`see`).

    Otherwise the result is None, and transformers' `generate` decodes.
    """
    llm = network.get_decoder() if hasattr(network, "see") else None
    return llm if isinstance(llm, LlamaModel) and runs_plainly(llm) else None


class Slots:
    """Keys and values of B conversations, each with its own number of tokens.

    Args:
        llm: reads and continues them.
        rows: number of conversations, B.
        room: S, tokens of the longest conversation with its answer.
    """

    def __init__(self, llm: LlamaModel, rows: int, room: int) -> None:
        config, weight = llm.config, llm.embed_tokens.weight
        heads, width = config.num_key_value_heads, llm.layers[0].self_attn.head_dim
        self.llm, self.lengths = llm, [0] * rows
        graphs = kernels_of(llm).graphs
        # A NaN at a hidden position would spread through the products.
        make = weight.new_empty if rows == 1 and not graphs else weight.new_zeros
        shape = (rows, heads, room, width)
        self.layers: Layers = [(make(shape), make(shape)) for _ in range(config.num_hidden_layers)]
        self._graphed = self._graph(room) if graphs else None

    def _graph(self, room: int) -> Graphed:
        return Graphed(partial(_step, self.llm, self.layers, longest=room, ragged=True))

    def restore(self, row: int, layers: Layers) -> None:
        """Fill an empty row with the keys and values of its first tokens, (g, T, d) each."""
        for (keys, values), (old_keys, old_values) in zip(self.layers, layers, strict=True):
            self.lengths[row] = old_keys.shape[1]
            keys[row, :, : self.lengths[row]], values[row, :, : self.lengths[row]] = old_keys, old_values

    def forget(self, row: int, tokens: int) -> None:
        """Drop the last tokens of a row, as if they had not been read."""
        self.lengths[row] -= tokens

    @property
    def room(self) -> int:
        """S, tokens that fit into a row."""
        return self.layers[0][0].shape[2]

    def resize(self, rows: int, room: int) -> None:
        """Resize to `rows` conversations of up to `room` tokens. Remaining rows keep what was read."""
        lengths = (self.lengths + [0] * rows)[:rows]
        for index, pair in enumerate(self.layers):
            made = []
            for old in pair:
                new = old.new_zeros(rows, old.shape[1], room, old.shape[3])
                for row, length in enumerate(lengths):
                    if length:
                        new[row, :, :length] = old[row, :, :length]
                made.append(new)
            self.layers[index] = (made[0], made[1])
        self.lengths = lengths
        if self._graphed is not None:
            self._graphed = self._graph(room)

    def move(self, row: int, to: int) -> None:
        """Move a conversation to the row of another one, which is dropped; its own row is empty afterwards."""
        if row != to:
            self.restore(
                to,
                [
                    (keys[row, :, : self.lengths[row]], values[row, :, : self.lengths[row]])
                    for keys, values in self.layers
                ],
            )
        self.lengths[row] = 0

    def kept(self, row: int) -> Layers:
        """Return a copy of a row's keys and values, (g, T, d) each."""
        length = self.lengths[row]
        return [(keys[row, :, :length].clone(), values[row, :, :length].clone()) for keys, values in self.layers]

    def read(self, embeds: Sequence[Tensor], rows: Sequence[int] | None = None, *, every: bool = False) -> Tensor:
        """Read more tokens of some rows, (T, D) each with its own T, and return the last state of each.

        Args:
            embeds: embeddings that each row reads.
            rows: the rows; all by default.
            every: whether to return the states of all tokens instead, one row after the other.

        Returns:
            (len(embeds), D), or (sum of T, D) with `every`.
        """
        sizes, rows = [len(one) for one in embeds], range(len(embeds)) if rows is None else rows
        parts: list[list[int]] = [[]]
        for number, size in enumerate(sizes):
            if parts[-1] and sum(sizes[other] for other in parts[-1]) + size > PREFILL_TOKENS:
                parts.append([])
            parts[-1].append(number)
        return torch.cat([self._read([rows[n] for n in part], [embeds[n] for n in part], every) for part in parts])

    def _read(self, rows: list[int], embeds: list[Tensor], every: bool) -> Tensor:
        device, sizes = embeds[0].device, [len(one) for one in embeds]
        before = [self.lengths[row] for row in rows]
        positions = torch.cat([torch.arange(n, n + t, device=device) for n, t in zip(before, sizes, strict=True)])

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            all_keys, all_values = self.layers[layer]
            seen = []
            spans = zip(rows, before, *(part.to(all_keys.dtype).split(sizes) for part in (q, k, v)), strict=True)
            for row, start, queries, new_keys, new_values in spans:
                end = start + len(queries)
                all_keys[row, :, start:end] = new_keys.transpose(0, 1)
                all_values[row, :, start:end] = new_values.transpose(0, 1)
                found = causal_attention(
                    queries.transpose(0, 1)[None], all_keys[row, None, :, :end], all_values[row, None, :, :end]
                )
                seen.append(found[0].transpose(0, 1))
            return torch.cat(seen)

        last = None if every else torch.tensor(list(itertools.accumulate(sizes)), device=device) - 1
        states = run_layers(self.llm, torch.cat(embeds), positions, attend, keep=last)
        for row, size in zip(rows, sizes, strict=True):
            self.lengths[row] += size
        return states

    def step(self, embeds: Tensor) -> Tensor:
        """Read one more token of each of the first n rows, (n, D), and return its state, (n, D)."""
        before = self.lengths[: len(embeds)]
        if self._graphed is not None:  # runs all rows; what it writes after the others' tokens is overwritten later
            padded = F.pad(embeds, (0, 0, 0, len(self.lengths) - len(embeds)))
            lengths = torch.tensor(self.lengths, device=embeds.device).clamp(max=self.room - 1)
            states = self._graphed(padded, lengths)[: len(embeds)]
        else:
            lengths, ragged = torch.tensor(before, device=embeds.device), len(set(before)) > 1
            states = _step(self.llm, self.layers, embeds, lengths, longest=max(before) + 1, ragged=ragged)
        self.lengths[: len(before)] = [length + 1 for length in before]
        return states


def _step(llm: LlamaModel, layers: Layers, embeds: Tensor, lengths: Tensor, *, longest: int, ragged: bool) -> Tensor:
    """Run one more token of each of the first n rows, (n, D) -> (n, D), after `lengths` (n,) tokens of each.

    A row attends to its own tokens, which are among the first `longest`; unless `ragged`, to all of these.
    """
    rows = torch.arange(len(lengths), device=embeds.device)
    mask = None
    if ragged:
        mask = (torch.arange(longest, device=embeds.device) <= lengths[:, None])[:, None, None]  # (B, 1, 1, S)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = layers[layer]
        keys[rows, :, lengths], values[rows, :, lengths] = k.to(keys.dtype), v.to(keys.dtype)
        seen = F.scaled_dot_product_attention(
            q[:, :, None].to(keys.dtype),
            keys[: len(lengths), :, :longest],
            values[: len(lengths), :, :longest],
            attn_mask=mask,
            enable_gqa=q.shape[1] != keys.shape[1],
        )
        return seen[:, :, 0]

    return run_layers(llm, embeds, lengths, attend)


@dataclass
class Memory:
    """What one model keeps between calls: the conversations that it read and the pictures that it encoded.

    Both are valid only for the weights that they were computed with. Several threads may use it at once.
    """

    weights: str = ""
    _turns: OrderedDict[bytes, Layers] = field(default_factory=OrderedDict)  # by int64 ids, least recently used first
    _pictures: OrderedDict[bytes, Tensor] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def hold_for(self, weights: str) -> None:
        """Forget what was computed with weights of another digest."""
        with self._lock:
            if weights != self.weights:
                self._turns.clear()
                self._pictures.clear()
                self.weights = weights

    def pictures(self, pixel_values: Tensor, encode: Callable[[Tensor], Tensor]) -> tuple[Tensor, list[int]]:
        """Encode (N, 3, S, S) pixels to (N, tokens, D); also return a number that identifies each content.

        Only pictures that are not known yet are encoded.
        """
        names = [hashlib.sha256(one.cpu().float().numpy().tobytes()).digest() for one in pixel_values]
        with self._lock:
            known = {name: self._pictures[name] for name in names if name in self._pictures}
        fresh = list(dict.fromkeys(name for name in names if name not in known))
        if fresh:
            made = encode(pixel_values[[names.index(name) for name in fresh]])
            known |= dict(zip(fresh, made, strict=True))
        with self._lock:
            for name in names:
                self._pictures[name] = known[name]
                self._pictures.move_to_end(name)
            while len(self._pictures) > KEPT_PICTURES:
                self._pictures.popitem(last=False)
        numbers = [int.from_bytes(name[:7], "big") for name in names]
        return torch.stack([known[name] for name in names]), numbers

    def recall(self, ids: np.ndarray) -> Layers | None:
        """Return keys and values of the longest known start of a conversation that leaves some token to read."""
        best, length = None, 0
        with self._lock:
            for name in self._turns:
                old = np.frombuffer(name, np.int64)
                size = min(len(old), len(ids) - 1)
                differing = np.flatnonzero(old[:size] != ids[:size])
                same = int(differing[0]) if len(differing) else size
                if same > length:
                    best, length = name, same
            if best is None:
                return None
            self._turns.move_to_end(best)
            return [(keys[:, :length], values[:, :length]) for keys, values in self._turns[best]]

    def keep(self, ids: np.ndarray, layers: Layers) -> None:
        """Keep a conversation; beyond `KEPT_TOKENS` tokens in all, drop the least recently used ones.

        A conversation that is longer by itself is not kept.
        """
        if len(ids) > KEPT_TOKENS:
            return
        with self._lock:
            for name in [name for name in self._turns if ids.tobytes().startswith(name)]:
                del self._turns[name]
            self._turns[ids.tobytes()] = layers
            while sum(len(name) // 8 for name in self._turns) > KEPT_TOKENS:
                self._turns.popitem(last=False)
