"""Damaged and forged files of a run are named in one sentence, and none of them runs code."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from janusflow.files import temporary_path
from janusflow.training.checkpoint_files import SafePlanner, write_checksums
from janusflow.training.resume import Checkpoints
from tests.training.conftest import ALONE, quietly, settings


@pytest.fixture(scope="module")
def finished(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two steps, to copy and damage."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    quietly(settings(start, folder, steps=2))
    return folder


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata", "progress.json", "streams-0.json"])
def test_a_flipped_byte_in_a_checkpoint_is_found(finished: Path, tmp_path: Path, name: str) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    file = run / "checkpoints" / "step-0000002" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"damaged \({name} differs from its checksum\); .* from the beginning"):
        Checkpoints(run / "checkpoints", ALONE, keep=2)._check([run / "checkpoints" / "step-0000002"])


def test_resuming_runs_no_code_from_a_checkpoint(start: Path, finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    folder, trap = run / "checkpoints" / "step-0000002", tmp_path / "trap"
    (folder / ".metadata").write_bytes(pickle.dumps(Trap(trap)))
    write_checksums(folder)
    with pytest.raises(ValueError, match="names pathlib.*Path.touch, which a checkpoint never needs"):
        quietly(settings(start, run, steps=4), resume=True)
    assert not trap.exists()


def test_a_checkpoint_names_no_file_outside_its_folder(start: Path, finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    folder = run / "checkpoints" / "step-0000002"
    content = (folder / ".metadata").read_bytes()
    metadata = pickle.loads(content)
    for stored in metadata.storage_data.values():
        stored.relative_path = "../step-0000002/__0_0.distcp"
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    write_checksums(folder)
    with pytest.raises(ValueError, match="which is not in the checkpoint's folder"):
        quietly(settings(start, run, steps=4), resume=True)


def test_entries_that_are_no_tensors_are_read_without_running_code(tmp_path: Path) -> None:
    planner = SafePlanner(flatten_state_dict=False)
    planner.state_dict = {}
    item = SimpleNamespace(dest_index=SimpleNamespace(fqn="lr"))
    for value, loads in ((0.5, True), (Trap(tmp_path / "trap"), False)):
        stored = io.BytesIO()
        torch.save(value, stored)
        stored.seek(0)
        if loads:
            planner.load_bytes(item, stored)
            assert planner.state_dict == {"lr": 0.5}
        else:
            with pytest.raises(pickle.UnpicklingError):
                planner.load_bytes(item, stored)
    assert not (tmp_path / "trap").exists()


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.file,))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("settings.json", "[" * 100_000, "settings.json is damaged: it is nested too deeply"),
        ("settings.json", "[]", "settings.json is damaged: "),
        ("data.json", '{"a": {"files": -1, "bytes": 0, "digest": ""}}', "data.json is damaged: a.files: .*delete it"),
        ("progress.json", '{"step": "2"}', "progress.json is damaged: step: "),
        ("progress.json", '{"step": 1}', "progress.json is damaged: step is 1"),
        ("progress.json", '{"step": 2, "seen": [1, -1]}', "progress.json is damaged: seen.1: "),
        ("progress.json", "[" * 100_000, "progress.json is damaged: it is nested too deeply"),
        (
            "streams-0.json",
            '{"0": {"text.0": {"epoch": 0}}}',
            "streams-0.json is damaged: 0.text.0.part: Field required",
        ),
        ("streams-0.json", '{"0": null}', "streams-0.json is damaged: 0: "),
    ],
)
def test_a_damaged_file_of_a_run_is_named_in_one_sentence(
    start: Path, finished: Path, tmp_path: Path, name: str, content: str, words: str
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    step = run / "checkpoints" / "step-0000002"
    ((run if (run / name).is_file() else step) / name).write_text(content)
    write_checksums(step)
    with pytest.raises(ValueError, match=words) as error:
        quietly(settings(start, run, steps=3), resume=True)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_damaged_lines_of_a_log_are_left_out(start: Path, finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    with (run / "log.jsonl").open("ab") as log:
        for line in (
            b"[" * 100_000,
            b"\xff",
            b'{"a": {"b": []}}',
            b'{"step": 2, "loss": []}',
            b"7",
            b'{"step": 2, "lo',
        ):
            log.write(line + b"\n")
    quietly(settings(start, run, steps=3), resume=True)
    assert [row["step"] for row in map(json.loads, (run / "log.jsonl").read_text().splitlines())] == [1, 2, 3]


def test_what_a_killed_export_left_is_removed(start: Path, finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    with temporary_path(run / "export") as temporary:
        left = run / f"{temporary.name[:-12]}00000000.tmp"  # of an earlier process with this one's number
    left.mkdir()
    (left / "model.safetensors").touch()
    quietly(settings(start, run, steps=2), resume=True)
    assert not list(run.glob(".*"))
