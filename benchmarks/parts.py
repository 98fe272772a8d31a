"""What the pretrained parts of a recipe know before stage 1: shapes, subjects, and how to look things up in a text.

python benchmarks/parts.py --model runs/pictograms/parts/export --data data/pictograms

If the tower does not tell shapes apart, the stages that keep it frozen cannot answer questions about them. If the
language model does not find the answer in a description in words, it will not find it in a picture. What the VAE loses
is measured by `reconstruction.py`.
"""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Annotated, Any

import torch
import typer
from PIL import Image
from pyarrow import feather, parquet
from torch import Tensor
from torch.nn import functional as F

from janusflow.data.samples import square
from janusflow.pipelines.base import Pipeline
from janusflow.pipelines.janusflow import JanusFlow
from janusflow.tinyworld.captions import GENEVAL_KINDS, describe, sample_pair
from janusflow.tinyworld.questions import MAKERS, sample_question
from janusflow.tinyworld.scenes import UNITS, render
from janusflow.tinyworld.verdicts import as_read

BATCH = 128
FITTED, TESTED = 3000, 600  # scenes
RIDGE = 1e-3  # of the mean eigenvalue
ASKED = [kind for kind in MAKERS if kind != "describe"]  # a description is given


def features(network: Any, pictures: Sequence[Image.Image]) -> Tensor:
    """Return the tower's states of all patches, (pictures, P, W)."""
    side, device = network.config.image_size, network.device
    parts = []
    with torch.inference_mode():
        for start in range(0, len(pictures), BATCH):
            pixels = torch.stack([square(picture, side, None) for picture in pictures[start : start + BATCH]])
            parts.append(network.understanding_encoder.features(pixels.to(device)).float().cpu())
    return torch.cat(parts)


def probe(known: Tensor, labels: Tensor, tested: Tensor, right: Tensor) -> float:
    """Return the accuracy of a ridge classifier on features (N, W) and (M, W)."""
    mean, deviation = known.mean(0), known.std(0).clamp(min=1e-6)
    known, tested = ((F.pad((part - mean) / deviation, (0, 1), value=1.0)).double() for part in (known, tested))
    gram = known.T @ known
    gram += RIDGE * gram.trace() / len(gram) * torch.eye(len(gram), dtype=gram.dtype)
    weights = torch.linalg.solve(gram, known.T @ F.one_hot(labels).double())
    return ((tested @ weights).argmax(1) == right).double().mean().item()


def shapes(network: Any) -> dict[str, float]:
    """Probe the patch at the center of each shape in scenes of the tiny world for the shape's kind and color."""
    rng, states, found = Random("parts"), [], defaultdict[str, list[Any]](list)
    scenes = [sample_pair(rng, GENEVAL_KINDS[n % len(GENEVAL_KINDS)])[1] for n in range(FITTED + TESTED)]
    every = features(network, [Image.fromarray(render(scene)) for scene in scenes])
    side = round(every.shape[1] ** 0.5)
    fitted = 0
    for number, (scene, patches) in enumerate(zip(scenes, every, strict=True)):
        for shape in scene.shapes:
            column, row = int(shape.x * side / UNITS), int(shape.y * side / UNITS)
            states.append(patches[row * side + column])
            found["kind"].append(shape.kind)
            found["color"].append(shape.color)
        fitted = len(states) if number < FITTED else fitted
    stacked, scores = torch.stack(states), {}
    for name, words in found.items():
        ids = {word: number for number, word in enumerate(sorted(set(words)))}
        labels = torch.tensor([ids[word] for word in words])
        scores[name] = round(probe(stacked[:fitted], labels[:fitted], stacked[fitted:], labels[fitted:]), 3)
    return scores


def subjects(network: Any, data: Path) -> dict[str, float]:
    """Name held-out pictures, whose style their subject never has in training, by the nearest mean of a subject.

    Features are means over patches, centered, of length 1.
    """
    columns = ["image", "subject", "style", "background"]
    shards = [parquet.read_table(file, columns=columns) for file in sorted(data.glob("shard-*.parquet"))]
    rows = [row for shard in shards for row in shard.to_pylist() if row["background"] == "white"]
    held = feather.read_table(data / "held_out.feather", columns=["image", "subject", "held_out"]).to_pylist()
    asked = [row for row in held if row["held_out"] == "style"]
    wanted = {row["subject"] for row in asked}
    rows = [row for row in rows if row["subject"] in wanted]
    known, tested = (
        features(network, [Image.open(io.BytesIO(row["image"]["bytes"])) for row in part]).mean(1)
        for part in (rows, asked)
    )
    mean = known.mean(0)
    names = sorted({row["subject"] for row in rows})
    units = F.normalize(known - mean, dim=1)
    means = torch.stack([units[[row["subject"] == name for row in rows]].mean(0) for name in names])
    ranked = (F.normalize(tested - mean, dim=1) @ F.normalize(means, dim=1).T).argsort(1, descending=True)
    hits = [row["subject"] in [names[n] for n in ranked[number, :5]] for number, row in enumerate(asked)]
    first = [row["subject"] == names[ranked[number, 0]] for number, row in enumerate(asked)]
    return {"of": len(names), "top-1": round(sum(first) / len(asked), 3), "top-5": round(sum(hits) / len(asked), 3)}


def answers(model: Pipeline, count: int) -> dict[str, float]:
    """Ask questions of each kind about scenes that are described in words; return the share that is right."""
    scores = {}
    for kind in ASKED:
        rng, talks, wanted = Random(f"parts/{kind}"), [], []
        while len(talks) < count:
            scene = sample_pair(rng, rng.choice(GENEVAL_KINDS))[1]
            question = sample_question(rng, scene, kind)
            if question is not None:
                talks.append([{"role": "user", "content": f"{describe(scene)}\n{question.text}"}])
                wanted.append(question.answer)
        said = model.chat_batch(talks, max_new_tokens=16)
        right = [as_read(text.strip(), answer) == answer for text, answer in zip(said, wanted, strict=True)]
        scores[kind] = round(sum(right) / count, 3)
    return {**scores, "mean": round(sum(scores.values()) / len(scores), 3)}


def main(
    model: Annotated[str, typer.Option(help="'tiny', a folder or a hub id.")],
    data: Annotated[
        Path | None, typer.Option(help="Data set of pictograms; without it, subjects are left out.")
    ] = None,
    questions: Annotated[int, typer.Option(help="Questions of each kind.")] = 60,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
) -> None:
    """Print what linear probes read from the tower, and how many questions about descriptions are answered right."""
    pipeline = JanusFlow.from_pretrained(model, device=device)
    found: dict[str, Any] = {"shapes, by patch": shapes(pipeline.network)}
    if data is not None:
        found["subjects in a style never seen"] = subjects(pipeline.network, data)
    found["questions about descriptions"] = answers(pipeline, questions)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    typer.run(main)
