"""Training on packed rows against padded batches: the same samples, the same losses, real tokens per second.

python benchmarks/packing.py

There are two mixtures: the tiny world's, sampled as in stage 2, and texts with synthetic caption lengths (log-normal:
median 60 tokens). It also prints how full the rows are (bar: 95 %).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Annotated

import torch
import typer
from torch import Tensor

from janusflow import JanusFlow
from janusflow.data.loader import Data
from janusflow.data.mixture import Mixture
from janusflow.data.samples import Sample, SampleMaker
from janusflow.data.templates import IGNORE, Tokens
from janusflow.device import resolve_device, resolve_precision
from janusflow.flow import interpolate
from janusflow.model.attention import PACKED
from janusflow.training.config import TrainConfig, load_config
from janusflow.training.config.sources import sources_of, weights_of
from janusflow.training.losses import LossConfig
from janusflow.training.losses.autoregressive import autoregressive_loss
from janusflow.training.losses.rectified_flow import rectified_flow_loss
from janusflow.training.objective import Objective
from janusflow.training.packing import fill, pack

COUNTS = {"ar": 1.0, "flow": 1.0}


def tiny_mixture(config: TrainConfig, model: JanusFlow, count: int) -> list[Sample]:
    """Return samples as in a training run."""
    mixture = Mixture(config.data.ratios, weights_of(config.data), batch_size=count, seed=0)
    maker = SampleMaker(model.processor, model.network.config, config.samples)
    return Data(sources_of(config.data), mixture, maker, seed=0)[10_000].samples


def captions(model: JanusFlow, count: int) -> list[Sample]:
    """Return texts of random ids with lengths like those of captions: a median of 60 tokens, a long tail."""
    rng, samples = Random(0), []
    for _ in range(count):
        length = min(max(round(rng.lognormvariate(math.log(60), 0.8)), 4), 1000)
        ids = [rng.randrange(200, model.network.config.text_config.vocab_size) for _ in range(length)]
        samples.append(Sample(Tokens(ids, [IGNORE, *ids[1:]], list(range(length)))))
    return samples


def packed(objective: Objective, model: JanusFlow, rows: Sequence[list[Sample]], device: torch.device) -> None:
    """Run forward and backward passes over packed rows."""
    for row in rows:
        one = pack(row, device)
        latents = None if one.pixels is None else model.codec.encode(one.pixels).clone()
        with torch.autocast(device.type, torch.bfloat16, enabled=resolve_precision("auto", device) == "bfloat16"):
            loss = objective.weighted(objective(one, latents), COUNTS)
        loss.backward()


def padded(model: JanusFlow, batches: Sequence[list[Sample]], device: torch.device) -> None:
    """Compute the same losses over batches padded to their longest sample."""
    for batch in batches:
        one, longest = pack(batch, device), max(len(sample.tokens) for sample in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        positions = torch.zeros_like(ids)
        predicted, labels = [], []
        for row, sample in enumerate(batch):
            tokens = sample.tokens
            ids[row, : len(tokens)] = torch.tensor(tokens.ids)
            positions[row, : len(tokens)] = torch.tensor(tokens.positions)
            mask[row, : len(tokens)] = 1
            labelled = [place for place, label in enumerate(tokens.labels) if place and label != IGNORE]
            predicted += [row * longest + place - 1 for place in labelled]
            labels += [tokens.labels[place] for place in labelled]
        latents = None if one.pixels is None else model.codec.encode(one.pixels).clone()
        noisy = None
        if latents is not None and one.noise is not None and one.t is not None:
            noisy = interpolate(one.noise, latents, one.t)
        with torch.autocast(device.type, torch.bfloat16, enabled=resolve_precision("auto", device) == "bfloat16"):
            output = model.network(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                position_ids=positions.to(device),
                pixel_values=one.seen,
                latents=noisy,
                t=one.t,
                use_cache=False,
                logits_to_keep=1,
                output_hidden_states=True,
            )
            terms: list[Tensor] = []
            if labels:
                states = output.hidden_states[-1].flatten(0, 1)[predicted]
                terms.append(autoregressive_loss(model.network.logits(states), torch.tensor(labels, device=device)))
            if latents is not None and one.noise is not None:
                terms.append(rectified_flow_loss(output.velocity, latents=latents, noise=one.noise))
        torch.stack(terms).sum().backward()


def seconds(work: Callable[[], None], repeats: int) -> float:
    """Return the best of several times, after one warm-up run."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def main(
    model: Annotated[str, typer.Option(help="'tiny' or a folder.")] = "tiny",
    samples: Annotated[int, typer.Option(help="Samples of each mixture.")] = 96,
    batch: Annotated[int, typer.Option(help="Samples per padded batch.")] = 16,
    length: Annotated[int, typer.Option(help="Tokens per packed row.")] = 4096,
    repeats: Annotated[int, typer.Option(help="Runs of each measurement; the best counts.")] = 3,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
) -> None:
    """Print one line per mixture."""
    place = resolve_device(device)
    pipeline = JanusFlow.from_pretrained(model, dtype="float32", device=place)
    config = load_config(Path(__file__).parents[1] / "recipes" / "tiny" / "stage2.yaml", [])
    network = pipeline.network.train().requires_grad_(True)
    objective = Objective(network, LossConfig(repa=0.0))
    for name, made in (
        ("tiny world", tiny_mixture(config, pipeline, samples)),
        ("caption lengths", captions(pipeline, samples)),
    ):
        tokens = sum(len(sample.tokens) for sample in made)
        many = fill(made * 20, length)
        full = 20 * tokens / (len(many) * length)
        batches = [made[start : start + batch] for start in range(0, len(made), batch)]
        rows = fill(made, length)
        waste = sum(len(part) * max(len(sample.tokens) for sample in part) for part in batches) / tokens - 1
        network.set_attn_implementation({"text_config": "sdpa"})
        slow = seconds(lambda batches=batches: padded(pipeline, batches, place), repeats)  # type: ignore[misc]
        network.set_attn_implementation({"text_config": PACKED})
        fast = seconds(lambda rows=rows: packed(objective, pipeline, rows, place), repeats)  # type: ignore[misc]
        print(
            f"{name}: {tokens:,} tokens in {len(made)} samples; rows of {length:,} are {full:.1%} full where many are "
            f"packed at once, these {len(rows)} {tokens / (len(rows) * length):.1%}; "
            f"padding adds {waste:.0%}; packed {tokens / fast:,.0f} tokens/s, padded {tokens / slow:,.0f} tokens/s, "
            f"{slow / fast:.2f} times"
        )


if __name__ == "__main__":
    typer.run(main)
