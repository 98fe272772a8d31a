"""Describe what a recipe would do without running it: parts, tokens per step, memory and FLOPs, from sizes only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from janusflow.families import Family, family_of
from janusflow.model.convnext import ConvNextBlock
from janusflow.training.card import percent
from janusflow.training.config import TrainConfig
from janusflow.training.config.sources import anchored, sources_of
from janusflow.training.lora import ADAPTED, add_adapters
from janusflow.training.losses import active, described
from janusflow.training.replay import replays
from janusflow.training.start import check_sizes, sizes_of
from janusflow.training.trainable import choose_trainable

PROMPT_TOKENS, TALK_TOKENS, TEXT_TOKENS = 60, 160, 512  # assumed for a sample without its picture; no data is read
BYTES = 4  # per float32
MOMENTS = 2  # of AdamW, per trained parameter
CONVNEXT_BYTES = 70  # kept by a ConvNeXt block per position and channel: 4 channels wide inside, GRN in float32
H100_BF16 = 989e12  # FLOP/s, dense
MFU = 0.4
DAY = 86400  # seconds
LONG = 60  # seconds on one GPU; from here on, several GPUs are listed too
UNITS = ((DAY, "days"), (3600, "hours"), (60, "minutes"))


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of a step.

    Attributes:
        learning, frozen: parameters by part; a loss's head has the loss's name, low-rank adapters are "adapters".
        tokens: tokens of a step by task.
        flops: FLOPs of a step, forward and backward, without the codec's encoding and the anchors' own forward pass.
        state: bytes of weights, gradients, moments and average, over all processes.
        gathered: bytes that each of several processes temporarily holds unsharded: all but the LLM's blocks, in 16
            bits.
        anchor: bytes of the copy of the network before the run, unsharded in each process, if data is anchored.
        activations: bytes of one row's activations and logits in one process.
        steps: total number of steps.
    """

    learning: dict[str, int]
    frozen: dict[str, int]
    tokens: dict[str, int]
    flops: float
    state: float
    gathered: float
    anchor: float
    activations: float
    steps: int

    def memory(self, gpus: int) -> float:
        """Return the bytes in each of this number of processes, without the VAE and the kernels' own memory."""
        return self.state / gpus + (self.gathered if gpus > 1 else 0) + self.anchor + self.activations

    def days(self, gpus: int) -> float:
        """Return the days that this number of H100s needs for all steps, at 40 % of their bf16 peak."""
        return self.flops * self.steps / (gpus * H100_BF16 * MFU) / DAY


def estimate(config: TrainConfig) -> Estimate:
    """Estimate a run from its recipe and the sizes of its model, without loading weights or reading data.

    Raises:
        ValueError: if the model's configuration cannot be read, or does not fit the losses, `parts` or `freeze`.
    """
    sizes = check_sizes(config)
    family = family_of(sizes)
    with torch.device("meta"):
        network = family.network(sizes)
    whole = set(config.parts) - set(ADAPTED) if config.lora.rank else set(config.parts)
    learning, frozen = dict.fromkeys(family.trainable, 0), dict.fromkeys(family.trainable, 0)
    choose_trainable(network, sorted(whole), config.freeze)
    for name, parameter in network.named_parameters():
        chosen = learning if parameter.requires_grad else frozen
        chosen[family.part_of(name)] += parameter.numel()
    with torch.device("meta"):
        heads = {name: term.head(sizes) for name, term in active(config.loss, family).items()}
    learning |= {name: sum(p.numel() for p in head.parameters()) for name, head in heads.items() if head is not None}
    blocks = list(network.get_submodule(family.blocks).parameters())
    gathered = 2 * (sum(learning.values()) + sum(frozen.values()) - sum(p.numel() for p in blocks))
    gathered += 2 * (sum(learning.values()) - sum(p.numel() for p in blocks if p.requires_grad))
    copied = BYTES * sum(p.numel() for p in network.parameters()) if anchored(config.data) else 0
    if config.lora.rank:
        with torch.device("meta"):
            adapted = add_adapters(network, config.lora, config.parts)
        learning["adapters"] = sum(p.numel() for name, p in adapted.named_parameters() if "lora_" in name)
    tokens, pictures = _tokens(config, sizes)
    drawing = [p for name, p in network.named_parameters() if _draws(family, name)]
    widths = sum(block.depthwise.in_channels for block in network.modules() if isinstance(block, ConvNextBlock))
    trained = sum(learning.values())
    state = BYTES * (sum(frozen.values()) + trained * (3 + MOMENTS))
    return Estimate(
        learning={part: count for part, count in learning.items() if count},
        frozen={part: count for part, count in frozen.items() if count},
        tokens=tokens,
        flops=_flops(config, sizes, tokens, pictures, sum(p.numel() for p in drawing)),
        state=state,
        gathered=gathered,
        anchor=copied,
        activations=_activations(config, sizes, tokens, pictures, widths) + _logits(config, sizes, tokens),
        steps=config.steps,
    )


