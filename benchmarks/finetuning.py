"""Teach a model a color or shape that it never saw, from 200 pictures, and score it on this and on all that it knew.

python benchmarks/finetuning.py --out runs/finetuning

These are runs of recipes/tiny/finetune_both.yaml. The first has its defaults: samples other than the lessons are
anchors, on which the model learns its own earlier output (docs/training.md, Fine-tuning). Rounds of
recipes/tiny/finetune_round.yaml follow it, in which the checker judges the pictures of the new color or shape that the
tuned model generates. The next run trains LoRA instead of the whole LLM. The last ones replace the anchors with
pictures that the model generates before the run, or with nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from random import Random
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

from janusflow import JanusFlow
from janusflow.device import resolve_device, resolve_precision
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.evaluate import evaluate
from janusflow.tinyworld.benchmark import MEANS
from janusflow.tinyworld.captions import FRAMES, Clause, Task, listed, noun_phrase, scene_for
from janusflow.tinyworld.checker import check
from janusflow.tinyworld.questions import Question, sample_question, sample_talk
from janusflow.tinyworld.scenes import COLORS, RESERVED_COLORS, RESERVED_SHAPES, SHAPES, Scene, render
from janusflow.training.config import load_config
from janusflow.training.trainer import train

RECIPES = Path(__file__).parents[1] / "recipes" / "tiny"
RUNS = {
    "with anchors": [],
    "with anchors, LoRA": ["lora.rank=16", "optimizer.name=adamw", "optimizer.learning_rate=1e-3"],
    "with its own drawings": [
        "data.understanding=[{kind: tinyworld}]",
        "data.generation=[{kind: replay, path: tinyworld, images: 840}]",
    ],
    "with nothing": ["data.own_share=1"],
}
NEW = (*RESERVED_COLORS, *RESERVED_SHAPES)
ROUND_PROMPTS, MOST_ROUNDS = 420, 5


def lesson(rng: Random, new: str) -> tuple[Task, Scene]:
    """Return a picture with the new color or shape, alone or next to a known shape, and its prompt."""
    while True:
        if new in RESERVED_COLORS:
            clauses = [Clause(rng.choice(SHAPES), color=new)]
        else:
            clauses = [Clause(new, color=rng.choice(tuple(COLORS)) if rng.random() < 0.7 else None)]
        if rng.random() < 0.4:
            clauses.append(Clause(rng.choice(SHAPES), color=rng.choice(tuple(COLORS)) if rng.random() < 0.5 else None))
            rng.shuffle(clauses)
        prompt = rng.choice(FRAMES).format(listed([noun_phrase(clause) for clause in clauses]))
        task = Task("new", prompt, tuple(clauses))
        scene = scene_for(rng, task, training=False)
        if scene is not None:
            return task, scene


def write_lessons(folder: Path, new: str, count: int) -> None:
    """Write pictures with captions and conversations, as a user would have them."""
    folder.mkdir(parents=True)
    rows = []
    for index in range(count):
        rng = Random(f"lesson-{index}")
        task, scene = lesson(rng, new)
        Image.fromarray(render(scene)).save(folder / f"{index:03d}.png")
        talk = sample_talk(rng, scene, rng.randint(2, 4))
        messages = [
            {"from": who, "value": said}
            for question in talk
            for who, said in (("human", question.text), ("gpt", question.answer))
        ]
        rows.append({"file_name": f"{index:03d}.png", "text": task.prompt, "conversations": messages})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def round_tasks(new: str, number: int) -> list[Task]:
    """Return a round's tasks for the new color or shape, sampled in the same way as lessons."""
    first = number * ROUND_PROMPTS
    return [lesson(Random(f"round-{index}"), new)[0] for index in range(first, first + ROUND_PROMPTS)]


@cache
def asked_for(new: str) -> dict[str, Task]:
    """Return the tasks of the first rounds by their prompts."""
    return {task.prompt: task for number in range(1, MOST_ROUNDS + 1) for task in round_tasks(new, number)}


def right(prompt: str, picture: Image.Image) -> float:
    """Judge the pictures of the rounds: 1 if the checker finds the picture right."""
    task = next(asked_for(new)[prompt] for new in NEW if f" {new}" in prompt)
    return float(check(task, np.asarray(picture)).passed)


def another_round(start: str, model: str, out: Path, new: str, number: int) -> str:
    """Train a tuned model on its own right pictures of the new, and towards the earlier model's pictures of the old."""
    prompts = out / f"prompts{number}.txt"
    prompts.write_text("".join(f"{task.prompt}\n" for task in round_tasks(new, number)))
    given = [
        f"model={start}",
        f"out={out / f'round{number}'}",
        f"seed={number}",
        f"data.understanding.1.path={out / 'lessons'}",
        f"data.generation.0.teacher={model}",
        f"data.generation.1.path={prompts}",
        f"data.generation.1.images={ROUND_PROMPTS}",
        "data.generation.1.judge=finetuning:right",
    ]
    return str(train(load_config(RECIPES / "finetune_round.yaml", given)))


