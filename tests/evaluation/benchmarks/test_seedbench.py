"""SEED-Bench: letters, likelihoods against a slow recomputation, and runs over data in the official form."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from janusflow import JanusFlow
from janusflow.evaluation.benchmarks.seedbench import SeedBench, SeedBenchSettings, choice_losses
from janusflow.evaluation.protocol import Item, Row, conversation
from tests.evaluation.benchmarks.questions import cut, judges_anything, run, save_picture

OFFICIAL = Path(os.environ.get("JANUSFLOW_BENCHMARKS", "/nowhere"))
CHOICES = [
    ["one", "two", "three", "a red circle above a blue square"],
    ["red", "a green triangle", "the large star on the left", "no"],
    ["yes", "white", "two yellow crosses", "blue"],
]


def seed_folder(folder: Path, **changes: Any) -> Path:
    """Three questions over pictures and one over a video; `changes` are to the first."""
    questions = [
        {
            "answer": "ABC"[number],
            **{f"choice_{letter}": text for letter, text in zip("abcd", choices, strict=True)},
            "data_id": f"10_{number % 2}",
            "data_type": "image",
            "question": "what color is it?" if number else "how many circles are there in the picture?",
            "question_id": str(100 + number),
            "question_type_id": kind,
        }
        for number, (choices, kind) in enumerate(zip(CHOICES, (5, 9, 9), strict=True))
    ]
    questions[0] |= changes
    video = {**questions[1], "data_id": "v.mp4", "data_type": "video", "question_id": "v7", "question_type_id": 10}
    (folder / "SEED-Bench.json").write_text(json.dumps({"questions": [*questions, video]}))
    for name in ("10_0", "10_1"):
        save_picture(folder / "SEED-Bench-image" / name, seed=int(name[-1]))
    return folder


def test_from_files_to_scores(tmp_path: Path) -> None:
    benchmark = SeedBench(seed_folder(tmp_path), SeedBenchSettings())
    said = iter(["A", "B.", "blue"])
    rows, scores, model = run(benchmark, lambda text: next(said), tmp_path / "run")
    assert [row.score for row in rows] == [1, 1, 0] and [row.item.group for row in rows] == ["10_0", "10_1", "10_0"]
    assert scores == pytest.approx({"overall": 200 / 3, "instances counting": 100, "text understanding": 50})
    assert model.talks[1][-1]["content"] == (
        "<image_placeholder>\nwhat color is it?\nA. red\nB. a green triangle\nC. the large star on the left\nD. no\n\n"
        "Answer with the option's letter from the given choices directly."
    )
    lines = (tmp_path / "run" / "official" / "results.jsonl").read_text().splitlines()
    assert json.loads(lines[2]) == {"question_id": "102", "prediction": "D", "gt_answer": "C"}


@torch.inference_mode()
def slow_loss(model: JanusFlow, talk: list[dict[str, Any]], choice: str) -> float:
    """The mean loss of a choice: one conversation with it as the answer, without cache or batch."""
    asked = model.processor.encode_conversations([talk]).input_ids.shape[1]
    told = model.processor.encode_conversations([[*talk, {"role": "assistant", "content": choice}]])
    ids = told.input_ids
    assert ids[0, -1] == model.processor.tokenizer.eos_token_id
    logits = model.network(input_ids=ids, pixel_values=told.pixel_values, attention_mask=told.attention_mask).logits
    return float(torch.nn.functional.cross_entropy(logits[0, asked - 1 : -2], ids[0, asked:-1]))


def test_the_losses_of_choices_are_those_of_a_slow_recomputation(tiny_model: JanusFlow, tmp_path: Path) -> None:
    benchmark = SeedBench(seed_folder(tmp_path), SeedBenchSettings(mode="likelihood"))
    items = benchmark.items()
    talks = [conversation(tiny_model, item) for item in items]
    assert talks[0][1]["content"] == "<image_placeholder>\nhow many circles are there in the picture?"
    found = choice_losses(tiny_model, talks, CHOICES)
    slow = torch.tensor(
        [[slow_loss(tiny_model, talk, choice) for choice in own] for talk, own in zip(talks, CHOICES, strict=True)]
    )
    assert found.shape == (3, 4) and slow.std() > 0.1
    torch.testing.assert_close(found, slow, atol=2e-4, rtol=1e-4)
    letters = benchmark.produce(tiny_model, items, {})
    assert letters == ["ABCD"[index] for index in slow.argmin(1).tolist()]
    assert [benchmark.judge(item, letter)["said"] for item, letter in zip(items, letters, strict=True)] == letters


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="set JANUSFLOW_BENCHMARKS to a folder of official files")
def test_published_letters_get_their_published_verdicts(tmp_path: Path) -> None:
    file = OFFICIAL / "seedbench" / "evaluate_result" / "SEED-Bench-1" / "GPT-4V.json"
    records = [json.loads(line.strip().rstrip(",")) for line in file.read_text().splitlines() if line.strip()]
    benchmark, rows = SeedBench(tmp_path, SeedBenchSettings()), []
    for record in records:
        data = {"type": "visual reasoning", "choices": dict.fromkeys("ABCD", "?"), "answer": record["gt_answer"]}
        item = Item(record["question_id"], "?", data=data)
        rows.append(Row(item, record["prediction"], benchmark.judge(item, record["prediction"])))
        assert rows[-1].score == (record["prediction"] == record["gt_answer"])
    assert len(rows) == 17_997 and benchmark.scores(rows)["overall"] == pytest.approx(67.28, abs=0.01)


def test_it_judges_anything(tmp_path: Path) -> None:
    judges_anything(SeedBench(seed_folder(tmp_path), SeedBenchSettings()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answer": "E"}, "question 100 has an empty choice, or no answer A to D"),
        ({"choice_b": " "}, "question 100 has an empty choice"),
        ({"question_type_id": None}, "question 1 lacks one of question_id"),
        ({"data_id": "11"}, "SEED-Bench-image/11 is missing"),
    ],
)
def test_it_names_damaged_questions(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"{said}.*; expected"):
        SeedBench(seed_folder(tmp_path, **change), SeedBenchSettings()).items()


def test_it_names_what_is_missing_or_damaged(tmp_path: Path) -> None:
    benchmark = SeedBench(seed_folder(tmp_path), SeedBenchSettings())
    cut(tmp_path / "SEED-Bench-image" / "10_1")
    with pytest.raises(ValueError, match="10_1' is damaged or cut off.*; expected"):
        benchmark.items()
    for content, said in (
        ("[]", "contains no list of questions"),
        ('{"questions": []}', "no question of types 1 to 9"),
    ):
        (tmp_path / "SEED-Bench.json").write_text(content)
        with pytest.raises(ValueError, match=f"{said}; expected"):
            benchmark.items()
    cut(tmp_path / "SEED-Bench.json")
    with pytest.raises(ValueError, match="SEED-Bench.json is damaged.*; expected"):
        benchmark.items()
