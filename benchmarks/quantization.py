"""What fewer bits cost: memory, latents, answers and checker scores of the shipped (or any JanusFlow) model.

python benchmarks/quantization.py
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from PIL import Image

from janusflow import JanusFlow
from janusflow.evaluation import tinyworld
from janusflow.quantization import weight_bytes
from janusflow.tinyworld.scenes import render

VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
    "int8, float32 products": {"dtype": "float32", "quantize": "int8"},
    "int8, bfloat16 products": {"dtype": "bfloat16", "quantize": "int8"},
    "int4, float32 products": {"dtype": "float32", "quantize": "int4"},
    "int4, bfloat16 products": {"dtype": "bfloat16", "quantize": "int4"},
}


def main(
    model: Annotated[str, typer.Option(help="'tiny' or a folder.")] = "tiny",
    questions: Annotated[int, typer.Option(help="Asked about rendered scenes.")] = 200,
    prompts: Annotated[int, typer.Option(help="Painted of each kind.")] = 10,
    guidance: Annotated[float, typer.Option(help="Guidance weight.")] = 2.0,
) -> None:
    """Prints a table in Markdown."""
    asked = tinyworld.questions(questions)
    texts = [question.text for _, question in asked]
    pictures = [Image.fromarray(render(scene)) for scene, _ in asked]
    wishes = [
        task.prompt for kind in ("single_object", "position") for task in tinyworld.tasks(kind, 8, held_out=False)
    ]
    expected, said = None, None
    print("| weights | MB | of float32 | last latent, relative L2 | same answers | right answers | pictures passed |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    full = 0
    for name, options in VARIANTS.items():
        opened = JanusFlow.from_pretrained(model, **options)
        size = weight_bytes(opened.network)
        full = full or size
        latents = opened.generate(wishes, seed=0, guidance_scale=guidance, output_type="latent", progress=False)
        answers = opened.ask_batch(texts, pictures, max_new_tokens=80)
        expected = latents if expected is None else expected
        said = answers if said is None else said
        far = float((latents - expected).norm() / expected.norm())
        same = sum(a == b for a, b in zip(answers, said, strict=True)) / questions
        right = sum(a.strip() == q.answer for a, (_, q) in zip(answers, asked, strict=True)) / questions
        painted = list(tinyworld.paint(opened, prompts=prompts, images=1, guidance_scale=guidance))
        passed = sum(not one.problem for one in painted) / len(painted)
        print(
            f"| {name} | {size / 1e6:.1f} | {size / full:.0%} | {far:.4f} | {same:.3f} | {right:.3f} | {passed:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    typer.run(main)
