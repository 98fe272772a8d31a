"""One optimizer step over packed rows, the same in one process and under sharding."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from janusflow.data.loader import StepSamples
from janusflow.data.samples import Sample
from janusflow.data.templates import IGNORE, Tokens
from janusflow.training.anchor import Anchor
from janusflow.training.config import TrainConfig
from janusflow.training.distributed import World, whole
from janusflow.training.ema import Ema
from janusflow.training.losses import LossConfig, terms
from janusflow.training.objective import Objective
from janusflow.training.optimizers import set_rate, update
from janusflow.training.packing import Pack, fill, pack
from janusflow.training.resume import Progress

Encoder: TypeAlias = Callable[[Tensor], Tensor]
NOTHING = Sample(Tokens([0], [IGNORE], [0]))  # without a loss; run by processes that have fewer rows than others


@dataclass
class TrainState:
    """Everything that a step works on.

    Attributes:
        latents: the codec's encoder, through the cache if there is one; None without pictures to generate.
        features: f_enc through the cache, for REPA; None if the network computes them itself.
        anchor: provides the targets of anchored samples; None if there are none.
    """

    config: TrainConfig
    world: World
    objective: Objective
    latents: Encoder | None
    features: Encoder | None
    optimizers: list[Optimizer]
    ema: Ema
    progress: Progress
    anchor: Anchor | None = None


def take_step(state: TrainState, found: StepSamples) -> dict[str, float]:
    """Run one optimizer step.

    Returns:
        The mean losses of the whole step over all processes (see `mean_losses`), the norm of the gradient, the learning
        rate, and the share of the starting weights that is left in the average.
    """
    config, world, objective = state.config, state.world, state.objective
    torch.manual_seed(Random(f"{config.seed}/{found.step}/{world.rank}").getrandbits(63))  # dropout of adapters
    filled = fill(found.samples, config.pack_length)
    packs = [pack(row, world.device) for row in filled]
    mine = {
        "tokens": float(sum(p.input_ids.shape[1] for p in packs)),
        "rows": float(len(packs)),
        "pictures": float(sum(s.drawn is not None for s in found.samples)),
        "cropped": sum(s.drawn.cropped for s in found.samples if s.drawn is not None),
    }
    own = objective.terms.values()
    for term in own:
        mine |= term.counts(found.samples)
    counts = world.add_up(mine)
    rows = int(world.largest({"rows": float(len(packs))})["rows"])
    packs += [pack([NOTHING], world.device)] * (rows - len(packs))
    filled += [[]] * (rows - len(filled))
    objective.train()
    rate = config.optimizer.rate(found.step, config.steps)
    set_rate(state.optimizers, rate)
    totals = {name: 0.0 for term in own for name in term.counts(())}
    for samples, row in zip(filled, packs, strict=True):
        with autocast(config, world):
            latents = _encoded(state.latents, row)
            if state.anchor is not None:
                row, latents = state.anchor(samples, row, latents)
            sums = objective(row, latents, _encoded(state.features, row))
        # Sharded gradients are averaged over the processes; the loss is a sum over all of them.
        (objective.weighted(sums, counts) * world.ranks).backward()
        for name in totals.keys() & sums.keys():
            totals[name] += float(sums[name].detach())
    norms = clipped(objective, config.optimizer.clip)
    losses = mean_losses(config.loss, world.add_up(totals), counts)
    full = counts["tokens"] / (counts["rows"] * config.pack_length)
    losses.update(norms, rate=rate, tokens=counts["tokens"], fill=full)
    if counts["pictures"]:
        losses["cropped"] = counts["cropped"] / counts["pictures"]
    share = state.progress.start_share
    share = config.start_share(found.step) if share is None else share  # a new run, or a checkpoint without it
    if math.isfinite(losses["loss"]) and math.isfinite(losses["gradient"]):
        update(state.optimizers)
        decay = config.ema_decay(found.step)
        state.ema.update(decay)
        share *= decay
    losses["start_share"] = state.progress.start_share = share
    objective.zero_grad(set_to_none=True)
    return losses


def mean_losses(config: LossConfig, totals: Mapping[str, float], counts: Mapping[str, float]) -> dict[str, float]:
    """Return the mean of each term, their weighted sum "loss", and the terms' details, from a whole step's sums.

    Terms without samples in the step are left out.
    """
    found = {name: term for name, term in terms().items() if name in totals and counts[name]}
    losses = {name: totals[name] / max(counts[name], 1) for name in found}
    losses["loss"] = sum(config.weight(name) * losses[name] for name in found)
    for term in found.values():
        losses |= term.detail(totals, counts)
    return losses


def clipped(objective: Objective, largest: float) -> dict[str, float]:
    """Clip the gradients of all parts together to a norm of at most `largest`.

    Returns:
        The norm before clipping, "gradient", and that of each trained part, "gradient_llm" and so on (see
        `Family.trainable`; a loss's head has the loss's name).
    """
    parts: dict[str, list[Tensor]] = {}
    heads = {attribute: name for name, attribute in objective.heads.items()}
    for name, parameter in objective.named_parameters():
        if parameter.grad is not None:
            above, _, inner = name.partition(".")
            parts.setdefault(heads.get(above) or objective.family.part_of(inner), []).append(parameter.grad)
    norms = {f"gradient_{part}": whole(get_total_norm(gradients)) for part, gradients in parts.items()}
    total = torch.linalg.vector_norm(torch.stack(list(norms.values())))
    clip_grads_with_norm_([p for p in objective.parameters() if p.requires_grad], largest, total)
    return dict(zip(("gradient", *norms), torch.stack([total, *norms.values()]).tolist(), strict=True))


@torch.no_grad()
def _encoded(encode: Encoder | None, row: Pack) -> Tensor | None:
    return None if row.pixels is None or encode is None else encode(row.pixels).clone()


def autocast(config: TrainConfig, world: World) -> AbstractContextManager[object]:
    """Return the autocast context for the precision of matrix products; the config must come from `with_precision`."""
    return torch.autocast(world.device.type, torch.bfloat16, enabled=config.precision == "bfloat16")
