"""What a model draws before a run stays in the run's folder and is trained on, with its noise and its states."""

from __future__ import annotations

import linecache
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from janusflow import JanusFlow
from janusflow.data.sources import FileSource, file_config
from janusflow.data.sources.replay import spread
from janusflow.processing.images import load_image
from janusflow.tinyworld.checker import check
from janusflow.tinyworld.source import TinyworldConfig, old_tasks
from janusflow.training import replay
from janusflow.training.config import load_config
from janusflow.training.distributed import join
from tests.training.conftest import TINYWORLD, curve, quietly, settings

RECIPES = Path(__file__).parents[2] / "recipes"
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
    rows = FileSource(file_config("parquet", str(tmp_path / "run" / "replay0")), "generation")
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
    given = ["model=tiny", f"out={tmp_path}", "data.generation=[{kind: replay, path: tinyworld, images: 14}]"]
    sources = replay.drawn_sources(load_config(RECIPES / "tiny" / "finetune_generation.yaml", given), join("cpu"))
    assert sources["generation"] == [file_config("parquet", str(tmp_path / "replay0"))]
    rows = FileSource(sources["generation"][0], "generation")
    pairs = [r for r in map(rows.record, range(rows.length)) if r.noise_seed is not None and r.time is None]
    tasks = {task.prompt: task for task in old_tasks(replay.SEED, 14)}
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


def test_a_judge_leaves_pictures_out(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle\ntwo stars\n")
    (tmp_path / "judge_of_stars.py").write_text(
        "def score(prompt, picture):\n    assert picture.size == (64, 64)\n    return 0.7 * ('stars' in prompt)\n"
    )
    monkeypatch.chdir(tmp_path)
    judge = {"judge": "judge_of_stars:score", "images": 4}
    own = {"kind": "replay", "path": str(tmp_path / "prompts.txt"), "guidance": 1.0}
    given = {"generation": [{**own, "images": 4}, {**own, **judge}], "ratios": [ONE_TASK], "workers": 0}
    sources = replay.drawn_sources(settings(start, tmp_path / "run", data=given), join("cpu"))["generation"]
    rows = FileSource(sources[1], "generation")
    records = [rows.record(number) for number in range(rows.length)]
    assert rows.length == 2 * (1 + replay.STATES) and {record.text for record in records} == {"two stars"}
    all_of_them = FileSource(sources[0], "generation")
    others = [all_of_them.record(number) for number in range(4 * (1 + replay.STATES))]
    assert {record.text for record in others} == {"a red circle", "two stars"}
    assert not {r.noise_seed for r in others if r.noise_seed} & {r.noise_seed for r in records if r.noise_seed}
    strict = data(tmp_path / "prompts.txt", **judge, min_score=0.8)
    with pytest.raises(ValueError, match=r"judge_of_stars:score gave none of 4 pictures by .* a score of 0.8 or more"):
        replay.drawn_sources(settings(start, tmp_path / "strict", data=strict), join("cpu"))
    nowhere = data(tmp_path / "prompts.txt", judge="nosuch")
    with pytest.raises(ValueError, match="a replay's judge is 'nosuch'; expected module:function"):
        replay.drawn_sources(settings(start, tmp_path / "nowhere", data=nowhere), join("cpu"))
    with pytest.raises(ValueError, match="a replay of tinyworld is judged by tinyworld itself; leave judge out"):
        settings(start, tmp_path, data=data("tinyworld", **judge))


def test_a_judge_whose_code_has_changed_does_not_continue(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle\n")
    monkeypatch.chdir(tmp_path)
    given = data(tmp_path / "prompts.txt", judge="judge_of_now:score", images=2)
    for number, body in enumerate(("return 1", "return 1", "return picture.width", "return None")):
        (tmp_path / "judge_of_now.py").write_text(f"def score(prompt, picture):\n    {body}\n")
        sys.modules.pop("judge_of_now", None)
        linecache.checkcache()
        config = settings(start, tmp_path / ("none" if number == 3 else "run"), data=given)
        if number < 2:
            replay.drawn_sources(config, join("cpu"))
            continue
        words = "of other settings .the judge's code" if number == 2 else "the judge gave None for 'a red circle'"
        with pytest.raises(ValueError, match=words):
            replay.drawn_sources(config, join("cpu"))


def test_of_too_many_prompts_evenly_spaced_ones_are_drawn() -> None:
    given = [f"prompt {number}" for number in range(10)]
    assert spread(given, 5) == given[::2]
    assert spread(given, 12) == [*given, *given[:2]]


def test_what_cannot_be_replayed_is_refused(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ValueError, match="none of 7 pictures by .* shows its prompt, so there is nothing to keep; give rendered"
    ):
        quietly(settings(start, tmp_path / "untaught", data=data("tinyworld", images=7)))
    with pytest.raises(ValueError, match="cannot be read as prompts"):
        quietly(settings(start, tmp_path / "nowhere", data=data(tmp_path / "missing.txt")))
    for wrong, words in (
        (data(""), "needs path, a file of prompts or a kind of source"),
        (data("tinyworld", images=0), "images is 0: input should be greater"),
        (data("folder"), "sources of folder make no prompts; give a replay a file"),
        (data("tinyworld", guidance=0.5), "guidance is 0.5: input should be greater"),
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
    missing = data(tmp_path / "prompts.txt", images=2)
    missing["generation"].append({"kind": "jsonl", "path": str(tmp_path / "nowhere.jsonl")})
    with pytest.raises(ValueError, match="nowhere.jsonl"):
        quietly(settings(start, tmp_path / "refused", data=missing))
    late = data(tmp_path / "prompts.txt", images=2)
    late["generation"].append({**late["generation"][0], "judge": "nosuch:score"})
    with pytest.raises(ValueError, match="a replay's judge is 'nosuch:score'"):
        quietly(settings(start, tmp_path / "refused", data=late))
    assert not (tmp_path / "refused").exists(), "told before anything is drawn"
    swapped = {**data("tinyworld"), "generation": TINYWORLD, "understanding": data("tinyworld")["generation"]}
    with pytest.raises(
        ValueError, match=r"data.understanding: a replay is of pictures that model.checkpoint generates"
    ):
        settings(start, tmp_path, data=swapped)
    monkeypatch.setattr(TinyworldConfig, "image_size", 384)
    with pytest.raises(ValueError, match=r"64 pixels a side and tinyworld of 384; give data.generation.0.path=FILE"):
        quietly(settings(start, tmp_path / "large", data=data("tinyworld")))
