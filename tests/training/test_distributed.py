"""It does not matter how many processes share the work, and none waits in vain for another that ends."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

from janusflow.training import trainer
from janusflow.training.config import TrainConfig
from tests.processes import command, forks
from tests.training.conftest import OFTEN, close, curve, quietly, settings, streaming, values, weights

RECIPES = Path(__file__).parents[2] / "recipes"
STEPS = 8  # of a run that is killed
PATIENCE = 120  # seconds until processes count as waiting in vain


def watched_run(config: TrainConfig, resume: bool = False) -> None:
    """A run that writes down what its process sees, and checks that every tensor that learns is sharded."""
    original, rank = trainer.take_step, os.environ["RANK"]

    def watched(run: Any, found: Any) -> Any:
        own = list(run.objective.parameters())
        assert all(isinstance(p, DTensor) for p in own)
        assert all(isinstance(value, DTensor) for value in run.ema.values.values())
        assert sum(p.to_local().numel() for p in own) < 0.6 * sum(p.numel() for p in own)
        with Path(config.out, f"seen-{rank}.jsonl").open("a") as file:
            print(json.dumps([sample.tokens.ids for sample in found.samples]), file=file)
        return original(run, found)

    trainer.take_step = watched
    quietly(config, resume=resume)


def started(config: TrainConfig, *, resume: bool = False) -> list[BaseProcess]:
    """Its two sharded processes, as torchrun starts them."""
    Path(config.out).mkdir(parents=True, exist_ok=True)
    return forks(2, watched_run, config, resume, said=Path(config.out, "said"))


def sharded(config: TrainConfig, *, resume: bool = False, fails: bool = False) -> str:
    """The run in two sharded processes; what they said."""
    lives = started(config, resume=resume)
    for life in lives:
        life.join(PATIENCE)
    codes = [life.exitcode for life in lives]
    for life in lives:
        life.kill()
    said = Path(config.out, "said").read_text()
    assert codes == [int(fails)] * 2, said[-3000:]
    return said


def test_two_sharded_processes_give_the_curve_of_one_which_either_continues(start: Path, tmp_path: Path) -> None:
    alone = weights(quietly(settings(start, tmp_path / "alone", steps=4)))
    quietly(settings(start, tmp_path / "alone", steps=6), resume=True)
    quietly(settings(start, tmp_path / "both", steps=1))
    sharded(settings(start, tmp_path / "both", steps=4), resume=True)
    for name, value in weights(tmp_path / "both" / "export").items():
        torch.testing.assert_close(value, alone[name], atol=1e-5, rtol=1e-4)
    first, second = (
        [json.loads(line) for line in (tmp_path / "both" / f"seen-{rank}.jsonl").read_text().splitlines()]
        for rank in (0, 1)
    )
    assert len(first) == len(second) == 3
    for mine, other in zip(first, second, strict=True):
        assert len(mine) == len(other) == 3
        assert not any(ids in other for ids in mine)
    quietly(settings(start, tmp_path / "both", steps=6), resume=True)
    assert close(values(tmp_path / "both"), values(tmp_path / "alone"))


def words(start: Path, out: Path, steps: int) -> list[str]:
    """The command of a short run."""
    given = ["train", str(RECIPES / "tiny" / "stage2.yaml"), f"model={start}", f"out={out}", f"steps={steps}"]
    given += ["batch_size=4", "compile=false", "watch.every=0", "save.every=1000", "loss.repa_block=2"]
    return [*given, "precision=float32", "data.workers=0", "--device", "cpu"]


def test_sigterm_to_torchrun_saves_one_step_and_two_nodes_continue_as_one_run(start: Path, tmp_path: Path) -> None:
    """The real launcher and command."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    launcher += ["--rdzv-endpoint", "localhost:0", "-m", "janusflow.cli", *words(start, tmp_path / "told", 500)]
    given = {**os.environ, "OMP_NUM_THREADS": "1"}
    life = subprocess.Popen(launcher, env=given, stderr=subprocess.DEVNULL)
    while not (tmp_path / "told" / "log.jsonl").is_file() or not curve(tmp_path / "told"):
        assert life.poll() is None
        time.sleep(0.02)
    life.terminate()
    assert life.wait(60) != 0  # the launcher's own end; its processes end well, as the checkpoint and the export say
    done = len(curve(tmp_path / "told"))
    assert [path.name for path in (tmp_path / "told" / "checkpoints").iterdir()] == [f"step-{done:07d}"]
    again = [*words(start, tmp_path / "told", done + 1), "--resume"]
    lives = forks(2, command, again, said=tmp_path / "said")  # as on two nodes: each is the first of its own
    for one in lives:
        one.join(PATIENCE)
    said = (tmp_path / "said").read_text()
    assert [one.exitcode for one in lives] == [0, 0], said[-3000:]
    assert said.splitlines().count(str(tmp_path / "told" / "export")) == 1
    assert [row["step"] for row in curve(tmp_path / "told")] == list(range(1, done + 2))
    streams = (tmp_path / "told" / "checkpoints" / f"step-{done + 1:07d}").glob("streams-*.json")
    assert sorted(file.name for file in streams) == ["streams-0.json", "streams-1.json"]


