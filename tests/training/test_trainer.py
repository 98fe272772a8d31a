"""The loop: it learns, it survives, and it does not matter how many processes share the work."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
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
from typer.testing import CliRunner

from janusflow import JanusFlow
from janusflow.checkpoint import open_checkpoint
from janusflow.checkpoint.card import is_released
from janusflow.cli import app
from janusflow.data.loader import Data
from janusflow.tinyworld.source import TinyworldConfig
from janusflow.training import trainer
from janusflow.training.config import OptimizerConfig, TrainConfig
from janusflow.training.ema import Ema
from janusflow.training.resume import Checkpoints
from janusflow.training.trainer import RunError, take_step
from tests.conftest import GOLDEN
from tests.training.conftest import TINYWORLD, curve, quietly, settings, values, weights

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
    assert model.generate("a star", num_inference_steps=1)[0].size == (64, 64)
    assert isinstance(model.ask("what color is the star?", model.generate("a star", num_inference_steps=1)), str)


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


def own_folder(folder: Path) -> None:
    """Eight pictures with captions."""
    folder.mkdir()
    for number in range(8):
        Image.new("RGB", (64, 64), (30 * number, 0, 0)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"red number {number}")


def test_ones_own_folder_through_the_command_line(start: Path, tmp_path: Path) -> None:
    own_folder(tmp_path / "own")
    words = ["train", str(RECIPES / "finetune" / "both.yaml"), f"model={start}", f"data={tmp_path / 'own'}"]
    words += [f"out={tmp_path / 'run'}", "batch_size=4", "data.workers=0", "watch.tensorboard=false", "--device", "cpu"]
    first = CliRunner().invoke(app, [*words, "steps=2"])
    assert first.exit_code == 0, first.output
    assert all(word in first.stderr for word in ("step 2 of 2: ar ", " flow ", "tokens/s", "waiting"))
    assert Path(first.stdout.split()[-1]) == tmp_path / "run" / "export"
    assert CliRunner().invoke(app, [*words, "steps=3"]).exit_code == 2
    assert CliRunner().invoke(app, [*words, "steps=3", "--resume", "--export", "official"]).exit_code == 0
    assert [row["step"] for row in curve(tmp_path / "run")] == [1, 2, 3]
    ours, official = (weights(tmp_path / "run" / name) for name in ("export", "export-official"))
    assert open_checkpoint(tmp_path / "run" / "export-official").layout.name == "official"
    assert torch.equal(official["language_model.model.norm.weight"], ours["language_model.norm.weight"])
    for name in ("export", "export-official"):
        JanusFlow.from_pretrained(tmp_path / "run" / name, device="cpu")


def test_captions_and_conversations_are_combined_through_the_command_line(start: Path, tmp_path: Path) -> None:
    own_folder(tmp_path / "own")
    for number in range(8):
        Image.new("RGB", (96, 64), (30 * number, 0, 0)).save(tmp_path / "own" / f"{number}.png")
    talk = [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "red"}, {"from": "human", "value": "sure?"}]
    (tmp_path / "talks.json").write_text(json.dumps([{"image": "own/1.png", "conversations": talk}] * 8))
    words = ["train", str(RECIPES / "finetune" / "both.yaml"), f"model={start}", "data.own_share=1"]
    words += [f"data=[{tmp_path / 'own'},{tmp_path / 'talks.json'}]", "batch_size=4", "data.workers=0"]
    words += ["watch.tensorboard=false", "--device", "cpu"]
    done = CliRunner().invoke(app, [*words, "steps=3", f"out={tmp_path / 'whole'}"])
    told = " ".join(done.stderr.split())
    assert done.exit_code == 0, done.output
    assert "own (8 records), " in told and "talks.json (8 records)" in told
    assert "conversation ends with a user turn; that turn was dropped (others" in told
    assert "which leaves out 33% of their area (mean of step 1); crop=pad keeps them whole" in told
    rows = curve(tmp_path / "whole")
    assert all(row["cropped"] == pytest.approx(1 / 3) for row in rows) and any("notes" in row for row in rows)
    for steps in (2, 3):
        again = CliRunner().invoke(app, [*words, f"steps={steps}", f"out={tmp_path / 'parts'}", "--resume"])
        assert again.exit_code == 0, again.output
    assert [row["loss"] for row in curve(tmp_path / "parts")][2] == rows[2]["loss"]
    padded = CliRunner().invoke(app, [*words, "steps=1", "crop=pad", f"out={tmp_path / 'padded'}"])
    assert padded.exit_code == 0 and "leaves out" not in padded.stderr


@pytest.mark.parametrize("name", ["understanding", "generation"])
def test_the_other_recipes_for_ones_own_folder(start: Path, tmp_path: Path, name: str) -> None:
    own_folder(tmp_path / "own")
    words = ["train", str(RECIPES / "finetune" / f"{name}.yaml"), f"model={start}", f"data={tmp_path / 'own'}"]
    words += [f"out={tmp_path / 'run'}", "batch_size=4", "data.workers=0", "steps=2", "watch.tensorboard=false"]
    done = CliRunner().invoke(app, [*words, "--device", "cpu"])
    assert done.exit_code == 0, done.output
    before, after = weights(start), weights(tmp_path / "run" / "export")
    changed = {part.split(".")[0] for part, value in after.items() if not torch.equal(value, before[part])}
    assert ("generation_decoder" in changed) == (name == "generation")
    assert "language_model" in changed


@pytest.mark.parametrize("name", ["both", "understanding", "generation"])
def test_the_tiny_world_is_not_mixed_into_models_of_other_pictures(
    start: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_folder(tmp_path / "own")
    recipe, given = str(RECIPES / "tiny" / f"finetune_{name}.yaml"), [f"model={start}", f"data={tmp_path / 'own'}"]
    given += [f"out={tmp_path / 'run'}"]
    monkeypatch.setattr(TinyworldConfig, "image_size", 48)
    for more in (["--dry-run"], []):
        refused = CliRunner().invoke(app, ["train", recipe, *given, *more])
        assert refused.exit_code == 2 and "64 pixels a side and tinyworld of 48; give " in refused.output
    assert CliRunner().invoke(app, ["train", recipe, *given, "data.own_share=1", "--dry-run"]).exit_code == 0


def test_two_nodes_train_as_one_run(start: Path, tmp_path: Path) -> None:
    """Two launchers with a process each: both are the first of their node, and only one is the first of the run."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        endpoint = f"localhost:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    command += ["--rdzv-id", "mine", "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint]
    command += ["-m", "janusflow.cli", "train", str(RECIPES / "tiny" / "stage2.yaml"), f"model={start}"]
    command += [f"out={tmp_path / 'run'}", "steps=2", "batch_size=4", "compile=false", "watch.every=0"]
    command += ["loss.repa_block=2", "data.workers=0", "--device", "cpu"]
    nodes = [
        subprocess.Popen(command, env=ONE_THREAD, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = [node.communicate(timeout=300) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], [err[-3000:] for _, err in told]
    assert "".join(out for out, _ in told).split() == [str(tmp_path / "run" / "export")]
    assert [row["step"] for row in curve(tmp_path / "run")] == [1, 2]
    streams = (tmp_path / "run" / "checkpoints" / "step-0000002").glob("streams-*.json")
    assert sorted(file.name for file in streams) == ["streams-0.json", "streams-1.json"]


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


SHARDED = """
import json, os, sys
import torch
torch.set_num_threads(1)
from torch.distributed.tensor import DTensor
from janusflow.training import distributed, trainer
from janusflow.training.config import read_config
original = trainer.take_step
def watched(run, found):
    own = [p for p in run.objective.parameters()]
    assert all(isinstance(p, DTensor) for p in own)
    assert all(isinstance(v, DTensor) for v in run.ema.values.values())
    assert sum(p.to_local().numel() for p in own) < 0.6 * sum(p.numel() for p in own)
    with open(f"{run.config.out}/pid-{run.world.rank}", "w") as file:
        file.write(str(os.getpid()))
    ids = [sample.tokens.ids for sample in found.samples]
    with open(f"{run.config.out}/seen-{run.world.rank}.jsonl", "a") as file:
        file.write(json.dumps(ids) + "\\n")
    return original(run, found)
trainer.take_step = watched
trainer.train(read_config(json.loads(sys.argv[1])), device="cpu", progress_bar=False, resume="resume" in sys.argv)
distributed.end(0)
"""


ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def torchrun(config: TrainConfig, tmp_path: Path, *, resume: bool = False) -> list[str]:
    """The command that runs it in two sharded processes."""
    script = tmp_path / "sharded.py"
    script.write_text(SHARDED)
    Path(config.out).mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", str(script), json.dumps(asdict(config))]
    return command + (["resume"] if resume else [])


def sharded(config: TrainConfig, tmp_path: Path, *, resume: bool = False, fails: bool = False) -> str:
    """The run under torchrun; what it said."""
    command = torchrun(config, tmp_path, resume=resume)
    done = subprocess.run(command, env=ONE_THREAD, capture_output=True, text=True, timeout=300)
    assert bool(done.returncode) == fails, done.stderr[-3000:]
    return done.stderr


def close(found: list[tuple[float, ...]], expected: list[tuple[float, ...]], within: float = 2e-5) -> bool:
    return len(found) == len(expected) and all(
        a == pytest.approx(b, rel=within, abs=within) for a, b in zip(found, expected, strict=True)
    )


def test_two_sharded_processes_give_the_curve_of_one(start: Path, tmp_path: Path) -> None:
    alone = settings(start, tmp_path / "alone", steps=4)
    quietly(alone)
    both = settings(start, tmp_path / "both", steps=4)
    sharded(both, tmp_path)
    assert close(values(tmp_path / "both"), values(tmp_path / "alone"))
    for name, value in weights(tmp_path / "alone" / "export").items():
        torch.testing.assert_close(weights(tmp_path / "both" / "export")[name], value, atol=1e-5, rtol=1e-4)
    first, second = (
        [json.loads(line) for line in (tmp_path / "both" / f"seen-{rank}.jsonl").read_text().splitlines()]
        for rank in (0, 1)
    )
    for mine, other in zip(first, second, strict=True):
        assert len(mine) == len(other) == 3
        assert not any(ids in other for ids in mine)
    # Another number of processes continues the same curve.
    quietly(settings(start, tmp_path / "both", steps=6), resume=True)
    sharded(settings(start, tmp_path / "both", steps=8), tmp_path, resume=True)
    quietly(settings(start, tmp_path / "alone", steps=8), resume=True)
    assert close(values(tmp_path / "both"), values(tmp_path / "alone"))


def test_sigterm_to_torchrun_saves_one_step_of_all_processes(start: Path, tmp_path: Path) -> None:
    config = settings(start, tmp_path / "told", steps=500, save={"every": 1000})
    life = subprocess.Popen(torchrun(config, tmp_path), env=ONE_THREAD, stderr=subprocess.DEVNULL)
    while not (tmp_path / "told" / "log.jsonl").is_file() or not curve(tmp_path / "told"):
        assert life.poll() is None
        time.sleep(0.02)
    life.terminate()
    assert life.wait(60) != 0  # the launcher's own end; its processes end well, as the checkpoint and the export say
    done = len(curve(tmp_path / "told"))
    assert [path.name for path in (tmp_path / "told" / "checkpoints").iterdir()] == [f"step-{done:07d}"]
    sharded(settings(start, tmp_path / "told", steps=done + 1), tmp_path, resume=True)
    assert [row["step"] for row in curve(tmp_path / "told")] == list(range(1, done + 2))


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


def rows_of(out: Path) -> list[dict[str, Any]]:
    """Those of a log that another process writes."""
    text = (out / "log.jsonl").read_text() if (out / "log.jsonl").exists() else ""
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def test_two_processes_killed_at_random_moments_continue_to_the_bit(start: Path, tmp_path: Path) -> None:
    """SIGKILL to both and their launcher, three times, while there is a checkpoint after every step."""
    config = settings(start, tmp_path / "killed", steps=40, save={"every": 1})
    pids = [tmp_path / "killed" / f"pid-{rank}" for rank in (0, 1)]
    moments = Random(0)
    for number in range(3):
        before = max((int(folder.name[5:12]) for folder in tmp_path.glob("killed/checkpoints/step-*")), default=0)
        life = subprocess.Popen(torchrun(config, tmp_path, resume=True), env=ONE_THREAD, stderr=subprocess.DEVNULL)
        while not any(row["step"] > before for row in rows_of(tmp_path / "killed")):
            assert life.poll() is None, number
            time.sleep(0.02)
        time.sleep(moments.uniform(0.0, 0.8))
        for pid in (life.pid, *(int(file.read_text()) for file in pids)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        life.wait()
    assert 3 <= len(curve(tmp_path / "killed")) < 40
    sharded(config, tmp_path, resume=True)
    whole = replace(config, out=str(tmp_path / "whole"))
    sharded(whole, tmp_path)
    assert values(tmp_path / "killed") == values(tmp_path / "whole")
    for name, value in weights(tmp_path / "whole" / "export").items():
        assert torch.equal(weights(tmp_path / "killed" / "export")[name], value), name


def test_two_sharded_processes_with_anchors_give_the_curve_of_one(start: Path, tmp_path: Path) -> None:
    kept = [{"kind": "tinyworld", "anchor": True}]
    ratios = [{"understanding": 2, "generation": 3, "text": 1}]
    data = {"understanding": kept, "generation": kept, "text": [{"kind": "tinyworld"}], "ratios": ratios, "workers": 0}
    quietly(settings(start, tmp_path / "alone", steps=4, data=data))
    sharded(settings(start, tmp_path / "both", steps=4, data=data), tmp_path)
    assert close(values(tmp_path / "both"), values(tmp_path / "alone"))


def test_when_one_process_cannot_read_on_all_end_and_the_last_checkpoint_is_whole(start: Path, tmp_path: Path) -> None:
    """Also while a checkpoint is being written in the background, which all of them have to complete together."""
    data = tmp_path / "data"
    data.mkdir()
    Image.new("RGB", (64, 64), "red").save(data / "a.png")
    good, broken = (json.dumps({"image": f"{name}.png", "text": "a red picture"}) + "\n" for name in ("a", "missing"))
    (data / "first.jsonl").write_text(good * 40)
    (data / "second.jsonl").write_text(good * 4 + broken * 200)
    source = {"kind": "jsonl", "path": str(data), "streaming": True}
    ratios = [{"understanding": 0, "generation": 1, "text": 0}]
    config = settings(
        start,
        tmp_path / "run",
        batch_size=4,
        data={"generation": [source], "ratios": ratios, "workers": 0, "max_broken": 1.0},
        save={"every": 1, "background": True},
    )
    said = sharded(config, tmp_path, fails=True)
    assert "records in a row are broken" in said and "the data of another process cannot be read further" in said
    assert sorted(folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir())[-1].endswith("2")


def test_sharded_processes_with_a_frozen_llm_and_unequal_rows_do_not_wait_in_vain(start: Path, tmp_path: Path) -> None:
    options = {"steps": 3, "parts": ["aligner", "generation"], "batch_size": 3, "pack_length": 32}
    quietly(settings(start, tmp_path / "alone", **options))
    sharded(settings(start, tmp_path / "both", **options), tmp_path)
    assert close(values(tmp_path / "both"), values(tmp_path / "alone"))


@pytest.mark.parametrize(("precision", "within"), [("float32", 2e-5), ("bfloat16", 0.02)])
def test_sharded_adapters_give_the_curve_of_one_process(
    start: Path, tmp_path: Path, precision: str, within: float
) -> None:
    options = {"steps": 3, "lora": {"rank": 4}, "parts": ["aligner", "generation", "llm"], "precision": precision}
    quietly(settings(start, tmp_path / "alone", **options))
    sharded(settings(start, tmp_path / "both", **options), tmp_path)
    assert close(values(tmp_path / "both"), values(tmp_path / "alone"), within)
    alone, both = (
        load_file(next((tmp_path / name / "export" / "adapter").glob("*.safetensors"))) for name in ("alone", "both")
    )
    assert alone.keys() == both.keys() and any(value.any() for name, value in both.items() if "lora_B" in name)
    if precision == "float32":
        for name, value in alone.items():
            torch.testing.assert_close(both[name], value, atol=1e-5, rtol=1e-4)


def test_streams_begin_again_with_another_number_of_processes(
    start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = streaming(tmp_path, 0)
    sharded(settings(start, tmp_path / "run", data=given, steps=2), tmp_path)
    quietly(settings(start, tmp_path / "run", data=given, steps=4), resume=True)
    assert "1 process instead of 2: streams start again" in " ".join(capsys.readouterr().err.split())
    assert [row["step"] for row in curve(tmp_path / "run")] == [1, 2, 3, 4]


def streaming(tmp_path: Path, workers: int) -> dict[str, Any]:
    """Data of two streamed files of twenty pictures to draw."""
    data = tmp_path / "data"
    data.mkdir(exist_ok=True)
    for part in ("first", "second"):
        for number in range(20):
            Image.new("RGB", (64, 64), (12 * number, 0, 0)).save(data / f"{number}.png")
        rows = [json.dumps({"image": f"{number}.png", "text": f"{part} {number}"}) for number in range(20)]
        (data / f"{part}.jsonl").write_text("\n".join(rows))
    source = {"kind": "jsonl", "path": str(data), "streaming": True}
    ratios = [{"understanding": 0, "generation": 1, "text": 0}]
    return {"generation": [source], "ratios": ratios, "workers": workers}


@pytest.mark.parametrize("workers", [0, 1])
def test_streams_continue_exactly(start: Path, tmp_path: Path, workers: int) -> None:
    given = streaming(tmp_path, workers)
    quietly(settings(start, tmp_path / "whole", data=given, steps=5))
    for steps in (3, 5):
        quietly(settings(start, tmp_path / "parts", data=given, steps=steps), resume=True)
    assert values(tmp_path / "parts") == values(tmp_path / "whole")


def test_streams_of_two_processes_continue_exactly(start: Path, tmp_path: Path) -> None:
    given = streaming(tmp_path, 0)
    sharded(settings(start, tmp_path / "whole", data=given, steps=4), tmp_path)
    for steps in (2, 4):
        sharded(settings(start, tmp_path / "parts", data=given, steps=steps), tmp_path, resume=steps == 4)
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


def test_muon_sees_whole_matrices_though_they_are_sharded(start: Path, tmp_path: Path) -> None:
    optimizer = {"name": "muon", "learning_rate": 1e-3}
    quietly(settings(start, tmp_path / "alone", steps=3, optimizer=optimizer))
    sharded(settings(start, tmp_path / "both", steps=3, optimizer=optimizer), tmp_path)
    assert close(values(tmp_path / "both"), values(tmp_path / "alone"), within=2e-4)  # its matrix products are bfloat16


def test_when_the_first_process_cannot_draw_the_others_end_too(start: Path, tmp_path: Path) -> None:
    source = {"kind": "replay", "path": str(tmp_path / "missing.txt"), "images": 1}
    data = {"generation": [source], "ratios": [{"understanding": 0, "generation": 1, "text": 0}], "workers": 0}
    said = sharded(settings(start, tmp_path / "run", data=data), tmp_path, fails=True)
    assert "cannot be read as prompts" in said and "the first process could not generate the replay" in said


def test_two_processes_train_on_what_one_of_them_drew(start: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle\ntwo stars\n")
    source = {"kind": "replay", "path": str(tmp_path / "prompts.txt"), "images": 2, "guidance": 1.0}
    data = {"generation": [source], "ratios": [{"understanding": 0, "generation": 1, "text": 0}], "workers": 0}
    sharded(settings(start, tmp_path / "run", data=data, steps=4), tmp_path)
    files = sorted(file.name for file in (tmp_path / "run" / "replay0").iterdir())
    assert files == ["pairs-000000.parquet", "reflow.json"]
    quietly(settings(start, tmp_path / "alone", data=data, steps=4))
    assert close(values(tmp_path / "run"), values(tmp_path / "alone"))
    seen = [
        json.loads(line) for n in (0, 1) for line in (tmp_path / "run" / f"seen-{n}.jsonl").read_text().splitlines()
    ]
    assert len(seen) == 8 and all(seen)
