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
SIMILAR = 0.85  # a sample joins a group if its length is at least this share of the group's longest
EXPLICIT = 512  # up to this length, the CPU computes softmax(QK)V step by step: its fused kernel's backward is slower


@dataclass(frozen=True)
class Group:
    """N samples of similar length, padded on the right to the longest, L.

    Attributes:
        count, longest: N and L.
        together: (N, L) which tokens of each sample see each other, or None if attention is only causal.
    """

    count: int
    longest: int
    together: Tensor | None = None


@dataclass(frozen=True)
class Documents:
    """Where the samples of a packed row begin and end, and how they are laid out in groups.

    Attributes:
        bounds: (samples + 1,) int32, where each sample begins, and the end.
        longest: number of tokens of the longest sample.
        groups: the samples, grouped by length. Together they have P = sum of N * L places.
        tokens: (P,) which token of the row is at each place; places of padding repeat the last token of their sample.
        places: (T,) the place of each token of the row.
    """

    bounds: Tensor
    longest: int
    groups: tuple[Group, ...]
    tokens: Tensor
    places: Tensor

    @staticmethod
    def of(lengths: Sequence[int], device: torch.device) -> Documents:
        """Create from the lengths of samples that follow one another."""
        sizes = torch.tensor(lengths, device=CPU)
        bounds = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        parts: list[list[int]] = []
        for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
            if parts and lengths[index] >= SIMILAR * lengths[parts[-1][0]]:
                parts[-1].append(index)
            else:
                parts.append([index])
        tokens, inside = [], []
        for part in parts:
            offset, last = torch.arange(lengths[part[0]], device=CPU), sizes[part][:, None] - 1
            tokens.append((bounds[part][:, None] + offset.minimum(last)).flatten())
            inside.append((offset <= last).flatten())
        row, kept = torch.cat(tokens), torch.cat(inside).nonzero()[:, 0]
        places = torch.empty_like(kept)
        places[row[kept]] = kept
        groups = tuple(Group(len(part), lengths[part[0]]) for part in parts)
        return Documents(bounds.int().to(device), max(lengths), groups, row.to(device), places.to(device))

    def grouped(self, x: Tensor) -> list[Tensor]:
        """Split values of all places, (P, ...), by group: (N, L, ...) each."""
        parts = x.split([group.count * group.longest for group in self.groups])
        return [part.unflatten(0, (one.count, one.longest)) for part, one in zip(parts, self.groups, strict=True)]

    def seeing_each_other(self, inside: Tensor) -> Documents:
        """Return the same samples, where the tokens in `inside`, (T,) bool, also see later tokens in `inside`."""
        together = inside.new_zeros(len(self.tokens))  # False where padding is
        together[self.places] = inside
        pairs = zip(self.groups, self.grouped(together), strict=True)
        return replace(self, groups=tuple(replace(group, together=part) for group, part in pairs))


class _Unpack(torch.autograd.Function):
    """(T, h, d) -> per group (N, h, L, d). The gradient of padding is zero, so it is left out."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, documents: Documents) -> tuple[Tensor, ...]:
        ctx.documents = documents
        return tuple(part.transpose(1, 2) for part in documents.grouped(x.index_select(0, documents.tokens)))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _collect(gradients, ctx.documents), None


class _Repack(torch.autograd.Function):
    """Per group (N, h, L, d) -> (T, h, d), without padding."""

    @staticmethod
    def forward(ctx: Any, documents: Documents, *padded: Tensor) -> Tensor:
        ctx.documents = documents
        return _collect(padded, documents)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), documents = gradients, ctx.documents
        padded = gradient.new_zeros(len(documents.tokens), *gradient.shape[1:])
        padded.index_copy_(0, documents.places, gradient)
        return None, *(part.transpose(1, 2) for part in documents.grouped(padded))


def _collect(padded: Sequence[Tensor], documents: Documents) -> Tensor:
    """Per group (N, h, L, d) -> (T, h, d), in the order of the row."""
    return torch.cat([x.transpose(1, 2).flatten(0, 1) for x in padded]).index_select(0, documents.places)


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
    if only_causal and q.is_cuda and q.dtype in (torch.bfloat16, torch.float16) and not dropout:
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
    count = q.shape[:2]
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))  # (N h, L, d)
    hidden = torch.full((length, length), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
    scores = torch.baddbmm(hidden.expand(len(q), -1, -1), q, k.transpose(1, 2), alpha=scaling)
    return (scores.softmax(dim=-1) @ v).unflatten(0, count)


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
