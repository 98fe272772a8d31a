"""What a model draws before a run stays in the run's folder and is trained on, with its noise and its states."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from janusflow import JanusFlow
from janusflow.data.reflow import ReflowConfig, reflow, time_shift
from janusflow.data.rows import SourceConfig
from janusflow.data.sources import FileSource
from janusflow.images import load_image
from janusflow.tinyworld.checker import check
from janusflow.training import replay
from janusflow.training.config import load_config
from janusflow.training.distributed import join
from tests.training.conftest import TINYWORLD, curve, quietly, settings

RECIPES = Path(__file__).parents[2] / "recipes"
TURNS = ("", "-1", "-2")
ONE_TASK = {"understanding": 0, "generation": 1, "text": 0}


def data(path: object, **more: Any) -> dict[str, Any]:
    source = {"kind": "replay", "path": str(path), "guidance": 1.0, **more}
    return {"generation": [source], "ratios": [ONE_TASK], "workers": 0}


def test_prompts_of_ones_own_are_drawn_once_and_trained_on(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle\ntwo stars\n")
    config = settings(start, tmp_path / "run", data=data(tmp_path / "prompts.txt", images=3), steps=4)
    quietly(config)
    rows = FileSource(SourceConfig("parquet", str(tmp_path / "run" / "replay0")), "generation")
    records = [rows.record(number) for number in range(rows.length)]
    assert rows.length == 3 * (1 + replay.STATES)
    assert [r.text for r in records if r.noise_seed is not None and r.time is None] == [
        "a red circle",
        "two stars",
        "a red circle",
    ]
    assert len(curve(tmp_path / "run")) == 4 and not (tmp_path / "run" / "replay1").exists()
    made = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "run" / "replay0").iterdir()}
    quietly(replace(config, steps=6), resume=True)
    assert {file.name: file.stat().st_mtime_ns for file in (tmp_path / "run" / "replay0").iterdir()} == made
    assert [row["step"] for row in curve(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]


def test_of_the_tiny_worlds_prompts_right_pictures_are_kept(tmp_path: Path, tiny_model: JanusFlow) -> None:
    given = ["model=tiny", f"out={tmp_path}", "data.generation.0.images=14"]
    sources = replay.drawn_sources(load_config(RECIPES / "finetune" / "generation.yaml", given), join("cpu"))
    assert sources["generation"] == [SourceConfig("parquet", str(tmp_path / "replay0"), images=14, refresh=200)]
    rows = FileSource(sources["generation"][0], "generation")
    pairs = [r for r in map(rows.record, range(rows.length)) if r.noise_seed is not None and r.time is None]
    tasks = {task.prompt: task for task in replay.old_tasks(replay.SEED, 14)}
    assert 8 <= len(pairs) <= 14
    assert len({task.kind for task in tasks.values()}) == 7
    assert all(check(tasks[r.text], np.asarray(load_image(r.images[0]))).passed for r in pairs)


def test_a_teacher_draws_in_the_models_place(start: Path, tmp_path: Path, tiny_model: JanusFlow) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle\n")
    drawn = {}
    for name, teacher in (("own", ""), ("taught", "tiny"), ("again", str(start))):
        config = settings(start, tmp_path / name, data=data(tmp_path / "prompts.txt", images=1, teacher=teacher))
        source = FileSource(replay.drawn_sources(config, join("cpu"))["generation"][0], "generation")
        drawn[name] = np.asarray(load_image(source.record(0).images[0]))
    assert np.array_equal(drawn["own"], drawn["again"]) and not np.array_equal(drawn["own"], drawn["taught"])


def test_a_refreshed_replay_leads_the_model_as_it_is_to_what_it_drew_before(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle\ntwo stars\na ring\n")
    lessons = data(tmp_path / "prompts.txt", images=2, refresh=2)
    config = settings(start, tmp_path / "run", data=lessons, steps=6, save={"every": 4})
    quietly(config)
    rows = [FileSource(SourceConfig("parquet", str(tmp_path / "run" / f"replay0{n}")), "generation") for n in TURNS]
    texts = [[source.record(number * (1 + replay.STATES)).text for number in range(2)] for source in rows]
    assert texts == [["a red circle", "two stars"], ["a ring", "a red circle"], ["two stars", "a ring"]]
    assert not (tmp_path / "run" / "replay0-3").exists()  # nothing is drawn after the last step
    before = JanusFlow.from_pretrained(start, dtype="float32")
    for source in rows[1:]:
        pair, *states = [source.record(number) for number in range(1 + replay.STATES)]
        drawn = before.generate(
            pair.text,
            seed=pair.noise_seed,
            num_inference_steps=replay.STEPS,
            guidance_scale=1.0,
            shift=time_shift(ReflowConfig(seed=pair.noise_seed, states=1), 0),
            progress=False,
        )[0]
        assert np.array_equal(np.asarray(drawn), np.asarray(load_image(pair.images[0])))
        asked = ReflowConfig(1, replay.STEPS, 1.0, pair.noise_seed, 48, states=replay.STATES)
        reflow(before, [source.record(n).text for n in (0, 1 + replay.STATES)], tmp_path / f"{pair.noise_seed}", asked)
        own = FileSource(SourceConfig("parquet", str(tmp_path / f"{pair.noise_seed}")), "generation")
        others = [own.record(number) for number in range(1, 1 + replay.STATES)]
        assert [state.time for state in states] == [state.time for state in others]
        assert all(a.noise and a.noise != b.noise for a, b in zip(states[1:], others[1:], strict=True))

    def interrupted(*_given: Any, **_named: Any) -> None:
        raise KeyboardInterrupt

    def killed(*given: Any) -> None:
        if given[3] == 2:
            raise KeyboardInterrupt
        drawing(*given)

    drawing = replay._draw
    monkeypatch.setattr(replay, "_draw", killed)
    other = replace(config, out=str(tmp_path / "killed"))
    with pytest.raises(KeyboardInterrupt):
        quietly(other)
    monkeypatch.undo()
    quietly(other, resume=True)
    names = ("step", "loss", "flow", "norm")
    seen = [[{name: row.get(name) for name in names} for row in curve(tmp_path / run)] for run in ("run", "killed")]
    assert seen[0] == seen[1] and len(seen[0]) == 6
    quietly(config, resume=True)
    assert not (tmp_path / "run" / "replay0-3").exists()  # nor when a finished run is exported again
    weights = [(tmp_path / run / "export" / "model.safetensors").read_bytes() for run in ("run", "killed")]
    assert weights[0] == weights[1]
    short = replace(config, out=str(tmp_path / "short"), steps=3)
    quietly(short)
    shutil.rmtree(tmp_path / "short" / "replay0-1")
    with pytest.raises(ValueError, match=r"replay0-1 is gone, and only the model of step 2 could draw it again"):
        quietly(replace(short, steps=4), resume=True)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(KeyboardInterrupt):
        monkeypatch.setattr(replay, "reflow", interrupted)
        quietly(config)
    assert not (tmp_path / "run" / "replay0-1").exists()  # of a model that is no more


def test_adapters_draw_with_the_rest_when_a_replay_is_refreshed(start: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle\n")
    lessons = data(tmp_path / "prompts.txt", images=1, refresh=1)
    changes = {"steps": 2, "parts": ["aligner", "generation", "llm"], "lora": {"rank": 2}, "optimizer": {"warmup": 0}}
    quietly(settings(start, tmp_path / "run", data=lessons, **changes))
    assert (tmp_path / "run" / "replay0-1" / "pairs-000000.parquet").is_file()
    assert (tmp_path / "run" / "export" / "adapter").is_dir()


def test_what_cannot_be_replayed_is_refused(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ValueError, match="drew none of 7 pictures as asked, so there is nothing to be kept; give rendered"
    ):
        quietly(settings(start, tmp_path / "untaught", data=data("tinyworld", images=7)))
    with pytest.raises(ValueError, match="cannot be read as prompts"):
        quietly(settings(start, tmp_path / "nowhere", data=data(tmp_path / "missing.txt")))
    for wrong, words in (
        (data(""), "needs path, a file of prompts or 'tinyworld'"),
        (data("tinyworld", images=0), "a replay of 0 images with guidance 1, refreshed after 0 steps; expected"),
        (data("tinyworld", guidance=-1.0), "with guidance -1, refreshed"),
        (data("tinyworld", refresh=-1), "refreshed after -1 steps; expected 1 or more, 0 or more, and 0 .never"),
    ):
        with pytest.raises(ValueError, match=words):
            settings(start, tmp_path, data=wrong)
    with pytest.raises(ValueError, match="the replay's teacher cannot be opened: model is 'nosuch'"):
        quietly(settings(start, tmp_path / "taught", data=data("tinyworld", teacher="nosuch")))
    (tmp_path / "prompts.txt").write_text("a red circle\n")
    quietly(settings(start, tmp_path / "run", data=data(tmp_path / "prompts.txt", images=2), steps=1))
    with pytest.raises(ValueError, match=r"other settings \(prompts, pictures of the replay\)"):
        more = data(tmp_path / "prompts.txt", images=3)
        quietly(settings(start, tmp_path / "run", data=more, steps=2), resume=True)
    swapped = {**data("tinyworld"), "generation": TINYWORLD, "understanding": data("tinyworld")["generation"]}
    with pytest.raises(ValueError, match=r"data.understanding: a replay is of pictures that model.checkpoint draws"):
        settings(start, tmp_path, data=swapped)
    monkeypatch.setattr(replay, "PIXELS", 384)
    with pytest.raises(
        ValueError, match=r"draws 64 pixels a side and the tiny world has 384; for a replay give .*FILE"
    ):
        quietly(settings(start, tmp_path / "large", data=data("tinyworld")))
