"""AdamW for all trainable parameters, or Muon for the matrices of all blocks and AdamW for the rest."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.optim import AdamW, Optimizer

from janusflow.training.config import OptimizerConfig
from janusflow.training.muon import Muon

BLOCKS = (  # LLM and f_enc; g_enc and g_dec; a VAE; a VQ codec
    *(".layers.", ".blocks.", ".resnets.", ".attentions.", "samplers."),
    *(".vq.encoder.down.", ".vq.decoder.up.", ".mid."),
)


def make_optimizers(model: nn.Module, config: OptimizerConfig, *, precision: str = "auto") -> list[Optimizer]:
    """Create the optimizers that together cover every trainable parameter exactly once.

    Args:
        precision: precision of Muon's matrix products; see `resolve_precision`.
    """
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    matrices = [
        name
        for name, p in learning.items()
        if config.name == "muon" and is_matrix(p) and any(blocks in f".{name}" for blocks in BLOCKS)
    ]
    others = [p for name, p in learning.items() if name not in matrices]
    found: list[Optimizer] = []
    if others:
        found.append(
            AdamW(others, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay, fused=True)
        )
    if matrices:
        found.append(
            Muon(
                [learning[name] for name in matrices],
                lr=config.learning_rate,
                weight_decay=config.weight_decay,
                momentum=config.betas[1],
                precision=precision,
            )
        )
    return found


def is_matrix(parameter: nn.Parameter) -> bool:
    """Return whether a parameter is a matrix, or a convolution kernel that mixes channels, with one row per output."""
    return parameter.ndim == 2 or (parameter.ndim == 4 and parameter.shape[1] > 1)


def set_rate(optimizers: Sequence[Optimizer], rate: float) -> None:
    """Set the learning rate of all optimizers."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate


def update(optimizers: Sequence[Optimizer]) -> None:
    """Run one step of each optimizer."""
    for optimizer in optimizers:
        optimizer.step()
