"""Scores the shipped (or any) model on the tiny world; the tables of docs/benchmarks.md come from here.

python benchmarks/tinyworld.py --prompts 100 --images 4 --questions 1000
"""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from janusflow import JanusFlow
from janusflow.evaluation import tinyworld
from janusflow.evaluation.tinyworld import Score
from janusflow.sheet import contact_sheet


def main(
    model: Annotated[str, typer.Option(help="'tiny' or a folder.")] = "tiny",
    prompts: Annotated[int, typer.Option(help="Of each kind.")] = 100,
    images: Annotated[int, typer.Option(help="Of each prompt.")] = 4,
    questions: Annotated[int, typer.Option(help="In all.")] = 1000,
    guidance: Annotated[float, typer.Option(help="Guidance weight.")] = 2.0,
    steps: Annotated[int, typer.Option(help="Euler steps.")] = 30,
    seed: Annotated[int, typer.Option(help="Of prompts, noise and questions.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for scores and a sheet of failures.")] = None,
) -> None:
    """Paints, asks, and prints two tables in Markdown."""
    pipeline = JanusFlow.from_pretrained(model)
    started = time.perf_counter()
    painted = list(
        tinyworld.paint(pipeline, prompts=prompts, images=images, guidance_scale=guidance, steps=steps, seed=seed)
    )
    painting = time.perf_counter() - started
    answered = list(tinyworld.answer(pipeline, count=questions, seed=seed)) if questions else []
    paint_scores, answer_scores = tinyworld.painting_scores(painted), tinyworld.answer_scores(answered)
    print(f"guidance {guidance}, {steps} Euler steps, {prompts} prompts a kind x {images}, {painting:.0f} s\n")
    for title, scores in (("pictures", paint_scores), ("answers", answer_scores)):
        print(table(title, scores))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        rows = {score.kind: [score.right, score.total] for score in paint_scores + answer_scores}
        (out / "scores.json").write_text(json.dumps(rows, indent=1) + "\n")
        wrong = [one for one in painted if one.problem][:64]
        if wrong:
            labels = [f"{one.task.prompt}: {one.problem}" for one in wrong]
            contact_sheet([one.picture for one in wrong], labels, columns=8).save(out / "failures.png")
        print(Counter(one.problem.split("(")[0] for one in painted if one.problem).most_common(12))
        print([(q.text, q.answer, said) for q, said in answered if said != q.answer][:40])


def table(title: str, scores: list[Score]) -> str:
    """Scores as a Markdown table."""
    rows = [f"| {s.kind} | {s.share:.3f} ± {s.deviation:.3f} | {s.right} of {s.total} |" for s in scores]
    return "\n".join([f"| {title} | share right | |", "| --- | --- | --- |", *rows, ""])


if __name__ == "__main__":
    typer.run(main)
