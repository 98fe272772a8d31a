"""Block-causal attention over packed sequences: several samples in one row, each attending only to itself.

PyTorch's variable-length kernel is used where it runs (CUDA, 16-bit). Elsewhere the samples are laid out as padded
batches of similar length, only for the attention: padding is on the right, so the causal mask already hides it and no
T x T mask is ever built. The linear layers around it always run on the packed row.

Shapes: T tokens of the row, N samples of a group, L tokens of its longest, h heads of width d.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from janusflow.device import CPU

PACKED = "janusflow_packed"  # name of the attention implementation in transformers' registry
SIMILAR = 0.75  # a sample joins a group if its length is at least this share of the group's longest
EXPLICIT = 512  # up to this length, the CPU computes softmax(QK)V step by step: its fused kernel's backward is slower


@dataclass(frozen=True)
class Group:
    """Samples of similar length: `tokens` (T',) of the row, and each one's `sample` and `offset` in (N, L).

    Attributes:
        together: (N, L) which tokens of each sample see each other, or None if attention is only causal.
    """

    tokens: Tensor
    sample: Tensor
    offset: Tensor
    count: int
    longest: int
    together: Tensor | None = None


@dataclass(frozen=True)
class Documents:
    """Where the samples of a packed row begin and end.

    Attributes:
        bounds: (samples + 1,) int32, where each sample begins, and the end.
        longest: number of tokens of the longest sample.
        groups: the samples, grouped by length.
    """

    bounds: Tensor
    longest: int
    groups: tuple[Group, ...]

    @staticmethod
    def of(lengths: Sequence[int], device: torch.device) -> Documents:
        """Create from the lengths of samples that follow one another."""
        sizes = torch.tensor(lengths, device=CPU)
        bounds = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
        parts: list[list[int]] = []
        for index in order:
            if parts and lengths[index] >= SIMILAR * lengths[parts[-1][0]]:
                parts[-1].append(index)
            else:
                parts.append([index])
        groups = []
        for part in parts:
            inside = sizes[part]
            sample = torch.repeat_interleave(torch.arange(len(part), device=CPU), inside)
            offset = torch.arange(len(sample), device=CPU) - (inside.cumsum(0) - inside)[sample]
            tokens = bounds[part][sample] + offset
            tokens, sample, offset = tokens.to(device), sample.to(device), offset.to(device)
            groups.append(Group(tokens, sample, offset, count=len(part), longest=lengths[part[0]]))
        return Documents(bounds.int().to(device), max(lengths), tuple(groups))

    def seeing_each_other(self, inside: Tensor) -> Documents:
        """Return the same samples, where the tokens in `inside`, (T,) bool, also see later tokens in `inside`."""
        groups = []
        for group in self.groups:
            together = inside.new_zeros(group.count, group.longest)
            together[group.sample, group.offset] = inside[group.tokens]
            groups.append(replace(group, together=together))
        return replace(self, groups=tuple(groups))


class _Unpack(torch.autograd.Function):
    """(T, h, d) -> per group (N, h, L, d), padded with zeros. Each token has one place, so nothing accumulates."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, documents: Documents) -> tuple[Tensor, ...]:
        ctx.documents = documents
        return tuple(_lay(x, group) for group in documents.groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _collect(gradients, ctx.documents), None


class _Repack(torch.autograd.Function):
    """Per group (N, h, L, d) -> (T, h, d), the inverse of `_Unpack`."""

    @staticmethod
    def forward(ctx: Any, documents: Documents, *padded: Tensor) -> Tensor:
        ctx.documents = documents
        return _collect(padded, documents)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *(_lay(gradients[0], group) for group in ctx.documents.groups)


def _lay(x: Tensor, group: Group) -> Tensor:
    padded = x.new_zeros(group.count, group.longest, *x.shape[1:])
    padded[group.sample, group.offset] = x[group.tokens]
    return padded.transpose(1, 2)


def _collect(padded: Sequence[Tensor], documents: Documents) -> Tensor:
    heads, width = padded[0].shape[1], padded[0].shape[3]
    x = padded[0].new_empty(sum(len(group.tokens) for group in documents.groups), heads, width)
    for group, values in zip(documents.groups, padded, strict=True):
        x[group.tokens] = values.transpose(1, 2)[group.sample, group.offset]
    return x


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    documents: Documents | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention function for transformers: block-causal with `documents`, plain SDPA without them.

    Args:
        query: (1, h, T, d); key, value: the same with the key-value heads.
        documents: the samples of the row.

    Returns:
        (1, T, h, d) and None (no weights).
    """
    if documents is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    scaling = scaling or query.shape[-1] ** -0.5
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # (T, h, d)
    if v.dtype in (torch.bfloat16, torch.float16):  # under autocast the rotation leaves queries and keys in float32
        q, k = q.to(v.dtype), k.to(v.dtype)
    only_causal = all(group.together is None for group in documents.groups)
    if only_causal and q.is_cuda and q.dtype in (torch.bfloat16, torch.float16):
        return _variable_length(q, k, v, documents, scaling)[None], None
    return _grouped(q, k, v, documents, scaling, dropout)[None], None


@torch.compiler.disable  # every row groups its samples differently, so each would be compiled anew
def _grouped(q: Tensor, k: Tensor, v: Tensor, documents: Documents, scaling: float, dropout: float) -> Tensor:
    parts = zip(*(_Unpack.apply(x, documents) for x in (q, k, v)), strict=True)
    outputs = [
        _causal(q, k, v, scaling, dropout) if group.together is None else _masked(q, k, v, scaling, dropout, group)
        for (q, k, v), group in zip(parts, documents.groups, strict=True)
    ]
    out = _Repack.apply(documents, *outputs)
    assert isinstance(out, Tensor)
    return out


def _variable_length(q: Tensor, k: Tensor, v: Tensor, documents: Documents, scaling: float) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    bounds, longest, grouped = documents.bounds, documents.longest, q.shape[1] != k.shape[1]
    out = varlen_attn(q, k, v, bounds, bounds, longest, longest, scale=scaling, window_size=(-1, 0), enable_gqa=grouped)
    assert isinstance(out, Tensor)
    return out


def _causal(q: Tensor, k: Tensor, v: Tensor, scaling: float, dropout: float) -> Tensor:
    """Causal attention of a batch: (N, h, L, d) -> (N, h, L, d)."""
    length = q.shape[2]
    if q.device.type != "cpu" or length > EXPLICIT or dropout:
        grouped = q.shape[1] != k.shape[1]
        return F.scaled_dot_product_attention(
            q, k, v, is_causal=True, dropout_p=dropout, scale=scaling, enable_gqa=grouped
        )
    repeats = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(repeats, dim=1) if repeats > 1 else x for x in (k, v))
    hidden = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
    scores = (q @ k.transpose(-1, -2) * scaling).masked_fill(hidden, float("-inf"))
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(v.dtype) @ v


def _masked(q: Tensor, k: Tensor, v: Tensor, scaling: float, dropout: float, group: Group) -> Tensor:
    """Attention of a batch to the past, and among the tokens that see each other: (N, h, L, d) -> (N, h, L, d)."""
    assert group.together is not None
    both = group.together[:, :, None] & group.together[:, None]  # (N, L, L)
    seen = both | torch.ones_like(both[0]).tril()
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=seen[:, None], dropout_p=dropout, scale=scaling, enable_gqa=grouped
    )


ALL_ATTENTION_FUNCTIONS.register(PACKED, packed_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(PACKED, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