def _draws(family: Family, name: str) -> bool:
    """Return whether a parameter outside the LLM is multiplied at every token of a picture to generate."""
    return family.part_of(name) == "generation" and family.never_run not in name and "embeddings" not in name


def _tokens(config: TrainConfig, sizes: Any) -> tuple[dict[str, int], dict[str, float]]:
    """Return the tokens and pictures of a step by task, with the last ratio."""
    ratio = config.data.ratios[-1]
    shares = {"understanding": ratio.understanding, "generation": ratio.generation, "text": ratio.text}
    pictures = {task: config.batch_size * share / sum(shares.values()) for task, share in shares.items()}
    each = {
        "understanding": family_of(sizes).seen_tokens(sizes) + TALK_TOKENS,
        "generation": family_of(sizes).drawn_tokens(sizes) + PROMPT_TOKENS,
        "text": TEXT_TOKENS,
    }
    return {task: round(pictures[task] * each[task]) for task in each}, pictures


def _flops(config: TrainConfig, sizes: Any, tokens: dict[str, int], pictures: dict[str, float], drawing: int) -> float:
    """Count 2 FLOPs per weight and token forward, the same for the input's gradient, and the same for the weights'.

    Args:
        drawing: number of parameters that are multiplied at each token of a picture to generate.
    """
    family, llm, vision = family_of(sizes), sizes.text_config, sizes.vision_config
    layers = llm.num_hidden_layers
    block = 4 * llm.hidden_size**2 + 3 * llm.hidden_size * llm.intermediate_size
    llm_backward = 2 if "llm" in config.parts and not config.lora.rank else 1
    total = sum(tokens.values())
    flops = 2.0 * total * layers * block * (1 + llm_backward)
    mean = total / max(sum(pictures.values()), 1)
    flops += 2.0 * total * mean * llm.hidden_size * layers * (1 + 2)  # causal attention: half of 4 d L per token
    answers = TALK_TOKENS * pictures["understanding"] / 2 + tokens["text"]
    flops += 2.0 * answers * llm.hidden_size * llm.vocab_size * 3
    tower = 12 * vision.hidden_size**2 * vision.num_hidden_layers
    seen = pictures["understanding"] * (3 if "tower" in config.parts else 1)
    compared = pictures["generation"] if "repa" in active(config.loss, family) else 0
    flops += 2.0 * tower * family.seen_tokens(sizes) * (seen + compared)
    return flops + 2.0 * drawing * family.drawn_tokens(sizes) * pictures["generation"] * 3