def new_tasks(new: str) -> list[Task]:
    """Return tasks with the new shape alone, in each color and next to each known shape; for a new color likewise."""
    clauses: list[tuple[Clause, ...]]
    if new in RESERVED_COLORS:
        neighbors = tuple(zip(SHAPES, SHAPES[1:] + SHAPES[:1], strict=True))
        clauses = [(Clause(shape, color=new),) for shape in SHAPES]
        clauses += [(Clause(shape, color=new), Clause(other)) for shape, other in neighbors]
        clauses += [(Clause(shape, color="red"), Clause(other, color=new)) for shape, other in neighbors]
    else:
        clauses = [(Clause(new),), *((Clause(new, color=color),) for color in COLORS)]
        clauses += [(Clause(new), Clause(other)) for other in SHAPES]
    return [Task("new", listed([noun_phrase(clause) for clause in some]), some) for some in clauses]


def new_questions(new: str, count: int) -> Iterable[tuple[Scene, Question]]:
    """Return questions about pictures of the new color or shape that are not in the lessons."""
    for index in range(count):
        rng = Random(f"examination-{index}")
        scene = lesson(rng, new)[1]
        question = sample_question(rng, scene)
        assert question is not None
        yield scene, question


def examine(checkpoint: str, new: str, out: Path, *, prompts: int, questions: int, guidance: float) -> dict[str, float]:
    """Return the shares of right pictures and answers, for the new and, as means over kinds, for all old kinds."""
    precision = resolve_precision("auto", resolve_device())
    model = JanusFlow.from_pretrained(checkpoint, dtype=precision)
    tasks = new_tasks(new)
    pictures = model.generate(
        [task.prompt for task in tasks], num_images_per_prompt=4, seed=0, guidance_scale=guidance, batch_size=60
    )
    passed = [check(tasks[index // 4], np.asarray(picture)).passed for index, picture in enumerate(pictures)]
    asked = list(new_questions(new, questions))
    said = model.ask_batch(
        [question.text for _, question in asked], [Image.fromarray(render(scene)) for scene, _ in asked]
    )
    answers = [text.strip() == question.answer for text, (_, question) in zip(said, asked, strict=True)]
    each = questions // len(MEANS["answering"])
    settings = {"prompts": prompts, "images": 2, "questions": each, "features": False}
    request = EvalRequest(
        "tinyworld", out, checkpoint, dtype=precision, options={"guidance_scale": guidance}, settings=settings
    )
    old = evaluate(request, model=model)["scores"]
    print("old kinds: " + ", ".join(f"{name} {score:.3f}" for name, score in old.items()), flush=True)
    return {
        "new pictures": float(np.mean(passed)),
        "new answers": float(np.mean(answers)),
        "old pictures": old["drawing"],
        "old answers": old["answering"],
    }


def table(rows: dict[str, dict[str, float]]) -> str:
    """Return the table in Markdown."""
    columns = list(rows["before"])
    lines = ["| | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * len(columns)]
    lines += [
        f"| {name} | " + " | ".join(f"{row[column]:.3f}" for column in columns) + " |" for name, row in rows.items()
    ]
    return "\n".join(lines)


def main(
    out: Annotated[Path, typer.Option(help="Folder for lessons and runs; must not exist.")] = Path("runs/finetuning"),
    model: Annotated[str, typer.Option(help="'tiny' or a folder.")] = "tiny",
    new: Annotated[str, typer.Option(help=f"{', '.join(NEW)}.")] = "cyan",
    pictures: Annotated[int, typer.Option(help="Number of pictures in the lesson.")] = 200,
    prompts: Annotated[int, typer.Option(help="Old prompts of each kind, two pictures each.")] = 100,
    questions: Annotated[int, typer.Option(help="Number of new questions, and of old ones.")] = 400,
    rounds: Annotated[int, typer.Option(help="Rounds after the first run.", max=MOST_ROUNDS)] = 3,
    guidance: Annotated[float, typer.Option(help="Guidance weight of the pictures that are judged.")] = 1.5,
    only: Annotated[list[str] | None, typer.Option(help=f"Runs, by default all: {', '.join(RUNS)}.")] = None,
) -> None:
    """Print a table in Markdown after each run: the scores before, and after the runs so far."""
    if new not in NEW:
        raise typer.BadParameter(f"{new!r} is nothing new; expected one of {', '.join(NEW)}")
    if unknown := set(only or ()) - set(RUNS):
        raise typer.BadParameter(f"no run is named {', '.join(sorted(unknown))}; there are {', '.join(RUNS)}")
    lessons = out / "lessons"
    write_lessons(lessons, new, pictures)
    few: dict[str, Any] = {"prompts": prompts, "questions": questions, "guidance": guidance}
    rows = {"before": examine(model, new, out / "evaluated" / "before", **few)}
    for number, (name, changes) in enumerate(RUNS.items()):
        if only and name not in only:
            continue
        tuned = model
        for turn in range(1 + (rounds if name == next(iter(RUNS)) else 0)):
            if turn:
                tuned = another_round(tuned, model, out, new, turn)
            else:
                given = [f"model={model}", f"data={lessons}", f"out={out / f'run{number}'}", *changes]
                tuned = str(train(load_config(RECIPES / "finetune_both.yaml", given)))
            row = f"{name}, {turn} round{'s' * (turn > 1)}" if turn else name
            rows[row] = examine(tuned, new, out / "evaluated" / f"run{number}-{turn}", **few)
            print(table(rows), flush=True)


if __name__ == "__main__":
    typer.run(main)
