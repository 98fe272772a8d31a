"""Run lmms-eval with our model on two small tasks in its own format: questions about rendered scenes.

python benchmarks/lmms.py --out runs/lmms

Needs the extra [lmms]. Like lmms-eval's own tasks, each task has a YAML file, functions, and rows with pictures. Any of
its other tasks runs in the same way, with `--tasks NAME` instead of ours.
"""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Annotated

import typer

from janusflow.tinyworld.captions import sample_pair
from janusflow.tinyworld.questions import sample_question
from janusflow.tinyworld.scenes import render

COMMON = """\
dataset_path: parquet
dataset_kwargs:
  data_files: {{test: {rows}}}
test_split: test
doc_to_visual: !function utils.pictures
doc_to_text: !function utils.question
doc_to_target: answer
metadata: [{{version: 1.0}}]
"""
TASKS = {
    "tinyworld_words": """\
task: tinyworld_words
output_type: generate_until
process_results: !function utils.judge
generation_kwargs: {max_new_tokens: 48, do_sample: false, temperature: 0}
metric_list: [{metric: exact, aggregation: mean, higher_is_better: true}]
""",
    "tinyworld_choices": """\
task: tinyworld_choices
output_type: multiple_choice
doc_to_choice: ["yes", "no"]
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
""",
}
FUNCTIONS = '''\
"""What lmms-eval calls for each row of the tasks."""


def pictures(doc):
    return [doc["image"].convert("RGB")]


def question(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]


def judge(doc, results):
    return {"exact": float(results[0].strip().lower().rstrip(".") == doc["answer"].lower().rstrip("."))}
'''


def write_tasks(folder: Path, questions: int) -> None:
    """Write the tasks: questions of all kinds to answer in words, and questions to choose yes or no for."""
    from datasets import Dataset, Features, Image, Value
    from PIL import Image as Pillow

    folder.mkdir(parents=True, exist_ok=True)
    features = Features({"image": Image(), "question": Value("string"), "answer": Value("string")})
    for name, text in TASKS.items():
        rng, rows = Random(0), []
        while len(rows) < questions:
            _, scene = sample_pair(rng, rng.choice(("single_object", "two_object", "counting", "colors")))
            asked = sample_question(rng, scene, "exists" if name == "tinyworld_choices" else None)
            if asked is not None:
                stream = io.BytesIO()
                Pillow.fromarray(render(scene)).save(stream, "PNG")
                rows.append({"image": {"bytes": stream.getvalue()}, "question": asked.text, "answer": asked.answer})
        file = folder.resolve() / f"{name}.parquet"
        Dataset.from_list(rows, features=features).to_parquet(file)
        (folder / f"{name}.yaml").write_text(text + COMMON.format(rows=file))
    (folder / "utils.py").write_text(FUNCTIONS)


def main(
    out: Annotated[Path, typer.Option(help="Folder for the tasks and the results.")] = Path("runs/lmms"),
    model: Annotated[str, typer.Option(help="'tiny', a folder or a hub id.")] = "tiny",
    questions: Annotated[int, typer.Option(help="Questions per task.")] = 100,
) -> None:
    """Write the tasks and run lmms-eval on them."""
    write_tasks(out / "tasks", questions)
    command = [sys.executable, "-m", "lmms_eval", "--model", "janusflow", "--model_args", f"pretrained={model}"]
    command += ["--include_path", str(out / "tasks"), "--tasks", ",".join(TASKS), "--batch_size", "16"]
    command += ["--output_path", str(out / "results"), "--log_samples"]
    raise typer.Exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    typer.run(main)
