"""Deviation of the network from the official code's outputs for a golden case: the figures behind test_parity.py.

python benchmarks/parity.py tests/golden/janusflow-small-a
python benchmarks/parity.py tests/golden/janusflow-small-a --device cuda    # without TF32
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from safetensors.torch import load_file
from torch import Tensor

from janusflow import JanusFlow
from janusflow.model import PromptPrefix


def deviation(found: Tensor, expected: Tensor) -> float:
    """Return the largest deviation, as a share of max(1, max|expected|)."""
    found = found.cpu()
    return float((found - expected).abs().max() / max(1.0, float(expected.abs().max())))


def trajectory(model: JanusFlow, case: dict[str, Any], noise: Tensor) -> list[Tensor]:
    """Return the latent after each step."""
    steps: list[Tensor] = []
    model.generate(
        case["prompt"],
        num_images_per_prompt=case["parallel_size"],
        num_inference_steps=case["num_inference_steps"],
        guidance_scale=case["cfg_weight"],
        latents=noise,
        output_type="latent",
        callback_on_step_end=lambda _model, _step, _t, given: steps.append(given["latents"]),
        progress=False,
    )
    return steps


@torch.inference_mode()
def of_understanding(model: JanusFlow, folder: Path, cases: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Print the deviations of pixels, embeddings and logits."""
    talks = [
        [{**message, "images": [folder / name for name in message.get("images", [])]} for message in messages]
        for messages in cases["conversations"][:2]
    ]
    batch = model.processor.encode_conversations(talks)
    used = tensors["und.images_emb_mask"].any(dim=-1)
    assert batch.pixel_values is not None
    print(f"| pixels | {deviation(batch.pixel_values, tensors['und.pixel_values'][used]):.1e} |")
    ids, mask, pixels = (x.to(model.device) for x in (batch.input_ids, batch.attention_mask, batch.pixel_values))
    embeds = model.network.embed(ids, pixels)
    print(f"| embeddings with pictures | {deviation(embeds, tensors['und.inputs_embeds']):.1e} |")
    output = model.network(input_ids=ids, pixel_values=pixels, attention_mask=mask, logits_to_keep=1)
    print(f"| last logits | {deviation(output.logits[:, 0], tensors['und.last_logits']):.1e} |")


@torch.inference_mode()
def of_generation(model: JanusFlow, low: JanusFlow, cases: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Print the deviations of first velocities and whole trajectories, and of the last latents in bfloat16."""
    for number, case in enumerate(cases["t2i"]):
        noise, steps = tensors[f"t2i.{number}.z0"], case["num_inference_steps"]
        ids, mask = (x.to(model.device) for x in model.processor.encode_prompts([case["prompt"]]))
        prefix = model.network.encode_prompts(ids, mask)
        rows = prefix.select(torch.zeros(len(noise), dtype=torch.long, device=model.device))
        both = PromptPrefix.concatenate(rows, rows.unconditional())
        twice = torch.cat([noise, noise]).to(model.device)
        velocity = model.network.velocity(twice, torch.zeros(len(twice), device=model.device), both)
        expected = torch.cat([tensors[f"t2i.{number}.step0.{name}"] for name in ("v_cond", "v_uncond")])
        print(f"| case {number}: first velocities | {deviation(velocity, expected):.1e} |")
        path = trajectory(model, case, noise)
        worst = max(deviation(x, tensors[f"t2i.{number}.z{k}"]) for k, x in enumerate(path, start=1))
        print(f"| case {number}: trajectory of {steps} steps, guidance {case['cfg_weight']} | {worst:.1e} |")
        last = tensors[f"t2i.{number}.z{steps}"]
        relative = float((trajectory(low, case, noise)[-1].float().cpu() - last).norm() / last.norm())
        print(f"| case {number}: last latent in bfloat16, relative L2 | {relative:.2%} |")


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of a golden case.")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "cpu",
) -> None:
    """Print a table in Markdown."""
    torch.backends.cudnn.allow_tf32 = False
    cases, tensors = json.loads((folder / "expected.json").read_text()), load_file(folder / "expected.safetensors")
    print("| | largest deviation |\n| --- | ---: |")
    model = JanusFlow.from_pretrained(folder, device=device)
    of_understanding(model, folder, cases, tensors)
    of_generation(model, JanusFlow.from_pretrained(folder, device=device, dtype="bfloat16"), cases, tensors)


if __name__ == "__main__":
    typer.run(main)
