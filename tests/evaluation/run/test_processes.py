"""Processes share the items of a run, and one that is killed loses nothing."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
from typer.testing import CliRunner

from janusflow.cli import app
from janusflow.evaluation.protocol import Item, Output
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.eval_run import EvalRun
from janusflow.evaluation.run.evaluate import evaluate, work
from janusflow.evaluation.run.manifest import remember
from janusflow.evaluation.run.records import Records
from janusflow.files import locked
from tests.evaluation import counting
from tests.evaluation.counting import Model
from tests.processes import command, fork, forks

pytestmark = pytest.mark.usefixtures("counting")

PATIENCE = 120  # seconds until processes count as waiting in vain


def test_processes_share_the_items_without_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = EvalRequest("counting", tmp_path, batch_size=2)
    remember(EvalRun(request))
    models = [Model(), Model(), Model()]
    for rank, model in enumerate(models):
        work(request, rank, 3, model=model)
    assert sorted(name for model in models for name in model.made) == sorted(f"number {n}" for n in range(10))
    assert [len(model.made) for model in models] == [4, 4, 2]
    assert evaluate(request)["score"] == 1


def test_ray_workers_share_the_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)  # Ray's workers stand elsewhere: the folder must reach them whole
    request = EvalRequest(
        "tinyworld", Path("run"), limit=6, batch_size=2, options={"num_inference_steps": 1, "max_new_tokens": 2}
    )
    try:
        report = evaluate(request, ray=2)
    finally:
        ray.shutdown()
    files = [(tmp_path / "run" / f"outputs-{rank:05d}.jsonl").read_text().splitlines() for rank in (0, 1)]
    assert report["judged"] == 6 and [len(lines) for lines in files] == [4, 2]


@dataclass(frozen=True)
class RuledSettings(counting.CountingSettings):
    rules: str = ""


class Ruled(counting.Counting):
    """Judges by a file in a folder that a setting names."""

    Settings: ClassVar[type] = RuledSettings
    judging = (*counting.Counting.judging, "rules")

    def judge(self, item: Item, output: Output) -> dict[str, Any]:
        return {"score": float(Path(self.settings.rules, "score").read_text())}


class InFolder:
    """Stands for a function of Ray's, whose workers run in another folder."""

    def __init__(self, folder: Path, work: Any) -> None:
        self.folder, self.work = folder, work

    def remote(self, *given: Any) -> None:
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            self.work(*given)
        finally:
            os.chdir(before)


def test_verdicts_of_ray_workers_count_when_a_setting_names_a_relative_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    (here / "rules").mkdir(parents=True)
    (here / "rules" / "score").write_text("1")
    elsewhere.mkdir()
    ray: Any = ModuleType("ray")
    ray.__spec__ = ModuleSpec("ray", None)
    ray.remote, ray.get = (lambda **_: lambda work: InFolder(elsewhere, work)), list
    ray.is_initialized, ray.cluster_resources = (lambda: True), dict
    errors: Any = ModuleType("ray.exceptions")
    errors.RayError = type("RayError", (Exception,), {})
    errors.RayTaskError = type("RayTaskError", (errors.RayError,), {})
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.exceptions", errors)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(counting, "Counting", Ruled)
    monkeypatch.setattr("janusflow.evaluation.run.evaluate.open_model", lambda request: Model())
    monkeypatch.chdir(here)
    request = EvalRequest("counting", Path("run"), batch_size=2, settings={"rules": "rules"})
    report = evaluate(request, ray=2)
    assert report["judged"] == 10 and report["score"] == 1
    assert not list(elsewhere.iterdir())


def test_processes_of_torchrun_share_all_points_of_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("janusflow.evaluation.run.evaluate.open_model", lambda request: Model(wrong=[2]))
    words = ["eval", "counting", "--out", str(tmp_path / "run"), "--batch-size", "2", "--sweep", "tolerance=0,1,2"]
    lives = forks(2, command, words, said=tmp_path / "said")
    for life in lives:
        life.join(PATIENCE)
    codes = [life.exitcode for life in lives]
    for life in lives:
        life.kill()
    assert codes == [0, 0], (tmp_path / "said").read_text()[-3000:]
    assert [row["score"] for row in json.loads((tmp_path / "run" / "sweep.json").read_text())] == [0.9, 1, 1]
    for tolerance in (0, 1, 2):
        folder = tmp_path / "run" / f"tolerance={tolerance}"
        files = [(folder / f"outputs-{rank:05d}.jsonl").read_text().splitlines() for rank in (0, 1)]
        assert [len(lines) for lines in files] == [6, 4]


KILLED = ["eval", "tinyworld", "--set", "prompts=1", "--set", "images=1", "--set", "questions=1"]
KILLED += ["--set", "features=false", "--option", "num_inference_steps=2", "--batch-size", "2"]


def killed(words: Sequence[str], records: Records, count: int) -> int:
    """Kill the real command once there are that many records; its process group."""
    life = fork(command, words, said=records.folder / "said")
    while life.is_alive() and len(list(records.all())) < count:
        time.sleep(0.02)
    life.kill()
    life.join()
    return life.pid or 0


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_a_killed_run_of_the_tiny_world_goes_on(tmp_path: Path) -> None:
    """SIGKILL of one process, then of one with two workers, which end by themselves; nothing is made twice."""
    words, records = [*KILLED, "--out", str(tmp_path)], Records(tmp_path, "outputs")
    killed([*words, "--mode", "generate"], records, 1)
    finished = [tmp_path / record["output"] for record in records.all()]  # a picture is there before its record is
    made = {file: file.stat().st_mtime_ns for file in finished}
    assert made
    group = killed([*words, "--workers", "2"], records, len(made) + 1)
    until = time.monotonic() + 20
    while members(group) and time.monotonic() < until:
        time.sleep(0.02)
    assert not members(group)
    assert len(made) < len(list(records.all())) < 10 + 12
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert all(file.stat().st_mtime_ns == before for file, before in made.items())
    keys = [record["key"] for record in records.all()]
    assert len(keys) == len(set(keys)) == 10 + 12
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["judged"] == report["items"] == 10 + 12


def test_local_workers_share_the_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forking = multiprocessing.get_context("fork")  # whose workers know the benchmark and the model of this file
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: forking)
    monkeypatch.setattr("janusflow.evaluation.run.evaluate.open_model", lambda request: Model())
    report = evaluate(EvalRequest("counting", tmp_path, batch_size=2), workers=2)
    assert report["judged"] == 10 and report["score"] == 1
    files = [(tmp_path / f"outputs-{rank:05d}.jsonl").read_text().splitlines() for rank in (0, 1)]
    assert [len(lines) for lines in files] == [6, 4]


def members(group: int) -> list[int]:
    """Running processes of a group."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, number = entry.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(number) == group and state not in "ZX":
            found.append(int(entry.parent.name))
    return found


def test_a_run_is_refused_while_a_worker_of_an_earlier_one_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("janusflow.evaluation.run.evaluate.PATIENCE", 0.0)
    request = EvalRequest("counting", tmp_path)
    refused = pytest.raises(ValueError, match="workers of an earlier run are still writing into")
    with locked(tmp_path / ".lock-00001", "held"), refused:
        evaluate(request, model=Model())
    assert evaluate(request, model=Model())["score"] == 1
