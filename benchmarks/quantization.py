"""What fewer bits cost: memory, velocities, answers and checker scores of the shipped (or any JanusFlow) model.

python benchmarks/quantization.py
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from janusflow import JanusFlow
from janusflow.checkpoint.quantization import weight_bytes
from janusflow.tinyworld.checker import check
from janusflow.tinyworld.items import WorldSettings, tasks, to_answer, to_generate
from janusflow.tinyworld.verdicts import as_read

FULL: dict[str, dict[str, Any]] = {"float32": {"dtype": "float32"}, "bfloat16": {"dtype": "bfloat16"}}
FEWER: dict[str, dict[str, Any]] = {
    "int8": {"dtype": "float32", "quantize": "int8"},
    "int4": {"dtype": "float32", "quantize": "int4"},
}
VARIANTS = {**FULL, **FEWER}


@torch.inference_mode()
def velocity(model: JanusFlow, prompts: list[str]) -> Tensor:
    """Return v(x, t) of fixed noise at t = 0.1, 0.3, ..., 0.9. Whole paths part if noise lies between two pictures."""
    sizes = model.network.config
    shape = (len(prompts), sizes.latent_channels, sizes.latent_size, sizes.latent_size)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(model.device)
    prefix = model.network.encode_prompts(*model.processor.encode_prompts(prompts))
    times = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], device=model.device)
    return torch.stack([model.network.velocity(noise, t.expand(len(prompts)), prefix).float() for t in times])


def main(
    model: Annotated[str, typer.Option(help="'tiny' or a folder.")] = "tiny",
    questions: Annotated[int, typer.Option(help="Questions of each kind about rendered scenes.")] = 17,
    prompts: Annotated[int, typer.Option(help="Prompts of each kind.")] = 15,
    guidance: Annotated[float, typer.Option(help="Guidance weight.")] = 2.0,
    only: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(VARIANTS)}; repeatable.")] = None,
) -> None:
    """Print a table in Markdown."""
    settings = WorldSettings(prompts=prompts, images=1, questions=questions, all_kinds=False)
    asked, wanted = to_answer(settings), to_generate(settings)
    texts, pictures = [item.prompt for item in asked], [item.images[0] for item in asked]
    wishes = [task.prompt for kind in ("single_object", "position") for task in tasks(kind, 8, held_out=False)]
    expected, said = None, None
    head = ("weights", "MB", "of float32", "velocity, relative L2", "same tokens", "right answers", "pictures passed")
    print("| " + " | ".join(head) + " |\n| --- |" + " ---: |" * (len(head) - 1))
    full = 0
    for name in ["float32", *(only or list(VARIANTS)[1:])]:
        options = VARIANTS[name]
        opened = JanusFlow.from_pretrained(model, **options)
        size = weight_bytes(opened.network)
        full = full or size
        velocities = velocity(opened, wishes)
        answers = opened.ask_batch(texts, pictures, max_new_tokens=80)
        tokens = [opened.processor.tokenizer.encode(answer) for answer in answers]
        expected = velocities if expected is None else expected
        said = tokens if said is None else said
        far = float((velocities - expected).norm() / expected.norm())
        agreeing = [
            sum(a == b for a, b in zip(one, other, strict=False)) for one, other in zip(tokens, said, strict=True)
        ]
        same = sum(agreeing) / sum(max(map(len, pair)) for pair in zip(tokens, said, strict=True))
        firsts = [item.data["answers"][0] for item in asked]
        right = sum(as_read(a.strip(), b) == b for a, b in zip(answers, firsts, strict=True)) / len(asked)
        generated = opened.generate(
            [item.prompt for item, _ in wanted],
            seed=[item.seed for item, _ in wanted],
            guidance_scale=guidance,
            batch_size=64,
        )
        judged = [check(task, np.asarray(one)).passed for one, (_, task) in zip(generated, wanted, strict=True)]
        passed = sum(judged) / len(judged)
        print(
            f"| {name} | {size / 1e6:.1f} | {size / full:.0%} | {far:.4f} | {same:.3f} | {right:.3f} | {passed:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    typer.run(main)
