"""The loop: it learns, it survives, and what should not matter does not."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers.models.llama.modeling_llama import LlamaMLP

from janusflow import JanusFlow
from janusflow.checkpoint import open_checkpoint
from janusflow.checkpoint.card import is_released
from janusflow.data.loader import Data
from janusflow.training import trainer
from janusflow.training.config import OptimizerConfig
from janusflow.training.ema import Ema
from janusflow.training.resume import Checkpoints
from janusflow.training.trainer import RunError, take_step
from tests.conftest import GOLDEN
from tests.training.conftest import TINYWORLD, close, curve, quietly, settings, streaming, values, weights

RECIPES = Path(__file__).parents[2] / "recipes"


def test_it_learns_and_the_export_opens(start: Path, tmp_path: Path) -> None:
    config = settings(start, tmp_path, steps=40, batch_size=12, optimizer={"learning_rate": 3e-3}, ema=0.9)
    folder = quietly(config)
    rows = curve(tmp_path)
    assert [row["step"] for row in rows] == list(range(1, 41))
    assert all(0 < row["fill"] <= 1 and row["tokens"] / (row["fill"] * 256) % 1 < 1e-6 for row in rows)
    for name, share in (("ar", 0.75), ("flow", 1.0), ("repa", 0.5)):
        first, last = (sum(row[name] for row in part) / 5 for part in (rows[:5], rows[-5:]))
        assert last < share * first if first > 0 else last < first
    quietly(settings(folder, tmp_path / "next", steps=1, optimizer={"learning_rate": 0.0}))
    middle = (rows[0]["repa"] + rows[-1]["repa"]) / 2
    assert curve(tmp_path / "next")[0]["repa"] < middle, "the next stage goes on with the REPA head"
    model = JanusFlow.from_pretrained(folder, device="cpu")
    picture = model.generate("a star", num_inference_steps=1)
    assert picture[0].size == (64, 64)
    assert isinstance(model.ask("what color is the star?", picture, max_new_tokens=4), str)


def test_what_is_trained_from_released_weights_carries_their_licence(start: Path, tmp_path: Path) -> None:
    data = {"understanding": TINYWORLD, "ratios": [{"understanding": 1, "generation": 0, "text": 0}], "workers": 0}
    changes = {"data": data, "steps": 1, "batch_size": 2, "loss": {"repa": 0.0}, "parts": ["aligner"]}
    released = quietly(settings(GOLDEN / "janusflow-small-a", tmp_path / "released", **changes))
    assert "license_name: deepseek" in (released / "README.md").read_text()
    own = quietly(settings(start, tmp_path / "own", **changes), official=True)
    assert ModelCard.load(own / "README.md").data.license == "unknown"
    layout = own.with_name("export-official")
    assert "license: unknown" in (layout / "README.md").read_text()
    assert not is_released(open_checkpoint(layout)) and open_checkpoint(layout).layout.name == "official"
    trained = JanusFlow.from_pretrained(layout, device="cpu").network.state_dict()
    for name, value in JanusFlow.from_pretrained(own, device="cpu").network.state_dict().items():
        assert torch.equal(trained[name], value), name
    quietly(settings(GOLDEN / "janusflow-small-a", tmp_path / "both", **changes), official=True)
    assert "license_name: deepseek" in (tmp_path / "both" / "export-official" / "README.md").read_text()


def test_only_the_chosen_parts_learn(start: Path, tmp_path: Path) -> None:
    folder = quietly(settings(start, tmp_path, parts=["aligner", "generation"], steps=2))
    before, after = weights(start), weights(folder)
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved
    assert all(
        name.startswith(("generation_", "understanding_encoder.aligner", "understanding_encoder.begin"))
        for name in moved
    )


def test_a_loss_that_is_not_finite_stops_the_run(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Data.__getitem__

    def poisoned(self: Data, step: int) -> Any:
        found = original(self, step)
        if step == 4:
            for sample in found.samples:
                if sample.drawn is not None:
                    sample.drawn.noise.fill_(float("nan"))
        return found

    monkeypatch.setattr(Data, "__getitem__", poisoned)
    with pytest.raises(RunError, match="step 5: loss nan.*; the last checkpoint, step-0000004, is intact"):
        quietly(settings(start, tmp_path / "run"))
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step-0000002", "step-0000004"]
    assert [row["step"] for row in curve(tmp_path / "run")] == [1, 2, 3, 4, 5]  # the log shows what went wrong
    assert curve(tmp_path / "run")[-1]["loss"] is None
    monkeypatch.undo()
    quietly(settings(start, tmp_path / "run"), resume=True)
    quietly(settings(start, tmp_path / "whole"))
    assert values(tmp_path / "run") == values(tmp_path / "whole")


def test_a_run_that_fails_before_its_first_checkpoint_says_so(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "take_step", lambda run, found: {**take_step(run, found), "loss": float("inf")})
    with pytest.raises(RunError, match="step 1: loss inf.*; there is no checkpoint yet"):
        quietly(settings(start, tmp_path))


def test_an_error_of_another_kind_loses_no_checkpoint_that_is_written(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(run: Any, found: Any) -> Any:
        if found.step == 3:
            raise RuntimeError("out of memory")
        return take_step(run, found)

    monkeypatch.setattr(trainer, "take_step", fail)
    monkeypatch.setattr(Checkpoints, "settle", lambda checkpoints: None)
    with pytest.raises(RuntimeError, match="out of memory"):
        quietly(settings(start, tmp_path, save={"every": 2, "background": True}))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0000002"]


def test_a_jump_of_the_loss_stops_the_run(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Data.__getitem__

    def loud(self: Data, step: int) -> Any:
        found = original(self, step)
        for sample in found.samples if step in (3, 22) else ():
            if sample.drawn is not None:
                sample.drawn.noise.mul_(100)
        return found

    monkeypatch.setattr(Data, "__getitem__", loud)
    with pytest.raises(RunError, match="step 23: loss .* is more than 10 times its mean"):
        quietly(settings(start, tmp_path, steps=25))


def test_too_many_broken_records_stop_the_run(start: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "good.png")
    rows = [{"image": "good.png" if n % 4 else f"missing-{n}.png", "text": "a black picture"} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data: dict[str, Any] = {"generation": [{"kind": "jsonl", "path": str(tmp_path / "rows.jsonl")}], "workers": 0}
    data["ratios"] = [{"understanding": 0, "generation": 1, "text": 0}]
    config = settings(start, tmp_path / "run", data={**data, "max_broken": 0.1}, steps=20)
    with pytest.raises(
        RunError, match=r"of 5\d records that were taken are broken .*, more than data.max_broken=0.1; .*missing"
    ):
        quietly(config)
    told = [row for row in curve(tmp_path / "run") if "broken" in row]
    assert told and all(row["broken"] == len(row["skipped"]) and "missing" in row["skipped"][0] for row in told)
    quietly(settings(start, tmp_path / "lenient", data={**data, "max_broken": 0.9}, steps=10))


def test_warming_up_the_decay_keeps_little_of_the_start(start: Path, tmp_path: Path) -> None:
    config = settings(start, tmp_path, ema=0.99, ema_warmup=True)
    assert [config.ema_decay(step) for step in (0, 1, 8, 10_000)] == [0.1, 2 / 11, 0.5, 0.99]
    assert config.start_share(40) < 1e-6 < 0.66 < replace(config, ema_warmup=False).start_share(40) < 0.67
    assert replace(config, ema=0.0).start_share(1) == 0


@pytest.mark.parametrize("warmup", [False, True])
def test_the_average_follows_its_decay_and_its_share_of_the_start_is_reported(
    start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, warmup: bool
) -> None:
    seen: list[torch.Tensor] = []

    def watched(run: Any, found: Any) -> Any:
        name = "network.language_model.norm.weight"
        weight = dict(run.objective.named_parameters())[name]
        seen.extend([weight.detach().clone()] if not seen else [])
        losses = take_step(run, found)
        seen.append(weight.detach().clone())
        assert run.ema.values[name].dtype == torch.float32
        return losses

    monkeypatch.setattr(trainer, "take_step", watched)
    folder = quietly(settings(start, tmp_path, steps=3, ema=0.9, ema_warmup=warmup))
    decays = [0.1, 2 / 11, 0.25] if warmup else [0.9] * 3
    expected = seen[0]
    for decay, weight in zip(decays, seen[1:], strict=True):
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(weights(folder)["language_model.norm.weight"], expected)
    share = decays[0] * decays[1] * decays[2]
    assert curve(tmp_path)[-1]["start_share"] == pytest.approx(share)
    percent = "0.455 %" if warmup else "72.9 %"
    assert f"| share of the starting weights in the average | {percent} |" in (folder / "README.md").read_text()
    said = capsys.readouterr().err
    assert f"{percent} of the exported weights are still the starting weights" in said
    assert (f"warning: {percent} of the exported weights" in said and "give ema_warmup=true" in said) != warmup


def test_the_average_has_a_constant_decay() -> None:
    layer = torch.nn.Linear(3, 2)
    ema = Ema(layer)
    expected = layer.weight.detach().clone()
    for _ in range(3):
        with torch.no_grad():
            layer.weight.add_(1.0)
        ema.update(0.9)
        expected = 0.9 * expected + 0.1 * layer.weight.detach()
    torch.testing.assert_close(ema.values["weight"], expected)


def test_the_export_holds_the_averages(start: Path, tmp_path: Path) -> None:
    exported = {
        ema: quietly(settings(start, tmp_path / str(ema), steps=1, ema=ema, optimizer={"learning_rate": 0.01}))
        for ema in (0.0, 0.5, 1.0)
    }
    for file in ("model.safetensors", "repa_head.safetensors"):
        now, between, before = (load_file(exported[ema] / file) for ema in (0.0, 0.5, 1.0))
        assert max(float((now[name] - before[name]).abs().max()) for name in now) > 1e-3
        for name, value in between.items():
            torch.testing.assert_close(value, (now[name] + before[name]) / 2, atol=1e-6, rtol=1e-5)
    for name, value in weights(start).items():
        assert torch.equal(weights(exported[1.0])[name], value), name


def test_sigterm_while_the_last_checkpoint_is_written_leaves_the_export_to_the_next(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Checkpoints.finish

    def told(checkpoints: Checkpoints) -> None:
        signal.raise_signal(signal.SIGTERM)
        finish(checkpoints)

    config = settings(start, tmp_path / "run", steps=2)
    monkeypatch.setattr(Checkpoints, "finish", told)
    assert quietly(config) == tmp_path / "run" and not (tmp_path / "run" / "export").exists()
    monkeypatch.undo()
    assert quietly(config, resume=True) == tmp_path / "run" / "export"


@pytest.mark.parametrize("workers", [0, 1])
def test_streams_continue_exactly(start: Path, tmp_path: Path, workers: int) -> None:
    given = streaming(tmp_path, workers)
    quietly(settings(start, tmp_path / "whole", data=given, steps=5))
    for steps in (3, 5):
        quietly(settings(start, tmp_path / "parts", data=given, steps=steps), resume=True)
    assert values(tmp_path / "parts") == values(tmp_path / "whole")


def test_losses_are_told_by_task_and_gradients_by_part(start: Path, tmp_path: Path) -> None:
    """Those of a task are what it has in a step of its own, and the parts' norms make up that of all."""
    both = {"understanding": TINYWORLD, "text": TINYWORLD, "workers": 0}
    alone = {task: {**both, "ratios": [{"understanding": 0, "generation": 0, "text": 0, task: 1}]} for task in both}
    del alone["workers"]
    for task, data in alone.items():
        quietly(settings(start, tmp_path / task, steps=1, data=data))
        (row,) = curve(tmp_path / task)
        assert row[f"ar_{task}"] == pytest.approx(row["ar"]) and sum(name.startswith("ar_") for name in row) == 1
    quietly(settings(start, tmp_path / "mixed", steps=2))
    for row in curve(tmp_path / "mixed"):
        low, high = sorted((row["ar_understanding"], row["ar_text"]))
        assert low < row["ar"] < high
        parts = [value for name, value in row.items() if name.startswith("gradient_")]
        assert len(parts) == 5 and sum(norm**2 for norm in parts) == pytest.approx(row["gradient"] ** 2)


