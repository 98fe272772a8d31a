"""Checkpoints are written whole, also in the background and when the disk is full, and the best and last are kept."""

from __future__ import annotations

import shutil
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from janusflow.training import resume as resume_module
from janusflow.training import trainer
from janusflow.training.resume import Begun, Checkpoints
from tests.training.conftest import ALONE, OFTEN, BreakingFile, curve, full_disk, quietly, settings, values


def test_checkpoints_are_pruned_but_the_best_and_the_last_stay(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best is that of the lowest running mean of the loss, which here rises after step 3."""
    step = trainer.take_step

    def scripted(run: Any, found: Any) -> dict[str, float]:
        return {**step(run, found), "ar": 5.0 - found.step if found.step < 3 else 9.0, "flow": 0.0}

    monkeypatch.setattr(trainer, "take_step", scripted)
    quietly(settings(start, tmp_path, steps=7, save={"every": 1, "keep": 2}))
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-0000003", "step-0000006", "step-0000007"]


def test_a_disk_that_is_full_leaves_the_last_checkpoint(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = resume_module.dcp.save, 0

    def full(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            (Path(kwargs["checkpoint_id"]) / "half").write_text("half")
            raise OSError(28, "No space left on device")
        return original(*args, **kwargs)

    monkeypatch.setattr(resume_module.dcp, "save", full)
    with pytest.raises(
        OSError, match="step-0000004 could not be written .*No space left.*; the last checkpoint, step-0000002, is"
    ):
        quietly(settings(start, tmp_path, save=OFTEN))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0000002"]
    monkeypatch.undo()
    quietly(settings(start, tmp_path, save=OFTEN), resume=True)
    assert len(curve(tmp_path)) == 6


def test_a_checkpoint_in_the_background_holds_the_step_it_began_at(start: Path, tmp_path: Path) -> None:
    def run(name: str, **changes: Any) -> None:
        quietly(settings(start, tmp_path / name, **changes))

    run("plain", steps=4, save=OFTEN)
    run("background", steps=4, save={"every": 2, "background": True})
    names = ["step-0000002", "step-0000004"]
    assert sorted(path.name for path in (tmp_path / "background" / "checkpoints").iterdir()) == names
    assert values(tmp_path / "background") == values(tmp_path / "plain")
    # Continued from the middle: had later steps leaked into the copy, the curve would differ.
    for name in ("plain", "background"):
        shutil.rmtree(tmp_path / name / "checkpoints" / "step-0000004")
        quietly(settings(start, tmp_path / name, save={"every": 2, "background": name == "background"}), resume=True)
    assert values(tmp_path / "background") == values(tmp_path / "plain")


def test_a_checkpoint_in_the_background_is_complete_long_before_the_next(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, list[str]] = {}
    step, save, begun = trainer.take_step, resume_module.dcp.async_save, []

    def saved(*args: Any, **kwargs: Any) -> Any:
        begun.append(save(*args, **kwargs))
        return begun[-1]

    def watched(run: Any, found: Any) -> Any:
        seen[found.step] = sorted(path.name for path in (tmp_path / "checkpoints").glob("*"))
        for future in begun:
            future.result()
        return step(run, found)

    monkeypatch.setattr(resume_module.dcp, "async_save", saved)
    monkeypatch.setattr(trainer, "take_step", watched)
    quietly(settings(start, tmp_path, steps=4, save={"every": 2, "background": True}))
    assert seen[2] == ["step-0000002.tmp"] and seen[3] == ["step-0000002"]


def test_several_processes_complete_a_background_checkpoint_once_all_have_written(tmp_path: Path) -> None:
    writing = {"another": True}
    world = SimpleNamespace(first=True, mesh=object(), any=lambda mine: writing["another"], wait=lambda: None)
    checkpoints = Checkpoints(tmp_path, world, keep=2, background=True)  # type: ignore[arg-type]
    written: Future[Any] = Future()
    written.set_result(None)
    temporary = tmp_path / "step-0000001.tmp"
    temporary.mkdir()
    checkpoints.begun = Begun(tmp_path / "step-0000001", temporary, 1, written)
    checkpoints.settle()
    assert temporary.exists(), "another process still writes"
    writing["another"] = False
    checkpoints.settle()
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000001"]


def test_a_full_disk_in_the_background_is_told(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(OSError(28, "No space left on device"))
        return future

    monkeypatch.setattr(resume_module.dcp, "async_save", full)
    with pytest.raises(OSError, match="step-0000002 could not be written .*No space left"):
        quietly(settings(start, tmp_path, save={"every": 2, "background": True}))
    assert not list((tmp_path / "checkpoints").iterdir())
    assert len(curve(tmp_path)) >= 3


def test_a_disk_that_is_full_while_a_checkpoint_is_written(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deep inside torch, which hides the error behind one about positions; its own exception is no `Exception`."""
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda content, stream: save(content, BreakingFile(stream, full_disk)))
    with pytest.raises(OSError, match="step-0000002 could not be written .*No space left"):
        quietly(settings(start, tmp_path, save=OFTEN))
    assert not list((tmp_path / "checkpoints").iterdir())


def test_what_was_written_whole_before_a_kill_is_not_lost(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, taken = trainer.take_step, []

    def counted(run: Any, found: Any) -> Any:
        taken.append(found.step)
        return step(run, found)

    monkeypatch.setattr(trainer, "take_step", counted)
    quietly(settings(start, tmp_path / "run", steps=2))
    folder = tmp_path / "run" / "checkpoints"
    (folder / "step-0000002").rename(folder / "step-0000002.tmp")
    quietly(settings(start, tmp_path / "run", steps=4), resume=True)
    assert taken == [0, 1, 2, 3]
    quietly(settings(start, tmp_path / "whole", steps=4))
    assert values(tmp_path / "run") == values(tmp_path / "whole")
    (folder / "step-0000004").rename(folder / "step-0000004.tmp")
    (folder / "step-0000004.tmp" / ".metadata").unlink()
    assert [path.name for path in Checkpoints(folder, ALONE, keep=2).all()] == ["step-0000002"]
    assert not list(folder.glob("*.tmp"))
