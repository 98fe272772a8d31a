"""Pairs of noise and picture: the noise is the one that was drawn from, and a stopped run gives the same files."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from janusflow import JanusFlow
from janusflow.cli import app
from janusflow.data import reflow as module
from janusflow.data.records import read_row
from janusflow.data.reflow import ReflowConfig, judged, read_prompts, reflow, time_shift
from janusflow.data.samples import SampleConfig, SampleMaker
from janusflow.data.sources import FileSource, file_config

PROMPTS = ["a red circle", "two stars", "a blue square"]
SHORT = ReflowConfig(images=2, steps=1, guidance=1.0, seed=40, batch_size=2, shard_size=4)


def pairs(folder: Path) -> list[dict]:
    return list(FileSource(file_config("parquet", str(folder))).rows)


def test_a_model_that_generates_codes_is_refused(tmp_path: Path, small_model: JanusFlow) -> None:
    janus = JanusFlow.from_pretrained(Path(__file__).parents[1] / "golden" / "janus-small-a", device="cpu")
    for model, teacher in ((janus, None), (small_model, janus)):
        with pytest.raises(
            ValueError, match="a Janus model generates codes; pairs need a model that starts from noise"
        ):
            reflow(model, PROMPTS, tmp_path, SHORT, teacher=teacher)


def test_training_starts_from_the_noise_that_was_drawn_from(tmp_path: Path, small_model: JanusFlow) -> None:
    counts = reflow(small_model, PROMPTS, tmp_path, SHORT)
    assert counts == {"drawn": 6, "kept": 6}
    source = FileSource(file_config("parquet", str(tmp_path)), "generation")
    maker = SampleMaker(small_model.processor, small_model.network.config, SampleConfig(prompt_dropout=0.0))
    for number in range(6):
        record = source.record(number)
        assert (record.text, record.noise_seed) == (PROMPTS[number // 2], 40 + number)
        first, second = (maker.make("generation", record, Random(seed)).drawn for seed in (1, 2))
        assert first is not None and second is not None
        assert torch.equal(first.noise, second.noise) and first.t != second.t
        settings = {"num_inference_steps": 1, "guidance_scale": 1.0, "progress": False}
        again = small_model.generate(record.text, latents=first.noise[None], **settings)[0]  # type: ignore[arg-type]
        learned = ((first.pixels.permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy()
        assert np.abs(np.asarray(again).astype(int) - learned).max() <= 1
    assert len({row["image"]["bytes"] for row in pairs(tmp_path)}) == 6


def test_a_straight_line_leads_from_the_kept_noise_through_the_models_own_state_to_the_picture(
    tmp_path: Path, small_model: JanusFlow
) -> None:
    states: list[torch.Tensor] = []

    times = [0.0]

    def keep(_model: object, step: int, t: float, given: dict) -> None:
        states.append(given["latents"].clone())
        times.append(t)

    config = ReflowConfig(steps=4, guidance=1.0, seed=40, states=3)
    assert reflow(small_model, PROMPTS[:1], tmp_path, config) == {"drawn": 1, "kept": 1}
    settings = {"num_inference_steps": 4, "guidance_scale": 1.0, "shift": time_shift(config, 0), "progress": False}
    small_model.generate(PROMPTS[0], seed=40, callback_on_step_end=keep, **settings)  # type: ignore[arg-type]
    source = FileSource(file_config("parquet", str(tmp_path)), "generation")
    maker = SampleMaker(small_model.processor, small_model.network.config, SampleConfig())
    assert source.length == 4 and source.record(0).noise_seed == 40 and source.record(0).time is None
    first = torch.randn(1, *states[0].shape[1:], generator=torch.Generator().manual_seed(40))
    for step, before in enumerate((first, *states[:2])):
        drawn = maker.make("generation", source.record(1 + step), Random(step)).drawn
        assert drawn is not None and drawn.t == pytest.approx(times[step])
        end = small_model.codec.encode(drawn.pixels[None])[0]
        state = drawn.t * end + (1 - drawn.t) * drawn.noise
        assert torch.allclose(state, before[0], atol=2e-3)
    assert times[1] != 0.25 and 0.6 < time_shift(config, 0) < 1.65 and time_shift(config, 0) != time_shift(config, 16)
    with pytest.raises(ValueError, match="states is 5; expected 0 to 4"):
        ReflowConfig(steps=4, states=5)


def test_a_teachers_picture_is_kept_with_the_models_own_states(
    tmp_path: Path, small_folder: Path, vae_folder: Path, small_model: JanusFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = JanusFlow.from_pretrained(small_folder, vae=vae_folder, device="cpu")
    with torch.no_grad():
        for weights in teacher.network.parameters():
            weights.mul_(1.1)
    config = ReflowConfig(steps=4, guidance=1.0, seed=40, states=3)
    for name, model, by in (("own", small_model, None), ("taught", small_model, teacher), ("other", teacher, None)):
        assert reflow(model, PROMPTS[:2], tmp_path / name, config, teacher=by) == {"drawn": 2, "kept": 2}
    own, taught, other = (pairs(tmp_path / name) for name in ("own", "taught", "other"))
    assert [row["image"] for row in taught] == [row["image"] for row in other] != [row["image"] for row in own]
    assert [row["reflow_time"] for row in taught] == [row["reflow_time"] for row in own]

    def states(name: str, model: JanusFlow) -> list[torch.Tensor]:
        source = FileSource(file_config("parquet", str(tmp_path / name)), "generation")
        maker = SampleMaker(model.processor, model.network.config, SampleConfig())
        made = [maker.make("generation", source.record(n), Random(0)).drawn for n in range(8) if n % 4]
        return [d.t * model.codec.encode(d.pixels[None])[0] + (1 - d.t) * d.noise for d in made if d is not None]

    for one, same, elsewhere in zip(
        states("taught", small_model), states("own", small_model), states("other", teacher), strict=True
    ):
        assert torch.allclose(one, same, atol=5e-3)
        assert torch.equal(same, elsewhere) or not torch.allclose(one, elsewhere, atol=5e-3)
    network = type("Network", (), {"config": type("Config", (), {"image_size": 32})})
    small = type("Small", (), {"network": network, "family": small_model.family})
    with pytest.raises(ValueError, match="the teacher generates pictures of 32 pixels and the model of 64"):
        reflow(small_model, PROMPTS, tmp_path / "small", config, teacher=small)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "words"),
    [({"reflow_time": 1.0}, "row has reflow_time 1.0"), ({"reflow_noise": b"1234"}, "noise of 2 values")],
)
def test_states_of_another_size_or_time_are_refused(row: dict, words: str, small_model: JanusFlow) -> None:
    maker = SampleMaker(small_model.processor, small_model.network.config, SampleConfig())
    with pytest.raises(ValueError, match=words):
        maker.make(
            "generation", read_row({"image": Image.new("RGB", (64, 64)), "text": "x", **row}, "row", Path()), Random(0)
        )


def test_columns_of_ones_own_that_are_called_time_or_noise_mean_nothing() -> None:
    record = read_row({"text": "a star", "time": "2024-05-01", "noise": "loud"}, "row", Path())
    assert (record.time, record.noise, record.noise_seed) == (None, None, None)


def test_pictures_that_are_not_accepted_are_left_out(tmp_path: Path, small_model: JanusFlow) -> None:
    def accept(number: int, picture: Image.Image) -> bool:
        assert picture.size == (64, 64)
        return number != 1

    assert reflow(small_model, PROMPTS, tmp_path, SHORT, accept=accept) == {"drawn": 6, "kept": 4}
    assert [row["noise_seed"] for row in pairs(tmp_path)] == [40, 41, 44, 45]
    wanted = judged(lambda prompt, picture: float("star" in prompt), PROMPTS, 0.5)
    reflow(small_model, PROMPTS, tmp_path / "judged", SHORT, accept=wanted)
    assert [row["text"] for row in pairs(tmp_path / "judged")] == ["two stars"] * 2
    broken = judged(lambda prompt, picture: 1 / 0, PROMPTS, 0.5)
    with pytest.raises(ValueError, match=r"the judge failed on '.*': ZeroDivisionError: division by zero"):
        reflow(small_model, PROMPTS, tmp_path / "broken", SHORT, accept=broken)


@pytest.mark.parametrize("stop", range(1, 4))
def test_a_stopped_run_goes_on_to_the_same_files(
    tmp_path: Path, small_model: JanusFlow, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    reflow(small_model, PROMPTS, tmp_path / "whole", SHORT)
    interrupted: dict[str, bool] = {}
    for function in ("_pairs", "_write", "_save"):
        out, calls, original = tmp_path / function, 0, getattr(module, function)

        def stopped(*given: object, original=original) -> object:  # type: ignore[no-untyped-def]
            nonlocal calls
            calls += 1
            if calls == stop:
                raise KeyboardInterrupt
            return original(*given)

        with monkeypatch.context() as patch:
            patch.setattr(module, function, stopped)
            try:
                reflow(small_model, PROMPTS, out, SHORT)
            except KeyboardInterrupt:
                (out / "half.tmp").write_bytes(b"half")
            interrupted[function] = calls == stop
        assert reflow(small_model, PROMPTS, out, SHORT) == {"drawn": 6, "kept": 6}
        assert pairs(out) == pairs(tmp_path / "whole")
        assert {file.name for file in out.iterdir()} - {"half.tmp"} == {f.name for f in (tmp_path / "whole").iterdir()}
    assert any(interrupted.values())


def test_pairs_of_something_else_are_not_overwritten(tmp_path: Path, small_model: JanusFlow) -> None:
    for name in ("pairs-000000.parquet", "pairs-mine.parquet"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(ValueError, match=f"{name} exists, but no reflow.json of a run that wrote it; give another"):
            reflow(small_model, PROMPTS[:1], tmp_path, SHORT)
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
    (tmp_path / "draft.tmp").write_text("mine")
    reflow(small_model, PROMPTS[:1], tmp_path, SHORT)
    (tmp_path / "pairs-mine.parquet").write_text("mine")
    reflow(small_model, PROMPTS[:1], tmp_path, SHORT)
    assert (tmp_path / "draft.tmp").read_text() == (tmp_path / "pairs-mine.parquet").read_text() == "mine"


def test_a_folder_takes_one_run_at_a_time(tmp_path: Path, small_model: JanusFlow) -> None:
    def accept(number: int, picture: Image.Image) -> bool:
        """Begin another run in the same folder, as a second process would."""
        with pytest.raises(ValueError, match="another process is writing into .*; wait for it, or give another folder"):
            reflow(small_model, PROMPTS[:1], tmp_path, SHORT)
        return True

    assert reflow(small_model, PROMPTS[:1], tmp_path, SHORT, accept=accept)["kept"] == 2


def test_other_settings_do_not_go_on(tmp_path: Path, small_model: JanusFlow) -> None:
    reflow(small_model, PROMPTS[:1], tmp_path, SHORT, names={"--model": "tiny"})
    for prompts, config, names, words in (
        (PROMPTS[1:2], SHORT, {"--model": "tiny"}, r"other settings \(prompts\)"),
        (PROMPTS[:1], ReflowConfig(images=3), {"--model": "tiny"}, r"other settings \(images, steps, "),
        (PROMPTS[:1], SHORT, {"--model": "b"}, r"other settings \(--model\)"),
        ([], SHORT, {}, "no prompts were given"),
    ):
        with pytest.raises(ValueError, match=words):
            reflow(small_model, prompts, tmp_path, config, names=names)
    for changes, told in (
        ({"steps": 0}, "steps is 0: input should be greater than or equal to 1"),
        ({"guidance": float("nan")}, "guidance is nan: input should be "),
        ({"guidance": -1.0}, "guidance is -1.0"),
        ({"seed": -1}, "seed is -1: input should be greater than or equal to 0"),
        ({"images": -2}, "images is -2"),
        ({"states": 40}, "states is 40"),
    ):
        with pytest.raises(ValueError, match=told):
            ReflowConfig(**changes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="min_score is nan"):
        judged(lambda prompt, picture: 1.0, PROMPTS, float("nan"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[" * 100_000, "reflow.json is damaged: it is nested too deeply"),
        ("{", "reflow.json is damaged: "),
        ('{"settings": null, "kept": []}', "reflow.json is damaged: settings: "),
        ('{"settings": {}, "kept": [-1]}', "reflow.json is damaged: kept.0: "),
        ('{"settings": {}, "kept": [-Infinity]}', "reflow.json is damaged: it holds -Infinity"),
        ('{"settings": {}, "kept": [2, null]}', "reflow.json is damaged: kept.1: "),
    ],
)
def test_a_damaged_state_is_refused_in_one_sentence(
    tmp_path: Path, small_model: JanusFlow, content: str, words: str
) -> None:
    (tmp_path / "reflow.json").write_text(content)
    with pytest.raises(ValueError, match=words):
        reflow(small_model, PROMPTS[:1], tmp_path, SHORT)


def test_a_file_of_pairs_that_is_missing_is_named(tmp_path: Path, small_model: JanusFlow) -> None:
    reflow(small_model, PROMPTS[:1], tmp_path, SHORT)
    (tmp_path / "pairs-000000.parquet").unlink()
    with pytest.raises(ValueError, match="names pairs-000000.parquet, which is not there"):
        reflow(small_model, PROMPTS[:1], tmp_path, SHORT)


def test_prompts_are_lines_or_json_lines(tmp_path: Path) -> None:
    lines, rows, bad = tmp_path / "a.txt", tmp_path / "b.jsonl", tmp_path / "c.jsonl"
    lines.write_text("a star\n\n  two circles \n")
    rows.write_text('{"prompt": "a star", "tag": 1}\n\n{"text": "two circles"}\n')
    assert read_prompts(lines) == read_prompts(rows) == ["a star", "two circles"]
    for text, words in (
        ("", "contains no prompts"),
        ('{"prompt": 3}', "a line without prompt or text"),
        ("{", "c.jsonl:1 is not valid JSON"),
    ):
        bad.write_text(text)
        with pytest.raises(ValueError, match=words):
            read_prompts(bad)
    with pytest.raises(ValueError, match="cannot be read as prompts"):
        read_prompts(tmp_path)


def test_prompts_are_read_without_a_byte_order_mark_and_end_only_at_line_feeds(tmp_path: Path) -> None:
    lines, rows = tmp_path / "a.txt", tmp_path / "b.jsonl"
    lines.write_bytes("\ufeffa red\u2028star\r\ntwo circles\x0c here\n".encode())
    rows.write_bytes('\ufeff{"prompt": "a red\u2028star"}\n'.encode())
    assert read_prompts(lines) == ["a red\u2028star", "two circles\x0c here"]
    assert read_prompts(rows) == ["a red\u2028star"]


@pytest.mark.parametrize("seed", [-1, True, "7", 2**64])
def test_a_seed_that_is_none_is_refused(seed: object) -> None:
    with pytest.raises(ValueError, match="row has noise_seed .*; expected a whole number from 0"):
        read_row({"text": "a star", "noise_seed": seed}, "row", Path())


def test_the_command_draws_judges_and_says_what_it_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle\na star\n")
    (tmp_path / "my_reflow_judge.py").write_text("def score(prompt, picture):\n    return len(prompt) / 12\n")
    monkeypatch.chdir(tmp_path)
    command = ["data", "reflow", "prompts.txt", "--out", "pairs", "--steps", "1", "--guidance", "1", "--seed", "3"]
    judge = ["--judge", "my_reflow_judge:score", "--min-score", "0.9"]
    done = CliRunner().invoke(app, [*command, *judge])
    assert done.exit_code == 0, done.output
    assert "1 of 2 pairs kept in pairs" in done.output
    assert [(row["text"], row["noise_seed"]) for row in pairs(tmp_path / "pairs")] == [("a red circle", 3)]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 2
    assert "(--judge, --min-score, the judge's code)" in refused.output
