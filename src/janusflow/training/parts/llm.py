"""The language model: next tokens of texts and conversations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from janusflow.config import JanusFlowConfig
from janusflow.model import JanusFlowForConditionalGeneration
from janusflow.model.attention import PACKED
from janusflow.training.losses.autoregressive import autoregressive_loss
from janusflow.training.packing import pack, packed_forward
from janusflow.training.parts.config import LlmConfig
from janusflow.training.parts.data import Batches
from janusflow.training.parts.fit import Losses, fit

LOOKING_PAIRS, LOOKING_STRENGTH = 14, 5.4  # for `look_back`: logits of 4 between neighboring positions


def fit_llm(
    config: LlmConfig, sizes: JanusFlowConfig, batch: Batches, folder: Path, *, seed: int, device: torch.device
) -> JanusFlowForConditionalGeneration:
    """Train the language model of a network, whose other parts keep their initial values, or resume its training."""
    torch.manual_seed(seed)
    network = JanusFlowForConditionalGeneration(sizes).to(device)
    network.set_attn_implementation({"text_config": PACKED})
    network.requires_grad_(False)
    for part in (network.language_model, network.lm_head):
        part.requires_grad_(True)
    spread(network)
    if config.look_back:
        look_back(network)

    def losses(model: Any, step: int) -> Losses:
        row = pack(batch(step), device)
        logits = packed_forward(model, row).logits[0]
        return {"loss": autoregressive_loss(logits, row.labels) / len(row.labels)}

    network = fit(network, losses, config.fit, folder, title="LLM")
    network.set_attn_implementation("sdpa")
    return network


@torch.no_grad()
def spread(network: JanusFlowForConditionalGeneration) -> None:
    """Initialize the LLM so that every layer's outputs are about as large as its inputs.

    Embeddings are N(0, 1), matrices N(0, 1 / inputs), and matrices that add to the residual stream
    N(0, 1 / (2 layers inputs)). From N(0, 0.02^2), a model this narrow takes many times more steps until it can look
    anything up in a text (docs/log.md).
    """
    llm = network.language_model
    llm.embed_tokens.weight.normal_()
    for name, matrix in llm.layers.named_parameters():
        if matrix.ndim == 2:
            writers = 2 * len(llm.layers) if name.endswith(("o_proj.weight", "down_proj.weight")) else 1
            matrix.normal_(std=(writers * matrix.shape[1]) ** -0.5)


@torch.no_grad()
def look_back(network: JanusFlowForConditionalGeneration) -> None:
    """Make the first two heads of the first three layers see the previous word and the one before it.

    Neighboring words show which word belongs to which ("a red circle and a blue square"). From random weights, such
    heads do not form in the time that this model is trained; with them, it binds words within 150 steps (docs/log.md).
    All embeddings get a common direction u with the same norm as the rest. From u only, the head makes a query with
    the first rotary pairs (f, f + d/2) at angle 0, and a key with these pairs turned by `offset` angles w_f. So its
    logit at distance n is proportional to sum_f cos(w_f (n - offset)).
    """
    llm, config = network.language_model, network.config.text_config
    embeddings, side = llm.embed_tokens.weight, config.hidden_size**0.5
    u = torch.randn(config.hidden_size, dtype=embeddings.dtype, device=embeddings.device)
    u /= u.norm()
    embeddings += torch.outer(side - embeddings @ u, u)
    half = config.head_dim // 2
    angles = llm.rotary_emb.inv_freq[: min(LOOKING_PAIRS, half)]
    query, key = torch.zeros(2, 2 * half, device=embeddings.device)
    for layer in llm.layers[:3]:
        attention = layer.self_attn
        for head, offset in enumerate((1, 2)):
            rows = slice(head * 2 * half, (head + 1) * 2 * half)
            query[: len(angles)] = 1
            key[: len(angles)] = torch.cos(angles * offset)
            key[half : half + len(angles)] = torch.sin(angles * offset)
            for matrix, wanted in ((attention.q_proj.weight, query), (attention.k_proj.weight, key)):
                # x / rms(x) contains u with norm side / sqrt(2)
                matrix[rows] = 0.1 * matrix[rows] + LOOKING_STRENGTH * 2**0.5 / side * torch.outer(wanted, u)
            attention.o_proj.weight[:, rows] *= 4