def rows_of(out: Path) -> list[dict[str, Any]]:
    """Those of a log that another process writes."""
    text = (out / "log.jsonl").read_text() if (out / "log.jsonl").exists() else ""
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def test_two_processes_killed_at_random_moments_continue_to_the_bit(start: Path, tmp_path: Path) -> None:
    """SIGKILL to both, three times, while there is a checkpoint after every step."""
    config = settings(start, tmp_path / "killed", steps=STEPS, save={"every": 1})
    moments = Random(0)
    for number in range(3):
        before = max((int(folder.name[5:12]) for folder in tmp_path.glob("killed/checkpoints/step-*")), default=0)
        lives = started(config, resume=True)
        while not any(row["step"] > before for row in rows_of(tmp_path / "killed")):
            assert all(life.is_alive() for life in lives), number
            time.sleep(0.02)
        time.sleep(moments.uniform(0.0, 0.5))
        for life in lives:
            life.kill()
        for life in lives:
            life.join()
    assert 3 <= len(curve(tmp_path / "killed")) < STEPS
    sharded(config, resume=True)
    sharded(settings(start, tmp_path / "whole", steps=STEPS, save={"every": STEPS}))
    assert values(tmp_path / "killed") == values(tmp_path / "whole")
    for name, value in weights(tmp_path / "whole" / "export").items():
        assert torch.equal(weights(tmp_path / "killed" / "export")[name], value), name


def test_two_sharded_processes_with_anchors_give_the_curve_of_one(start: Path, tmp_path: Path) -> None:
    kept = [{"kind": "tinyworld", "anchor": True}]
    ratios = [{"understanding": 2, "generation": 3, "text": 1}]
    data = {"understanding": kept, "generation": kept, "text": [{"kind": "tinyworld"}], "ratios": ratios, "workers": 0}
    quietly(settings(start, tmp_path / "alone", steps=4, data=data))
    sharded(settings(start, tmp_path / "both", steps=4, data=data))
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
    said = sharded(config, fails=True)
    assert "records in a row are broken" in said and "the data of another process cannot be read further" in said
    assert sorted(folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir())[-1].endswith("2")


def test_sharded_processes_with_a_frozen_llm_and_unequal_rows_do_not_wait_in_vain(start: Path, tmp_path: Path) -> None:
    options = {"steps": 3, "parts": ["aligner", "generation"], "batch_size": 3, "pack_length": 32}
    quietly(settings(start, tmp_path / "alone", **options))
    sharded(settings(start, tmp_path / "both", **options))
    assert close(values(tmp_path / "both"), values(tmp_path / "alone"))


