"""Each option reaches the setting that it names: commands run with stand-ins for the functions that do the work."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from janusflow.cli import app
from janusflow.data.prepare import PrepareConfig
from janusflow.data.reflow import ReflowConfig
from janusflow.serving.command import ServeOptions

RECIPES = Path(__file__).parents[2] / "recipes"


class Recorder:
    """A function that keeps its arguments and returns `result`."""

    def __init__(self, result: Any = None) -> None:
        self.result = result
        self.given: list[Any] = []
        self.options: dict[str, Any] = {}

    def __call__(self, *given: Any, **options: Any) -> Any:
        self.given, self.options = list(given), options
        return self.result


def run(words: str) -> None:
    done = CliRunner().invoke(app, words.split())
    assert done.exit_code == 0, done.output


def test_data_prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = SimpleNamespace(counts=Counter(kept=1), notes=Counter(), cropped=Counter())
    kept.summary = kept.dropped_in_words = kept.other_files = str
    prepare = Recorder(kept)
    monkeypatch.setattr("janusflow.data.prepare.prepare", prepare)
    monkeypatch.setattr("janusflow.data.prepared.cropping", lambda state: "")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "val").mkdir()
    run(
        "data prepare . --out out --kind folder --split val --streaming --format parquet --min-side 64 --max-aspect 3"
        " --scorer math:sqrt --min-score 0.25 --short-share 0.5 --shard-size 7"
    )
    source, out, config = prepare.given
    assert (source.path, source.split, source.streaming, out) == (".", "val", True, Path("out"))
    assert config == PrepareConfig(
        min_side=64, max_aspect=3, min_score=0.25, short_share=0.5, format="parquet", shard_size=7
    )
    assert prepare.options["scorer"](4) == 2 and prepare.options["captioner"] is None


def test_data_reflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reflow, opened = Recorder({"kept": 1, "drawn": 2}), Recorder("a model")
    monkeypatch.setattr("janusflow.data.reflow.reflow", reflow)
    monkeypatch.setattr("janusflow.pipelines.janusflow.JanusFlow.from_pretrained", opened)
    (tmp_path / "prompts.txt").write_text("a star\n")
    run(
        f"data reflow {tmp_path / 'prompts.txt'} --out out --model mine -n 2 --steps 11 --guidance 3 --seed 4"
        " --states 5 --batch-size 6 --shard-size 8 --device cpu --dtype float32"
    )
    assert opened.given == ["mine"] and opened.options == {"device": "cpu", "dtype": "float32"}
    assert reflow.given == [
        "a model",
        ["a star"],
        Path("out"),
        ReflowConfig(images=2, steps=11, guidance=3, seed=4, batch_size=6, shard_size=8, states=5),
    ]


def test_pretrain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretrain = Recorder(tmp_path)
    monkeypatch.setattr("janusflow.training.parts.pretrain.pretrain", pretrain)
    run(f"pretrain {RECIPES / 'pictograms' / 'parts.yaml'} out={tmp_path} seed=3 --steps 5 --device cpu")
    (config,) = pretrain.given
    assert (config.out, config.seed, config.vae.fit.steps) == (str(tmp_path), 3, 5)
    assert pretrain.options == {"device": "cpu"}


def test_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve = Recorder()
    monkeypatch.setattr("janusflow.serving.command.run_command", serve)
    run(
        "serve --model mine --name shown --adapter a=b --host ::1 --port 81 --api-key-file keys --max-text-wait 0.5"
        " --picture-share 0.25 --max-queue 3 --max-pictures 4 --max-texts 5 --limit max_n=2 --page --grace 6"
        " --vae other --device cpu --dtype float32 --quantize int8 --compile on --sft-format deepseek"
    )
    opening = {"vae": "other", "device": "cpu", "dtype": "float32", "quantize": "int8", "compile": "on"}
    assert serve.given == [
        ServeOptions(
            model="mine",
            name="shown",
            adapters=["a=b"],
            host="::1",
            port=81,
            api_key_file=Path("keys"),
            queue={"max_queue": 3, "max_pictures": 4, "max_texts": 5},
            policy={"max_text_wait": 0.5, "picture_share": 0.25},
            limits=["max_n=2"],
            grace=6,
            page=True,
            opening={**opening, "sft_format": "deepseek"},
        )
    ]
