"""`janusflow generate --prompts`: files of prompts, which can be resumed."""

from __future__ import annotations

import json
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from janusflow import JanusFlow, settings_of
from janusflow.cli.prompt_file import LOCK, MANIFEST
from janusflow.files import locked, temporary_path
from janusflow.presets import PRESETS
from tests.cli.conftest import Run, error_line, pixels, rows


def test_a_line_may_have_a_preset(generated: Run, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "a star", "seed": 1, "preset": "fast"}\n{"prompt": "a star", "seed": 1, "steps": 2}\n')
    assert generated("--prompts", file, "--out", tmp_path / "out").exit_code == 0
    made = [row["num_inference_steps"] for row in rows(tmp_path / "out")]
    assert made == [PRESETS["fast"].num_inference_steps, 2]
    again = generated("--prompts", file, "--out", tmp_path / "out")
    assert "0 pictures generated, 2 existed" in again.stderr


def test_a_line_may_ask_for_several_rounds_and_is_resumed(generated: Run, tmp_path: Path) -> None:
    file, out = tmp_path / "p.jsonl", tmp_path / "out"
    file.write_text(
        '{"prompt": "a star", "seed": 1, "steps": 1, "best_of": 2}\n{"prompt": "a star", "seed": 1, "steps": 1}\n'
    )
    assert generated("--prompts", file, "--out", out).exit_code == 0
    assert [settings_of(out / row["file"]).get("best_of") for row in rows(out)] == [2, None]
    assert [row.get("best_of") for row in rows(out)] == [2, None]
    assert "0 pictures generated, 2 existed" in generated("--prompts", file, "--out", out).stderr


def test_a_text_file_gives_a_picture_a_line_and_is_resumed(generated: Run, tmp_path: Path) -> None:
    file, out = tmp_path / "prompts.txt", tmp_path / "out"
    file.write_text("a star\n\n  two cats \na star\n")
    result = generated("--prompts", file, "-n", 2, "--steps", 1, "--out", out)
    assert result.exit_code == 0, result.output
    assert [(row["line"], row["prompt"]) for row in rows(out)] == [
        (line, prompt) for line, prompt in ((1, "a star"), (3, "two cats"), (4, "a star")) for _ in range(2)
    ]
    assert sorted(row["file"] for row in rows(out)) == sorted(path.name for path in out.glob("*.png"))
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.name != LOCK}
    planned = (out / MANIFEST).read_text()
    (out / rows(out)[3]["file"]).unlink()
    for left in (".a.png", f".{MANIFEST}"):  # of an earlier process that had this one's number
        with temporary_path(out / left) as temporary:
            name = f"{temporary.name[:-12]}00000000.tmp"
        (out / name).touch()
    again = generated("--prompts", file, "-n", 2, "--steps", 1, "--out", out)
    assert "1 picture generated, 5 existed" in again.stderr
    assert again.stdout.split() == [str(out / rows(out)[3]["file"])]
    assert (out / MANIFEST).read_text() == planned and not list(out.glob("*.tmp"))
    now = {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.name != LOCK}
    assert sum(now[name] == before[name] for name in before) == 5 and now.keys() == before.keys()


