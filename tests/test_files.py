"""JSON files are checked before they are used."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from janusflow.files import (
    checked,
    read_json,
    read_yaml,
    remove_leftovers,
    replace_folder,
    temporary_path,
    write_text,
)
from janusflow.folders import put_together


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "is damaged: it is nested too deeply"),
        (b'{"a": NaN}', "is damaged: it holds NaN"),
        (b'{"a": 1e999}', "is damaged: it holds 1e999, which is too large"),
        (b'{"a": -Infinity}', "is damaged: it holds -Infinity"),
        (b"\xff\xfe", "is damaged: "),
        (b'{"a":', "is damaged: Expecting value"),
    ],
)
def test_json_that_cannot_be_used_gives_one_sentence_with_the_file(
    tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"config.json {message}") as error:
        read_json(file)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


@dataclass
class Settings:
    size: int
    mean: tuple[float, ...] = (0.5,)


def test_values_are_typed_without_guessing() -> None:
    assert checked(Settings, {"size": 3, "mean": [1, 0.5]}, "x.json") == Settings(3, (1.0, 0.5))
    for value, message in (
        ({"size": "3"}, "x.json is damaged: size: Input should be a valid integer"),
        ({"size": True}, "x.json is damaged: size: .*given: True"),
        ({}, "x.json is damaged: size: Field required$"),
        ({"size": 3, "mean": None}, "x.json is damaged: mean: "),
        ([], "x.json is damaged: "),
    ):
        with pytest.raises(ValueError, match=message):
            checked(Settings, value, "x.json")


def test_a_text_is_written_whole_and_nothing_else_stays(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", "1")
    write_text(tmp_path / "a.json", "2")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.json", "2")]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    old, new = tmp_path / "export", tmp_path / "new"
    for words in ("first", "second"):
        new.mkdir()
        (new / words).touch()
        replace_folder(new, old)
        assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*")] == [Path("export"), Path("export", words)]
    with pytest.raises(FileNotFoundError):
        replace_folder(new, old)
    assert (old / "second").is_file() and [path.name for path in tmp_path.iterdir()] == ["export"]


def ended_process() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_killed_process_left_is_removed_at_the_next_write(tmp_path: Path) -> None:
    with temporary_path(tmp_path / "model") as temporary:
        name = temporary.name
        assert name.startswith(".model.") and name.endswith(".tmp") and not temporary.exists()
        temporary.mkdir()
        own = f"-{os.getpid()}-"
        assert own in name
        left = tmp_path / name.replace(own, f"-{ended_process()}-")
        left.mkdir()
        (left / "model.safetensors").touch()
        (tmp_path / name.replace(".model.", ".state.json.").replace(own, f"-{ended_process()}-")).touch()
        earlier = tmp_path / f"{name[:-12]}00000000.tmp"  # of an earlier process with this one's number
        earlier.touch()
        kept = [
            tmp_path / name.replace(own, f"-{os.getppid()}-"),  # of a process that runs
            tmp_path / name.replace(name.split(".")[2][:8], "00000000"),  # of another machine
            tmp_path / "notes.tmp",
        ]
        for file in kept:
            file.touch()
        write_text(tmp_path / "a.json", "1")
        assert {path.name for path in tmp_path.iterdir()} == {"a.json", name, *(file.name for file in kept)}
    assert not temporary.exists()


def test_a_model_that_is_saved_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    with put_together(tmp_path / "model") as temporary:
        (temporary / "config.json").write_text("{}")
        left = tmp_path / temporary.name.replace(f"-{os.getpid()}-", f"-{ended_process()}-")
        left.mkdir()
    assert left.exists()
    with put_together(tmp_path / "model"):
        assert not left.exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "config.json"]


def test_new_files_replace_old_weights_and_whole_parts_but_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    old = ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "vae/a", "notes.txt"]
    for name in old:
        write_text(folder / name, "old")
    with pytest.raises(RuntimeError), put_together(folder) as temporary:
        write_text(temporary / "config.json", "new")
        raise RuntimeError
    assert all((folder / name).read_text() == "old" for name in old)
    with put_together(folder, whole=["vae"]) as temporary:
        for name in ("config.json", "model.safetensors", "vae/b"):
            write_text(temporary / name, "new")
    found = {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}
    assert found == {"config.json": "new", "model.safetensors": "new", "vae/b": "new", "notes.txt": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_leftovers_of_a_folder_that_is_not_there_are_none(tmp_path: Path) -> None:
    remove_leftovers(tmp_path / "missing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [*a]", "holds itself"),
        ("[" * 60 + "]" * 60, "nested too deeply"),
        ("[" * 2000 + "]" * 2000, "nested too deeply"),
        (
            "\n".join(["a0: &a0 [1]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]),
            "values",
        ),
        ("a: [1, 2", "expected"),
        ("a: 1\n" * 60_000, "bytes; at most"),
        ("a: \ud800", "not UTF-8"),
    ],
    ids=["circle", "deep", "very deep", "aliases", "broken", "large", "bytes"],
)
def test_yaml_of_any_structure_is_checked_before_it_is_built(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(ValueError, match=message) as error:
        read_yaml(file)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_aliases_of_usual_size_are_read(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("a: &a {kind: tinyworld}\nb: [*a, *a]\nc: 1\n")
    assert read_yaml(file) == file.read_text()