def test_how_samples_fall_into_packs_changes_nothing(start: Path, tmp_path: Path) -> None:
    for length in (100, 2000):
        quietly(settings(start, tmp_path / str(length), steps=3, pack_length=length))
    assert close(values(tmp_path / "100"), values(tmp_path / "2000"))


def test_activation_checkpointing_and_workers_change_nothing(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, calls = LlamaMLP.forward, 0

    def counted(module: LlamaMLP, states: Any) -> Any:
        nonlocal calls
        calls += 1
        return forward(module, states)

    monkeypatch.setattr(LlamaMLP, "forward", counted)
    quietly(settings(start, tmp_path / "plain", steps=3))
    once, calls = calls, 0
    data = {
        "understanding": TINYWORLD,
        "generation": TINYWORLD,
        "text": TINYWORLD,
        "ratios": [{"understanding": 2, "generation": 3, "text": 1}],
        "workers": 1,
    }
    quietly(settings(start, tmp_path / "other", steps=3, activation_checkpointing=True, data=data))
    assert calls == 2 * once > 0
    assert close(values(tmp_path / "other"), values(tmp_path / "plain"))


def test_compiled_blocks_change_nothing(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced as for a compiler, which is not needed here: what is traced runs as it is."""
    compiled: list[str] = []
    as_it_is = torch.nn.Module.compile

    def traced(block: torch.nn.Module, **options: Any) -> None:
        compiled.append(type(block).__name__)
        as_it_is(block, backend="eager", **options)

    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    monkeypatch.setenv("CXX", sys.executable)
    for name in ("plain", "compiled"):
        quietly(settings(start, tmp_path / name, steps=3, compile=name == "compiled"))
    assert set(compiled) == {"LlamaDecoderLayer", "SiglipEncoderLayer", "ConvNextBlock"}
    assert close(values(tmp_path / "compiled"), values(tmp_path / "plain"))
    compiled.clear()
    monkeypatch.setenv("CXX", "nosuch-compiler")
    with pytest.warns(UserWarning, match="no C[+][+] compiler was found, so nothing is compiled"):
        quietly(settings(start, tmp_path / "without", steps=1, compile=True))
    assert not compiled


def test_sheets_of_pictures_and_answers(start: Path, tmp_path: Path) -> None:
    watch = {"every": 2, "prompts": ["a star", "two"], "questions": ["what is it?"], "num_inference_steps": 1}
    quietly(settings(start, tmp_path / "seen", steps=4, watch={**watch, "tensorboard": True}))
    names = sorted(file.name for file in (tmp_path / "seen" / "samples").iterdir())
    assert names == ["step-0000002.png", "step-0000002.txt", "step-0000004.png", "step-0000004.txt"]
    told = EventAccumulator(str(tmp_path / "seen" / "tensorboard")).Reload()
    by_task = {"ar_understanding", "ar_text", "flow"}
    norms = {f"gradient_{part}" for part in ("aligner", "generation", "llm", "tower", "repa")}
    names = {"ar", "repa", "gradient", "rate", "tokens_per_second", "waited"}
    assert names | by_task | norms <= set(told.Tags()["scalars"])
    assert [event.value for event in told.Scalars("flow")] == pytest.approx(
        [row["flow"] for row in curve(tmp_path / "seen")]
    )
    assert [event.step for event in told.Images("samples")] == [2, 4]
    assert b"what is it?" in told.Tensors("answers/text_summary")[-1].tensor_proto.string_val[0]
    quietly(settings(start, tmp_path / "unseen", steps=4))
    assert values(tmp_path / "seen") == values(tmp_path / "unseen")  # looking changes nothing


def test_weights_and_biases_is_told_the_same(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, Any, int]] = []
    ended: list[bool] = []

    def log(values: dict[str, Any], *, step: int) -> None:
        told.extend((name, value, step) for name, value in values.items())

    def init(**options: Any) -> SimpleNamespace:
        assert options["resume"] == "allow" and options["id"]
        return SimpleNamespace(log=log, finish=lambda: ended.append(True))

    fake = SimpleNamespace(init=init, Image=lambda sheet, caption: (sheet.size, caption), __spec__=object())
    monkeypatch.setitem(sys.modules, "wandb", fake)
    watch = {"every": 2, "prompts": ["a star"], "questions": ["what is it?"], "num_inference_steps": 1, "wandb": True}
    quietly(settings(start, tmp_path, steps=2, watch={**watch, "tensorboard": False}))
    assert [value for name, value, step in told if name == "flow"] == [row["flow"] for row in curve(tmp_path)]
    assert [(step, value[1][:11]) for name, value, step in told if name == "samples"] == [(2, "what is it?")]
    assert ended


def test_a_disk_that_is_full_at_the_export(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr("janusflow.training.export.save_file", full)
    with pytest.raises(OSError, match="the export could not be written .*No space left.*--resume writes it again"):
        quietly(settings(start, tmp_path, steps=2))
    assert not (tmp_path / "export").exists() and (tmp_path / "checkpoints" / "step-0000002").is_dir()
    monkeypatch.undo()
    assert quietly(settings(start, tmp_path, steps=2), resume=True) == tmp_path / "export"


def test_rates() -> None:
    constant = OptimizerConfig(learning_rate=1.0, warmup=10)
    assert constant.rate(0, 100) == pytest.approx(0.1)
    assert constant.rate(99, 100) == 1.0
    assert OptimizerConfig(learning_rate=1.0, schedule="cosine", floor=0).rate(50, 100) == pytest.approx(0.5)
    decay = OptimizerConfig(learning_rate=1.0, schedule="decay", floor=0)
    assert decay.rate(75, 100) == 1.0
    assert decay.rate(95, 100) == pytest.approx(0.2)
