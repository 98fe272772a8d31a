"""An unknown setting suggests the one that was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from janusflow.training.config import load_config
from tests.training.config.conftest import write


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("learning_rate=1", "optimizer.learning_rate"),
        ("lr=1", "optimizer.learning_rate"),
        ("lora_rank=4", "lora.rank"),
        ("lora.r=4", "lora.rank"),
        ("batch=4", "batch_size"),
        ("max_steps=4", "steps"),
        ("checkpoint=tiny", "model.checkpoint"),
        ("data.text.0.questons=3", "data.text.0.questions"),
        ("data.text=[{kind: jsonl, path: x, streming: true}]", "data.text.0.streaming"),
        ("data.ratios.0.generaton=1", "data.ratios.0.generation"),
        ("xyzzy=1", None),
    ],
)
def test_an_unknown_key_suggests_the_right_one(tmp_path: Path, given: str, meant: str | None) -> None:
    with pytest.raises(ValueError, match=r"^\S+ is not a setting of a recipe") as told:
        load_config(write(tmp_path), [given])
    assert str(told.value).partition("; ")[2] == ("" if meant is None else f"did you mean {meant}?")
