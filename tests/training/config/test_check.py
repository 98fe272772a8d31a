"""Mistakes in a recipe are reported in one sentence before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from janusflow.training.config import load_config
from tests.training.config.conftest import GOOD, write

RECIPES = Path(__file__).parents[3] / "recipes"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stepz": 5}, r"stepz is not a setting of a recipe; did you mean steps\?"),
        (
            {"optimizer": {"learningrate": 1}},
            r"optimizer.learningrate is not a setting of a recipe; did you mean optimizer.learning_rate\?",
        ),
        ({"data": {**GOOD["data"], "text": [{"kind": "tinyworld", "foo": 1}]}}, "data.text.0.foo is not a setting"),
        ({"steps": "many"}, "steps is 'many': input should be a valid integer"),
        ({"optimizer": {"learning_rate": "fast"}}, "optimizer.learning_rate is 'fast'"),
        ({"precision": "int8"}, "precision is 'int8': input should be 'auto', 'float32' or 'bfloat16'"),
        ({"parts": ["head"]}, "parts are \\['head'\\]; expected some of aligner"),
        ({"parts": []}, "parts are \\[\\]"),
        ({"steps": 0}, "steps is 0: input should be greater than or equal to 1"),
        ({"ema": 1.5}, "ema is 1.5: input should be less than or equal to 1"),
        ({"model": {}}, "exactly one of model.checkpoint and model.preset"),
        ({"model": {"preset": "tiny"}}, "needs model.processor"),
        ({"lora": {"rank": 4}, "parts": ["aligner"]}, "lora.rank is 4, but parts"),
        ({"data": {"text": [{"kind": "tinyworld"}]}}, "gives 1 to understanding, but no source"),
        ({"data": {**GOOD["data"], "ratios": []}}, "data.ratios are empty"),
        ({"data": {**GOOD["data"], "own": "/no/such/folder"}}, "/no/such/folder does not exist"),
        (
            {"data": {**GOOD["data"], "text": [{"kind": "csv"}]}},
            "data.text.0: kind of source is 'csv'; choose from folder, .*tinyworld",
        ),
        ({"optimizer": {"schedule": "decay", "decay": 0}}, "optimizer.decay is 0: input should be greater than 0"),
        ({"model": {"checkpoint": "tiny", "llm": "x"}}, "model.llm is for a new network"),
        (
            {"data": {**GOOD["data"], "generation": [{"kind": "tinyworld", "judge": "mine:score"}]}},
            "data.generation.0.judge is not a setting of a recipe",
        ),
        (
            {"data": {**GOOD["data"], "generation": [{"kind": "replay", "path": "x", "teacher": "y", "anchor": True}]}},
            "data.generation: an anchor keeps what the model says, so it takes no teacher",
        ),
        ({"steps": True}, "steps is True: input should be a valid integer"),
        ({"steps": "5"}, "steps is '5': input should be a valid integer"),
        ({"compile": "no"}, "compile is 'no': input should be a valid boolean"),
        ({"loss": {"ar": -1}}, "loss.ar is -1: input should be greater than or equal to 0"),
        ({"loss": {"ar": 0, "flow": 0, "repa": 0, "codes": 0}}, "loss are all 0, so there is nothing to learn"),
        ({"samples": {"time_scale": 0}}, "samples.time_scale is 0: input should be greater than 0"),
        ({"samples": {"time_scale": float("inf")}}, "samples.time_scale is inf: input should be a finite number"),
        ({"loss": {"flow": float("inf")}}, "loss.flow is inf: input should be a finite number"),
        ({"seed": 2**70}, "seed is 1180591620717411303424: input should be less than 18446744073709551616"),
        (
            {"data": {**GOOD["data"], "text": [{"kind": "tinyworld", "weight": float("nan")}]}},
            "data.text.0.weight is nan: input should be a finite number",
        ),
        ({"samples": {"time_mean": float("nan")}}, "samples.time_mean is nan: input should be a finite number"),
        ({"optimizer": {"betas": [0.9, 3]}}, "optimizer.betas.1 is 3: input should be less than or equal to 1"),
        ({"optimizer": {"weight_decay": -1}}, "optimizer.weight_decay is -1"),
        ({"optimizer": {"floor": 3}}, "optimizer.floor is 3"),
        ({"lora": {"dropout": 2}}, "lora.dropout is 2"),
        ({"lora": {"alpha": 0}}, "lora.alpha is 0"),
        (
            {"watch": {"every": 5, "guidance_scale": 0.5}},
            "watch.guidance_scale is 0.5: input should be greater than or equal to 1",
        ),
        (
            {
                "parts": ["tower"],
                "data": {**GOOD["data"], "ratios": [{"understanding": 0, "generation": 1, "text": 1}]},
            },
            r"parts are \['tower'\], which learn only from understanding, and data.ratios give it no share",
        ),
        ({"watch": {"every": 5, "prompts": []}}, "watch.every asks for sheets of pictures, which need watch.prompts"),
        ({"data": {**GOOD["data"], "text": [{"kind": "jsonl"}]}}, "data.text: a source of 'jsonl' needs a path"),
        (
            {"data": {**GOOD["data"], "text": [{"kind": "tinyworld", "shares": {"singel_object": 3}}]}},
            "data.text: tinyworld has no scenes 'singel_object'; choose from single_object",
        ),
        (
            {"data": {**GOOD["data"], "text": [{"kind": "tinyworld", "shares": {"counting": -1}}]}},
            "expected none below 0 and at least one above",
        ),
        ({"data": {**GOOD["data"], "text": [{"kind": "tinyworld", "questions": 0}]}}, "data.text.0.questions is 0: "),
        (
            {"data": {**GOOD["data"], "generation": [{"kind": "tinyworld", "described": 2.0}]}},
            "described is 2.0: input should be less than or equal to 1",
        ),
        (
            {"data": {**GOOD["data"], "generation": [{"kind": "tinyworld", "described": -1.0}]}},
            "described is -1.0: input should be greater",
        ),
        (
            {"data": {**GOOD["data"], "ratios": [{"understanding": 0, "generation": 0, "text": float("nan")}]}},
            "data.ratios.0.text is nan: input should be a finite number",
        ),
        ({"watch": {"wandb": True}}, "the package wandb is not installed"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        load_config(write(tmp_path, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("optimizer.clip=0", "optimizer.clip is 0: input should be greater than 0"),
        ("lora.tower=true", "lora has settings but no rank"),
        ("data.text.0={kind: tinyworld, path: shards}", "tinyworld renders its scenes, so it cannot read 'shards'"),
        ("lora.rank=4", "give lora.tower=true, or leave tower out of parts"),
        ("data.generation=[{kind: tinyworld, weight: 0}, {kind: tinyworld, weight: 0}]", r"weights \[0.0, 0.0\]"),
        (
            "data.generation=[{kind: tinyworld, weight: 3}, {kind: tinyworld, weight: -1}]",
            "data.generation.1.weight is -1: input should be greater",
        ),
        ("data.generation.0.fitting=true", "fitting rows are found before the run, so not in a stream"),
    ],
)
def test_what_would_silently_do_nothing_is_refused(change: str, told: str) -> None:
    given = ["data.generation=[{kind: parquet, path: nowhere, streaming: true}]", change]
    with pytest.raises(ValueError, match=told):
        load_config(RECIPES / "paper" / "stage3.yaml", given)