@pytest.mark.parametrize(("precision", "within"), [("float32", 2e-5), ("bfloat16", 0.02)])
def test_sharded_adapters_give_the_curve_of_one_process(
    start: Path, tmp_path: Path, precision: str, within: float
) -> None:
    options = {"steps": 3, "lora": {"rank": 4}, "parts": ["aligner", "generation", "llm"], "precision": precision}
    quietly(settings(start, tmp_path / "alone", **options))
    sharded(settings(start, tmp_path / "both", **options))
    assert close(values(tmp_path / "both"), values(tmp_path / "alone"), within)
    alone, both = (
        load_file(next((tmp_path / name / "export" / "adapter").glob("*.safetensors"))) for name in ("alone", "both")
    )
    assert alone.keys() == both.keys() and any(value.any() for name, value in both.items() if "lora_B" in name)
    if precision == "float32":
        for name, value in alone.items():
            torch.testing.assert_close(both[name], value, atol=1e-5, rtol=1e-4)


def test_streams_of_two_processes_continue_exactly_and_begin_again_in_one(
    start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = streaming(tmp_path, 0)
    sharded(settings(start, tmp_path / "whole", data=given, steps=4, save=OFTEN))
    for name in ("parts", "alone"):  # as if it had been killed after the third step
        shutil.copytree(tmp_path / "whole", tmp_path / name)
        shutil.rmtree(tmp_path / name / "checkpoints" / "step-0000004")
        rows = (tmp_path / name / "log.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / name / "log.jsonl").write_text("".join(rows[:3]))
    sharded(settings(start, tmp_path / "parts", data=given, steps=4), resume=True)
    assert values(tmp_path / "parts") == values(tmp_path / "whole")
    quietly(settings(start, tmp_path / "alone", data=given, steps=3), resume=True)
    assert "1 process instead of 2: streams start again" in " ".join(capsys.readouterr().err.split())
    assert [row["step"] for row in curve(tmp_path / "alone")] == [1, 2, 3]


def test_muon_sees_whole_matrices_though_they_are_sharded(start: Path, tmp_path: Path) -> None:
    optimizer = {"name": "muon", "learning_rate": 1e-3}
    quietly(settings(start, tmp_path / "alone", steps=3, optimizer=optimizer))
    sharded(settings(start, tmp_path / "both", steps=3, optimizer=optimizer))
    assert close(values(tmp_path / "both"), values(tmp_path / "alone"), within=2e-4)  # its matrix products are bfloat16


def test_when_the_first_process_cannot_draw_the_others_end_too(start: Path, tmp_path: Path) -> None:
    source = {"kind": "replay", "path": str(tmp_path / "missing.txt"), "images": 1}
    data = {"generation": [source], "ratios": [{"understanding": 0, "generation": 1, "text": 0}], "workers": 0}
    said = sharded(settings(start, tmp_path / "run", data=data), fails=True)
    assert "cannot be read as prompts" in said and "the first process could not generate the replay" in said


def test_two_processes_train_on_what_one_of_them_drew(start: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle\ntwo stars\n")
    source = {"kind": "replay", "path": str(tmp_path / "prompts.txt"), "images": 2, "guidance": 1.0}
    data = {"generation": [source], "ratios": [{"understanding": 0, "generation": 1, "text": 0}], "workers": 0}
    sharded(settings(start, tmp_path / "run", data=data, steps=4))
    files = sorted(file.name for file in (tmp_path / "run" / "replay0").iterdir())
    assert files == [".lock", "pairs-000000.parquet", "reflow.json"]
    quietly(settings(start, tmp_path / "alone", data=data, steps=4))
    assert close(values(tmp_path / "run"), values(tmp_path / "alone"))
    seen = [
        json.loads(line) for n in (0, 1) for line in (tmp_path / "run" / f"seen-{n}.jsonl").read_text().splitlines()
    ]
    assert len(seen) == 8 and all(seen)
