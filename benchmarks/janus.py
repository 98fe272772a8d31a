"""Codes per second of Janus: our loop, also in int8, the official code's and transformers' own, on the same weights.

python benchmarks/janus.py                             # Janus-1.3B's size, random weights, 25 of a picture's 576 codes
python benchmarks/janus.py --dtype float32 --layers 8  # on a CPU without bfloat16 units
python benchmarks/janus.py --small                     # to check that it runs
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated

import torch
import typer
from torch import Tensor
from transformers import GenerationConfig, JanusConfig, JanusVisionConfig, JanusVQVAEConfig, LlamaConfig
from transformers import JanusForConditionalGeneration as TransformersJanus

from janusflow.checkpoint.quantization import quantize
from janusflow.device import resolve_device
from janusflow.engine.token_generation import TokenSampling, draw_codes, read_prompts
from janusflow.model.janus import JanusForConditionalGeneration, unconditional_ids

BOS, BEGIN, PAD = 1, 2, 3
GUIDANCE = 5.0


def sizes(side: int, *, layers: int, small: bool) -> JanusConfig:
    """Return the dimensions of Janus-1.3B with `layers` layers, or of a tiny network; side x side codes per picture."""
    width, layers = (256, 2) if small else (2048, layers)
    text = LlamaConfig(
        vocab_size=102400 if not small else 512,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=width // 128,
        num_key_value_heads=width // 128,
        max_position_embeddings=16384,
        tie_word_embeddings=False,
    )
    vision = JanusVisionConfig(image_size=16 * side, projection_dim=width, num_image_tokens=side**2)
    codec = JanusVQVAEConfig(projection_dim=width, image_token_embed_dim=width)
    return JanusConfig(
        text_config=text.to_dict(),
        vision_config=vision.to_dict(),
        vq_config=codec.to_dict(),
        tie_word_embeddings=False,
    )


@torch.inference_mode()
def ours(network: JanusForConditionalGeneration, ids: Tensor, pictures: int) -> Tensor:
    """Run our loop: read each prompt once, then both guidance rows of all pictures in one cached batch."""
    read = read_prompts(network, ids, torch.ones_like(ids), PAD, guided=True)
    owner = torch.zeros(pictures, dtype=torch.long, device=ids.device)
    chance = torch.zeros(pictures, network.image_tokens, device=ids.device)
    return draw_codes(network, read, owner, chance, TokenSampling(GUIDANCE, do_sample=False))


@torch.inference_mode()
def official(network: JanusForConditionalGeneration, ids: Tensor, pictures: int) -> Tensor:
    """Run the loop of the official code: all rows read the prompt, pairs of rows are adjacent, the cache grows."""
    empty = unconditional_ids(ids, torch.ones_like(ids), PAD)
    rows = torch.cat([ids, empty]).repeat(pictures, 1)
    embeds, cache, drawn = network.get_input_embeddings()(rows), None, []
    for _ in range(network.image_tokens):
        outputs = network.model.language_model(inputs_embeds=embeds, use_cache=True, past_key_values=cache)
        cache = outputs.past_key_values
        logits = network.model.generation_head(outputs.last_hidden_state[:, -1])
        logits = logits[1::2] + GUIDANCE * (logits[0::2] - logits[1::2])
        token = torch.softmax(logits, dim=-1).argmax(dim=-1)
        drawn.append(token)
        embeds = network.prepare_embeddings_for_image_generation(token.repeat_interleave(2)[:, None])
    return torch.stack(drawn, dim=1)


@torch.inference_mode()
def transformers_own(network: JanusForConditionalGeneration, ids: Tensor, pictures: int) -> Tensor:
    """Run `generate(generation_mode="image")` with its static cache."""
    config = GenerationConfig(
        guidance_scale=GUIDANCE,
        do_sample=False,
        bos_token_id=BOS,
        pad_token_id=PAD,
        num_return_sequences=1,
        generation_kwargs={"boi_token_id": BEGIN},
    )
    rows = ids.repeat(pictures, 1)
    codes = TransformersJanus.generate(
        network, rows, attention_mask=torch.ones_like(rows), generation_mode="image", generation_config=config
    )
    assert isinstance(codes, Tensor)
    return codes


def main(
    pictures: Annotated[list[int] | None, typer.Option(help="Batch sizes; repeatable. 1 and 8 by default.")] = None,
    side: Annotated[int, typer.Option(help="A picture is side x side tokens; 24 for the released ones.")] = 5,
    repeats: Annotated[int, typer.Option(help="Runs of each, taking turns.")] = 5,
    prompt: Annotated[int, typer.Option(help="Number of tokens in the prompt.")] = 40,
    layers: Annotated[int, typer.Option(help="Layers of the language model; 24 in the released ones.")] = 24,
    dtype: Annotated[str, typer.Option(help="float32 for CPUs without bfloat16 units.")] = "bfloat16",
    small: Annotated[bool, typer.Option("--small", help="A tiny network.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
) -> None:
    """Print a table in Markdown: the median of the repeats, their range, and ratios."""
    torch.manual_seed(0)
    found = sizes(side, layers=layers, small=small)
    network = JanusForConditionalGeneration._from_config(found, dtype=getattr(torch, dtype)).eval()
    network = network.to(resolve_device(device))
    eight = copy.deepcopy(network)
    quantize(eight, "int8")
    inner = torch.randint(4, 500, (1, prompt - 2))
    ids = torch.cat([torch.tensor([[BOS]]), inner, torch.tensor([[BEGIN]])], dim=1).to(network.device)
    loops: dict[str, Callable[[Tensor, int], Tensor]] = {
        "janusflow": partial(ours, network),
        "janusflow, int8": partial(ours, eight),
        "official loop": partial(official, network),
        "transformers' generate": partial(transformers_own, network),
    }
    count = sum(parameter.numel() for parameter in network.parameters())
    print(f"{count:,} parameters, {network.dtype}, {network.device}; {side * side} codes after {prompt} tokens\n")
    print("| loop | pictures | codes/s | range | of transformers' | of one picture | same codes |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    alone: dict[str, float] = {}
    for many in pictures or [1, 8]:
        drawn = {name: loop(ids, many) for name, loop in loops.items()}  # also warms up
        speeds = timed(loops, ids, many, repeats)
        middle = {name: statistics.median(values) for name, values in speeds.items()}
        for name, values in speeds.items():
            same = float((drawn[name] == drawn["janusflow"]).float().mean())
            of_one = middle[name] / alone.setdefault(name, middle[name])
            of_theirs = middle[name] / middle["transformers' generate"]
            print(
                f"| {name} | {many} | {middle[name]:.2f} | {min(values):.2f} to {max(values):.2f} | {of_theirs:.2f} "
                f"| {of_one:.2f} | {same:.0%} |"
            )


def timed(
    loops: Mapping[str, Callable[[Tensor, int], Tensor]], ids: Tensor, pictures: int, repeats: int
) -> dict[str, list[float]]:
    """Return codes per second of each loop, measured several times, taking turns."""
    speeds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(repeats):
        for name, loop in loops.items():
            started = time.perf_counter()
            codes = loop(ids, pictures)
            speeds[name].append(codes.numel() / (time.perf_counter() - started))
    return speeds


if __name__ == "__main__":
    typer.run(main)
