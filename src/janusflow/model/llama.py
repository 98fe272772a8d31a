"""The LLM's layers without gradients: one pass over packed tokens, for generation, prefill and decoding.

The weights stay in transformers' `LlamaModel`; only the loop around them differs. The tokens of all rows form one
matrix, so that rows of different lengths share each product. Its height is padded to a size that matrix kernels run
fast. The caller attends, because each kind of pass knows what a token may see. transformers' own forward is still used
wherever gradients or hooks need it; see `runs_plainly`.

Shapes: N tokens, D width, h query heads and g key-value heads of width d, R rows of T tokens, S keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaModel

from janusflow.device import CPU
from janusflow.model.kernels import Kernels, kernels_of, product

Attend: TypeAlias = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""attend(layer, q: (N, h, d), k: (N, g, d), v: (N, g, d)) -> (N, h, d); q and k are rotated."""

MULTIPLE = 16  # of rows of a matrix: bfloat16 products of 577 rows run at 60 % of the rate of 576 or 592 on Zen 4
TILE = 128  # queries that attend together on a CPU; each tile sees only the keys up to its end


def runs_plainly(llm: LlamaModel) -> bool:
    """Whether `run_layers` may replace the LLM's forward here.

    Gradients need transformers' forward (checkpointing, dropout), and so do layers with hooks: offloaded and sharded
    weights are only in place while a layer's own forward runs. The hooks with which transformers collects hidden states
    stay on the layers after the first request for them; these do not count.
    """
    if torch.is_grad_enabled():
        return False
    return not any(
        "_hf_hook" in vars(part)  # several times as fast as hasattr, which searches parameters and submodules
        or any(map(_foreign, (*part._forward_pre_hooks.values(), *part._forward_hooks.values())))
        for part in llm.layers.modules()
    )


def _foreign(hook: object) -> bool:
    return not getattr(hook, "__module__", "").startswith("transformers.")


def run_layers(
    llm: LlamaModel, embeds: Tensor, positions: Tensor, attend: Attend, *, keep: Tensor | None = None
) -> Tensor:
    """Return the last hidden states, after the final norm.

    Args:
        llm: the LLM.
        embeds: (N, D) input embeddings of all rows, one after the other.
        positions: (N,) position of each token in its row.
        attend: see `Attend`.
        keep: (K,) tokens whose states are needed; after attention, the last layer runs only for these.

    Returns:
        (N, D), or (K, D) with `keep`.
    """
    tokens = len(embeds)
    padding = -tokens % MULTIPLE if embeds.device == CPU and tokens > MULTIPLE else 0
    x = F.pad(embeds, (0, 0, 0, padding)) if padding else embeds.clone()
    cos, sin = (part[0, :, None] for part in llm.rotary_emb(embeds, positions[None]))  # (N, 1, d)
    first, second = sin.chunk(2, dim=-1)
    sin = torch.cat([-first, second], dim=-1)
    small = kernels_of(llm)

    def norm(layer: Any, x: Tensor) -> Tensor:
        return small.norm(x, layer.weight, layer.variance_epsilon)

    for index, layer in enumerate(llm.layers):
        attention = layer.self_attn
        normed = norm(layer.input_layernorm, x)
        q, k, v = (
            product(project, normed)[:tokens].view(tokens, -1, attention.head_dim)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        seen = attend(index, small.rotate(q, cos, sin), small.rotate(k, cos, sin), v).flatten(1)  # (N, h d)
        if keep is not None and index + 1 == len(llm.layers):
            x, seen = x[keep], seen[keep]
            padding = 0
        x += product(attention.o_proj, F.pad(seen, (0, 0, 0, padding)) if padding else seen)
        x += _feed_forward(layer.mlp, norm(layer.post_attention_layernorm, x), small)
    return norm(llm.norm, x[: len(x) - padding])


def _feed_forward(mlp: Any, x: Tensor, small: Kernels) -> Tensor:
    gates = product(mlp.gate_proj, x)
    if isinstance(mlp.act_fn, nn.SiLU):
        gates = small.gate(gates, product(mlp.up_proj, x))
    else:
        gates = mlp.act_fn(gates).mul_(product(mlp.up_proj, x))
    return product(mlp.down_proj, gates)


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of the last T of S tokens, each to itself and all before it.

    PyTorch's kernel also computes the hidden half, and on a CPU takes 3.5 times as long as these tiles of plain
    products (bfloat16, 577 tokens, Zen 4).

    Args:
        q: (R, h, T, d).
        k, v: (R, g, S, d).

    Returns:
        (R, h, T, d).
    """
    heads, new = q.shape[1:3]
    before = k.shape[2] - new
    if q.device != CPU or new == 1:
        mask = None if new == 1 else q.new_ones(new, k.shape[2], dtype=torch.bool).tril(before)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=heads != k.shape[1])
    scale, width, shared = q.shape[-1] ** -0.5, q.shape[-1], heads // k.shape[1]
    grouped = q.unflatten(1, (-1, shared))  # (R, g, h/g, T, d)
    keys, values = k.flatten(0, 1).transpose(1, 2), v.flatten(0, 1)
    later = q.new_full((min(TILE, new), min(TILE, new)), -torch.inf).triu(1)  # added: faster than a masked fill
    out = torch.empty_like(grouped, memory_format=torch.contiguous_format)
    for start in range(0, new, TILE):
        end = min(start + TILE, new)
        tile = grouped[:, :, :, start:end].reshape(len(values), -1, width)  # (R g, h/g tile, d)
        scores = torch.baddbmm(tile.new_empty(1, 1, 1), tile, keys[..., : before + end], beta=0, alpha=scale)
        own = scores.unflatten(1, (shared, -1))[..., before + start :]
        own += later[: end - start, : end - start]
        seen = torch.bmm(scores.softmax(dim=-1), values[:, : before + end])
        out[:, :, :, start:end] = seen.view(*grouped.shape[:3], end - start, width)
    return out.flatten(1, 2)


def full_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of the last T of S tokens to all S; shapes as in `causal_attention`."""
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=q.shape[1] != k.shape[1])