def test_two_files_of_prompts_are_not_made_into_one_folder_at_once(generated: Run, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a star\n")
    out = tmp_path / "out"
    out.mkdir()
    words = ["--prompts", tmp_path / "prompts.txt", "--steps", 1, "--out", out]
    with locked(out / LOCK, "held"):
        assert "another process is generating the pictures of a file of prompts" in error_line(generated(*words))
    assert generated(*words).exit_code == 0


def test_prompts_that_are_not_text_are_refused(generated: Run, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "a \\ud800 star"}\n')
    assert (
        "line 1" in (said := error_line(generated("--prompts", file, "--out", tmp_path / "a")))
        and "not UTF-8 text" in said
    )
    file.write_bytes(b"\xff\n")
    assert "cannot be read as UTF-8 text" in error_line(generated("--prompts", file, "--out", tmp_path / "a"))
    told = error_line(generated("\udcff", "--out", tmp_path / "a"))
    assert "the prompt is '\\udcff', which is not UTF-8 text" in told


def test_other_settings_make_other_pictures_and_overwrite_none(generated: Run, tmp_path: Path) -> None:
    file, out = tmp_path / "prompts.txt", tmp_path / "out"
    file.write_text("a star\n")
    for steps in (1, 2, 2):
        assert generated("--prompts", file, "--seed", 0, "--steps", steps, "--out", out).exit_code == 0
    names = ["00001-a-star-0-2.png", "00001-a-star-0.png"]
    assert sorted(path.name for path in out.glob("*.png")) == names
    assert [settings_of(out / name)["num_inference_steps"] for name in names] == [2, 1]
    (out / MANIFEST).unlink()
    result = generated("--prompts", file, "--seed", 0, "--steps", 1, "--out", out)
    assert "0 pictures generated, 1 existed" in result.stderr


def test_inpainting_from_a_file_is_resumed_and_keeps_its_settings(
    generated: Run, picture: Path, tmp_path: Path
) -> None:
    mask = tmp_path / "mask.png"
    Image.new("L", (40, 24), 255).save(mask)
    (tmp_path / "prompts.txt").write_text("a star\n")
    given = ["--prompts", str(tmp_path / "prompts.txt"), "--seed", "1", "--image", str(picture), "--mask", str(mask)]
    for options, pasted in (([], True), (["--no-paste-original"], False)):
        out = tmp_path / f"pasted-{pasted}"
        assert "1 picture generated, 0 existed" in generated(*given, *options, "--out", str(out)).stderr
        (file,) = out.glob("*.png")
        assert settings_of(file)["paste_original"] is pasted
        assert "0 pictures generated, 1 existed" in generated(*given, *options, "--out", str(out)).stderr


def test_pictures_of_another_chat_template_are_not_taken_as_done(generated: Run, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a star\n")
    given = ["--prompts", str(tmp_path / "prompts.txt"), "--seed", "1", "--out", str(tmp_path / "out")]
    generated(*given)
    assert "1 picture generated, 0 existed" in generated(*given, "--sft-format", "deepseek").stderr


def test_lines_of_json_have_settings_of_their_own(generated: Run, small_model: JanusFlow, tmp_path: Path) -> None:
    file, out = tmp_path / "prompts.jsonl", tmp_path / "out"
    lines: list[dict[str, Any]] = [
        {"prompt": "a star", "seed": 5, "steps": 2, "guidance": 3, "n": 2},
        {"prompt": "a cat", "num_inference_steps": 1, "size": "32x64", "solver": "heun", "seed": 0},
        {"prompt": "a dog"},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = generated("--prompts", file, "--steps", 1, "--seed", 9, "--batch-size", 2, "--out", out)
    assert result.exit_code == 0, result.output
    found = [settings_of(out / row["file"]) for row in rows(out)]
    assert [one["seed"] for one in found] == [5, 6, 0, 9]
    assert [one["num_inference_steps"] for one in found] == [2, 2, 1, 1]
    assert (found[2]["width"], found[2]["height"], found[2]["solver"]) == (32, 64, "heun")
    expected = small_model.generate("a star", seed=6, num_inference_steps=2, guidance_scale=3.0)[0]
    assert np.array_equal(pixels(out / rows(out)[1]["file"]), np.asarray(expected))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"prompt": "a", "sedd": 1}', "unknown setting 'sedd'; did you mean seed?"),
        ('{"prompt": "a", "seed": "1"}', "seed is '1'; expected a whole number"),
        ('{"prompt": "a", "steps": 0}', "num_inference_steps is '0'"),
        ('{"prompt": "a", "n": 0}', "n is 0; expected a whole number"),
        ('{"prompt": "a", "size": 50}', "expected a positive multiple of 16"),
        ('{"prompt": "a", "size": "big"}', "size is 'big'"),
        ('{"prompt": "a", "temperature": 1}', "unknown setting 'temperature'"),
        ('{"prompt": "a", "prompts": "b"}', "unknown setting 'prompts'"),
        ('{"prompt": ""}', "expected an object with a prompt"),
        ('["a"]', "expected an object with a prompt"),
        ('{"prompt": "a"', "it is not JSON"),
        (json.dumps({"prompt": "star " * 3000}), "a prompt has"),
    ],
)
def test_errors_name_the_line_before_anything_is_made(generated: Run, tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(f'{{"prompt": "a star"}}\n\n{line}\n')
    said = error_line(generated("--prompts", file, "--out", tmp_path / "out"))
    assert said.startswith(f"error: line 3 of {file}: ") and words in said and len(said) < 600
    assert not (tmp_path / "out").exists()


def test_a_file_that_holds_nothing_or_is_not_there(generated: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for name, words in (("empty.txt", "has no prompt"), ("no.txt", "does not exist"), ("binary.txt", "as UTF-8")):
        assert words in error_line(generated("--prompts", tmp_path / name, "--out", tmp_path / "out"))


def test_what_is_made_before_a_failure_is_kept(generated: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, out = tmp_path / "prompts.txt", tmp_path / "out"
    file.write_text("a\nb\nc\n")
    generate, calls = JanusFlow.generate, []

    def fail_third(self: JanusFlow, prompts: list[str], **settings: Any) -> Any:
        calls.append(prompts)
        if len(calls) == 3:
            raise OSError("out of memory")
        return generate(self, prompts, **settings)

    fail_third.__signature__ = signature(generate)  # type: ignore[attr-defined]
    monkeypatch.setattr(JanusFlow, "generate", fail_third)
    assert "out of memory" in error_line(generated("--prompts", file, "--steps", 1, "--batch-size", 1, "--out", out))
    assert len(list(out.glob("*.png"))) == 2 and len(rows(out)) == 3
    result = generated("--prompts", file, "--steps", 1, "--batch-size", 1, "--out", out)
    assert "1 picture generated, 2 existed" in result.stderr and calls[-1] == ["c"]


def test_an_interrupted_run_says_how_far_it_is_and_is_continued(
    generated: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = tmp_path / "prompts.txt", tmp_path / "out"
    file.write_text("a\nb\nc\n")
    generate, calls = JanusFlow.generate, []

    def interrupt_second(self: JanusFlow, prompts: list[str], **settings: Any) -> Any:
        calls.append(prompts)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return generate(self, prompts, **settings)

    interrupt_second.__signature__ = signature(generate)  # type: ignore[attr-defined]
    monkeypatch.setattr(JanusFlow, "generate", interrupt_second)
    stopped = generated("--prompts", file, "--steps", 1, "--batch-size", 1, "--out", out)
    assert stopped.exit_code == 130
    assert "stopped: 1 of 3 pictures are done; repeat the command to continue" in stopped.stderr
    assert "2 pictures generated, 1 existed" in generated("--prompts", file, "--steps", 1, "--out", out).stderr


def test_a_manifest_of_an_earlier_version_keeps_its_random_seeds(generated: Run, tmp_path: Path) -> None:
    file, out = tmp_path / "prompts.txt", tmp_path / "out"
    file.write_text("a star\n")
    assert generated("--prompts", file, "--steps", 1, "--out", out).exit_code == 0
    (row,) = rows(out)
    assert row.pop("random_seed") is True
    (out / MANIFEST).write_text(json.dumps({**row, "drawn": True}) + "\n")
    assert "0 pictures generated, 1 existed" in generated("--prompts", file, "--steps", 1, "--out", out).stderr
