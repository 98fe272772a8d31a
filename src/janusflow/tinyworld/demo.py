"""The demonstration: generate pictures, ask questions about a generated and a rendered one, and check everything."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from janusflow.pipelines.base import Pipeline
from janusflow.pipelines.sheet import contact_sheet, make_folder, save_png
from janusflow.tinyworld.captions import Clause, Task, sample_pair
from janusflow.tinyworld.checker import check, read
from janusflow.tinyworld.questions import sample_question
from janusflow.tinyworld.scenes import Scene, render

TASKS = (
    Task("single_object", "a star", (Clause("star"),)),
    Task("colors", "a photo of a purple diamond", (Clause("diamond", color="purple"),)),
    Task("two_object", "a square and a triangle", (Clause("square"), Clause("triangle"))),
    Task("counting", "three circles", (Clause("circle", 3),)),
    Task(
        "position",
        "a red circle above a blue square",
        (Clause("circle", color="red"), Clause("square", color="blue")),
        relation="above",
    ),
    Task(
        "color_attr",
        "a white cross and an orange star",
        (Clause("cross", color="white"), Clause("star", color="orange")),
    ),
)
ASKED = ("color", "shape", "count", "exists", "relation", "describe")
UNJUDGED = ("what color is the background?", "how many shapes are there?", "describe the picture.")
GUIDANCE = 2.0
STEPS = 30


def show(model: Pipeline, out: Path, *, seed: int = 0) -> None:
    """Run the demonstration, and write its pictures and `sheet.png` into a folder.

    Args:
        model: the shipped model, or another one trained on the tiny world.
        out: folder for the pictures.
        seed: seed of the noise and of the rendered scene.
    """
    make_folder(out)
    started = time.perf_counter()
    prompts = [task.prompt for task in TASKS]
    generated = model.generate(prompts, seed=seed, guidance_scale=GUIDANCE, num_inference_steps=STEPS)
    right = 0
    for task, picture in zip(TASKS, generated, strict=True):
        verdict = check(task, np.asarray(picture))
        right += verdict.passed
        print(f"generated {task.prompt!r}: {'as asked' if verdict.passed else verdict.problem}")
        save_png(picture, out / f"{task.kind}.png", {"prompt": task.prompt, "seed": seed, "guidance_scale": GUIDANCE})
    scene = sample_pair(Random(f"demo-{seed}"), "dense")[1]
    rendered = Image.fromarray(render(scene))
    save_png(rendered, out / "rendered.png", {"Software": "janusflow tinyworld"})
    answers = _ask(model, "rendered", rendered, scene, seed)
    readable = [(picture, read(np.asarray(picture)).scene) for picture in reversed(generated)]
    picture, seen = next(((p, s) for p, s in readable if s is not None and s.shapes), (generated[0], None))
    if seen is not None:
        answers += _ask(model, "generated", picture, seen, seed)
    else:
        for question in UNJUDGED:
            print(f"generated {question} {model.ask(question, picture).strip()} (not judged: no clear shapes)")
    sheet = contact_sheet([*generated, rendered], [*prompts, "(rendered, to ask about)"])
    save_png(sheet, out / "sheet.png", {"seed": seed, "guidance_scale": GUIDANCE, "num_inference_steps": STEPS})
    print(
        f"{right} of {len(TASKS)} pictures as asked, {sum(answers)} of {len(answers)} answers right, "
        f"{time.perf_counter() - started:.0f} s; see {out / 'sheet.png'}"
    )


def _ask(model: Pipeline, name: str, picture: Image.Image, scene: Scene, seed: int) -> list[bool]:
    """Ask one question of each kind that the scene allows, and return which answers were right."""
    rng, right = Random(f"questions-{seed}"), []
    for kind in ASKED:
        question = sample_question(rng, scene, kind)
        if question is not None:
            answer = model.ask(question.text, picture).strip()
            right.append(answer == question.answer)
            print(f"{name:9} {question.text} {answer} ({'right' if right[-1] else f'wrong: {question.answer}'})")
    return right