def _activations(
    config: TrainConfig, sizes: Any, tokens: dict[str, int], pictures: dict[str, float], widths: int
) -> float:
    """Return the bytes of one row in 16 bits: per token, width and block of the LLM, of a trained tower, and of g_enc
    and g_dec. With checkpointing, LLM and tower keep only the blocks' inputs.

    Args:
        widths: sum of the widths of all ConvNeXt blocks.
    """
    llm, vision = sizes.text_config, sizes.vision_config
    transformer = 2 if config.activation_checkpointing else 34
    total = transformer * config.pack_length * llm.hidden_size * llm.num_hidden_layers
    rows = sum(tokens.values()) / config.pack_length
    if "tower" in config.parts or config.lora.tower:
        seen = pictures["understanding"] / rows * family_of(sizes).seen_tokens(sizes)
        total += transformer * seen * vision.hidden_size * vision.num_hidden_layers
    drawn = pictures["generation"] / rows * family_of(sizes).drawn_tokens(sizes)
    total += CONVNEXT_BYTES * drawn * widths
    return total * (2 if config.precision == "float32" else 1)


def _logits(config: TrainConfig, sizes: Any, tokens: dict[str, int]) -> float:
    """Return the bytes of a row: 16 bits, a float32 copy and its gradient, per token of text or about half a talk's."""
    share = 1.0 if tokens["text"] else TALK_TOKENS / 2 / (family_of(sizes).seen_tokens(sizes) + TALK_TOKENS)
    labelled = config.pack_length * share if tokens["text"] or tokens["understanding"] else 0
    return labelled * sizes.text_config.vocab_size * (2 + 4 + 4)


def _missing(config: TrainConfig) -> list[str]:
    """List the faults in the places of the data that would make the run fail."""
    faults = []
    for source in (one for given in sources_of(config.data).values() for one in given):
        try:
            source.check_place()
        except ValueError as error:
            faults.append(str(error))
    return list(dict.fromkeys(faults))


def describe(config: TrainConfig) -> str:
    """Format the estimate as readable text."""
    found = estimate(config)
    left_out = "the codec's encoding" + (" and the anchors' forward pass" if found.anchor else "")
    lines = [f"model: {described(sizes_of(config.model), config.loss)}", "learning:"]
    lines += [f"  {part:12} {count:>15,}" for part, count in found.learning.items()]
    lines += ["frozen:"] + [f"  {part:12} {count:>15,}" for part, count in found.frozen.items()]
    lines += [
        f"steps: {found.steps:,} of {config.batch_size} samples, rows of {config.pack_length:,} tokens",
        "tokens per step: "
        + ", ".join(f"{task} {count:,}" for task, count in found.tokens.items())
        + f"; {sum(found.tokens.values()) / config.pack_length:,.1f} rows",
        f"FLOPs per step: {found.flops:.3g}; in all {found.flops * found.steps:.3g} (without {left_out})",
        f"state (weights, gradients, moments, average): {_size(found.state)}",
        f"exported weights: {percent(config.start_share(config.steps))} of them will still be the starting weights",
    ]
    if found.anchor:
        lines.append(f"anchor (the weights before the run, in each process): {_size(found.anchor)}")
    for source in replays(config):
        lines.append(f"generated before the first step: {source.images:,} pictures (replay)")
    lines += [f"not there yet: {fault}" for fault in _missing(config)]
    lines.append(f"in all {_duration(found.days(1), 'GPU-')} of H100 at {MFU:.0%} MFU (from the FLOPs, not measured)")
    for gpus in (1, 8, 64) if found.days(1) * DAY >= LONG else (1,):
        lines.append(
            f"on {gpus:2} GPU{'s' if gpus > 1 else ''}: {_size(found.memory(gpus))} each under FSDP2, "
            f"{_duration(found.days(gpus))} of H100 at {MFU:.0%} MFU"
        )
    return "\n".join(lines)


def _size(count: float) -> str:
    """Format a number of bytes in GB, or in MB below 1 GB."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _duration(days: float, prefix: str = "") -> str:
    """Format a time in the largest unit in which it is at least 1."""
    size, unit = next(((size, unit) for size, unit in UNITS if days * DAY >= size), (1, "seconds"))
    return f"{days * DAY / size:,.3g} {prefix}{unit}"
