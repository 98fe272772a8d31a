"""`janusflow generate`: a picture again, and files of prompts that can be resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from janusflow import JanusFlow, settings_of
from janusflow.checkpoint import find_folder
from janusflow.cli import app
from janusflow.cli.prompt_file import LOCK, MANIFEST
from janusflow.files import locked, temporary_path
from janusflow.presets import PRESETS
from tests.conftest import GOLDEN

Run = Callable[..., Result]


@pytest.fixture
def run(small_folder: Path, vae_folder: Path) -> Run:
    def call(*words: object) -> Result:
        given = [str(word) for word in words]
        model = [] if "--from" in given or "--model" in given else ["--model", str(small_folder)]
        vae = [] if "--from" in given or "--model" in given else ["--vae", str(vae_folder)]
        return CliRunner().invoke(app, ["generate", *given, *model, *vae, "--device", "cpu"])

    return call


def sentence(result: Result) -> str:
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error")]
    assert "Traceback" not in result.output
    return line


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture)


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / MANIFEST).read_text().splitlines()]


# --- again ----------------------------------------------------------------------------------------------------------


def test_a_picture_is_generated_again_to_the_bit(run: Run, tmp_path: Path) -> None:
    several = ["a star", "two cats", "-n", 2, "--batch-size", 1]
    result = run(*several, "--steps", 3, "--guidance", 3, "--solver", "ab2", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    file = Path(result.stdout.split()[2])
    again = run("--from", file, "--out", tmp_path / "again")
    assert again.exit_code == 0 and "warning" not in again.stderr, again.output
    made = Path(again.stdout.strip())
    assert settings_of(made) == settings_of(file) and np.array_equal(pixels(made), pixels(file))
    other = run("--from", file, "--steps", 1, "--out", tmp_path / "other")
    assert settings_of(Path(other.stdout.strip())) == {**settings_of(file), "num_inference_steps": 1}
    prompted = run("a dog", "--from", file, "--out", tmp_path / "other")
    assert settings_of(Path(prompted.stdout.strip())) == {**settings_of(file), "prompts": "a dog"}


def test_a_picture_of_a_janus_is_generated_again(run: Run, tmp_path: Path) -> None:
    folder = GOLDEN / "janus-small-a"
    result = run("a star", "--temperature", 0.7, "--model", folder, "--out", tmp_path)
    file = Path(result.stdout.strip())
    again = run("--from", file, "--out", tmp_path / "again")
    assert again.exit_code == 0 and np.array_equal(pixels(Path(again.stdout.strip())), pixels(file)), again.output


def test_what_it_began_with_must_be_given_again(run: Run, picture: Path, tmp_path: Path) -> None:
    result = run("a star", "--image", picture, "--steps", 2, "--out", tmp_path / "out")
    file = Path(result.stdout.strip())
    said = sentence(run("--from", file, "--out", tmp_path / "again"))
    assert "was generated from an image that it does not contain" in said and "--image" in said
    again = run("--from", file, "--image", picture, "--out", tmp_path / "again")
    assert np.array_equal(pixels(Path(again.stdout.strip())), pixels(file)) and "warning" not in again.stderr
    other = run("--from", file, "--image", file, "--out", tmp_path / "again")
    assert other.exit_code == 0 and "is not the one that" in other.stderr


def test_other_weights_and_another_dtype_are_warned_of(run: Run, tmp_path: Path) -> None:
    file = Path(run("a star", "--steps", 1, "--out", tmp_path / "a").stdout.strip())
    other = run("--from", file, "--model", "tiny", "--vae", find_folder("tiny"), "--out", tmp_path / "b")
    assert other.exit_code == 0 and "the weights are not those" in other.stderr, other.output
    half = run("--from", file, "--dtype", "bfloat16", "--out", tmp_path / "b")
    assert half.exit_code == 0 and "dtype float32 (now bfloat16)" in half.stderr, half.output


def test_a_preset_of_the_command_line(run: Run, tmp_path: Path) -> None:
    made = run("a star", "--seed", 4, "--preset", "fast", "--steps", 2, "--out", tmp_path / "a")
    assert made.exit_code == 0, made.output
    fast = settings_of(Path(made.stdout.strip()))
    assert fast["solver"] == PRESETS["fast"].solver and fast["num_inference_steps"] == 2
    again = run("--from", made.stdout.strip(), "--out", tmp_path / "b")
    assert again.exit_code == 0, again.output
    assert np.array_equal(pixels(Path(made.stdout.strip())), pixels(Path(again.stdout.strip())))
    other = run("--from", made.stdout.strip(), "--preset", "balanced", "--out", tmp_path / "b")
    assert other.exit_code == 0, other.output
    assert settings_of(Path(other.stdout.strip()))["num_inference_steps"] == PRESETS["balanced"].num_inference_steps
    half = run("a star", "--guidance-interval", 0, 0.5, "--steps", 2, "--solver", "unipc", "--out", tmp_path / "c")
    assert half.exit_code == 0, half.output
    assert settings_of(Path(half.stdout.strip()))["guidance_interval"] == (0.0, 0.5)
    assert "preset is 'quick'; choose from" in sentence(run("a star", "--preset", "quick", "--out", tmp_path / "d"))
    assert "has no preview_decoder" in sentence(run("a star", "--decoder", "small", "--out", tmp_path / "d"))


def test_a_line_may_have_a_preset(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "a star", "seed": 1, "preset": "fast"}\n{"prompt": "a star", "seed": 1, "steps": 2}\n')
    assert run("--prompts", file, "--out", tmp_path / "out").exit_code == 0
    made = [row["num_inference_steps"] for row in rows(tmp_path / "out")]
    assert made == [PRESETS["fast"].num_inference_steps, 2]
    again = run("--prompts", file, "--out", tmp_path / "out")
    assert "0 pictures generated, 2 existed" in again.stderr


def test_info_shows_how_a_picture_was_made(run: Run, picture: Path, tmp_path: Path) -> None:
    file = Path(run("a star", "--steps", 1, "--seed", 4, "--out", tmp_path / "out").stdout.strip())
    shown = CliRunner().invoke(app, ["info", str(file)])
    assert shown.exit_code == 0, shown.output
    told = dict(line.split(maxsplit=1) for line in shown.stdout.splitlines())
    assert told["prompt"] == "a star" and told["seed"] == "4" and told["num_inference_steps"] == "1"
    assert "does not say how it was made" in sentence(CliRunner().invoke(app, ["info", str(picture)]))


def test_a_foreign_picture_and_too_much_at_once_are_refused(run: Run, picture: Path, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "new"]
    assert "does not say how it was made" in sentence(run("--from", picture, *out))
    (tmp_path / "p.txt").write_text("a star\n")
    for words in ([], ["a star", "--prompts", tmp_path / "p.txt"]):
        assert "give prompts, or --prompts FILE, or --from PICTURE" in sentence(run(*words, *out))
    assert not (tmp_path / "new").exists()


# --- files of prompts -------------------------------------------------------------------------------------------------


def test_a_text_file_gives_a_picture_a_line_and_is_resumed(run: Run, tmp_path: Path) -> None:
    file, out = tmp_path / "prompts.txt", tmp_path / "out"
    file.write_text("a star\n\n  two cats \na star\n")
    result = run("--prompts", file, "-n", 2, "--steps", 1, "--out", out)
    assert result.exit_code == 0, result.output
    assert [(row["line"], row["prompt"]) for row in rows(out)] == [
        (line, prompt) for line, prompt in ((1, "a star"), (3, "two cats"), (4, "a star")) for _ in range(2)
    ]
    assert sorted(row["file"] for row in rows(out)) == sorted(path.name for path in out.glob("*.png"))
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.name != LOCK}
    planned = (out / MANIFEST).read_text()
    (out / rows(out)[3]["file"]).unlink()
    for left in (".a.png", f".{MANIFEST}"):  # of an earlier process that had this one's number
        with temporary_path(out / left) as beside:
            name = f"{beside.name[:-12]}00000000.tmp"
        (out / name).touch()
    again = run("--prompts", file, "-n", 2, "--steps", 1, "--out", out)
    assert "1 picture generated, 5 existed" in again.stderr
    assert again.stdout.split() == [str(out / rows(out)[3]["file"])]
    assert (out / MANIFEST).read_text() == planned and not list(out.glob("*.tmp"))
    now = {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.name != LOCK}
    assert sum(now[name] == before[name] for name in before) == 5 and now.keys() == before.keys()


def test_two_files_of_prompts_are_not_made_into_one_folder_at_once(run: Run, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a star\n")
    out = tmp_path / "out"
    out.mkdir()
    words = ["--prompts", tmp_path / "prompts.txt", "--steps", 1, "--out", out]
    with locked(out / LOCK, "held"):
        assert "another process is generating the pictures of a file of prompts" in sentence(run(*words))
    assert run(*words).exit_code == 0


def test_a_name_that_another_process_took_meanwhile_is_not_overwritten(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = JanusFlow.generate

    def slow(self: JanusFlow, *args: Any, **settings: Any) -> Any:
        pictures = generate(self, *args, **settings)
        for name in ("001-a-star-3.png", "001-sheet.png"):
            (tmp_path / name).write_bytes(b"of another process")
        return pictures

    slow.__signature__ = signature(generate)  # type: ignore[attr-defined]
    monkeypatch.setattr(JanusFlow, "generate", slow)
    result = run("a star", "-n", 2, "--seed", 3, "--steps", 1, "--out", tmp_path)
    names = [Path(line).name for line in result.stdout.splitlines()]
    assert names == ["001-a-star-3-2.png", "002-a-star-4.png", "001-sheet-2.png"], result.output
    assert (tmp_path / "001-a-star-3.png").read_bytes() == b"of another process"


def test_prompts_that_are_not_text_are_refused(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "a \\ud800 star"}\n')
    assert "line 1" in (said := sentence(run("--prompts", file, "--out", tmp_path / "a"))) and "not UTF-8 text" in said
    file.write_bytes(b"\xff\n")
    assert "cannot be read as UTF-8 text" in sentence(run("--prompts", file, "--out", tmp_path / "a"))
    assert "the prompt is '\\udcff', which is not UTF-8 text" in sentence(run("\udcff", "--out", tmp_path / "a"))


def test_other_settings_make_other_pictures_and_overwrite_none(run: Run, tmp_path: Path) -> None:
    file, out = tmp_path / "prompts.txt", tmp_path / "out"
    file.write_text("a star\n")
    for steps in (1, 2, 2):
        assert run("--prompts", file, "--seed", 0, "--steps", steps, "--out", out).exit_code == 0
    names = ["00001-a-star-0-2.png", "00001-a-star-0.png"]
    assert sorted(path.name for path in out.glob("*.png")) == names
    assert [settings_of(out / name)["num_inference_steps"] for name in names] == [2, 1]
    (out / MANIFEST).unlink()
    result = run("--prompts", file, "--seed", 0, "--steps", 1, "--out", out)
    assert "0 pictures generated, 1 existed" in result.stderr


def test_inpainting_from_a_file_is_resumed_and_keeps_its_settings(run: Run, picture: Path, tmp_path: Path) -> None:
    mask = tmp_path / "mask.png"
    Image.new("L", (40, 24), 255).save(mask)
    (tmp_path / "prompts.txt").write_text("a star\n")
    given = ["--prompts", str(tmp_path / "prompts.txt"), "--seed", "1", "--image", str(picture), "--mask", str(mask)]
    for options, pasted in (([], True), (["--no-paste-original"], False)):
        out = tmp_path / f"pasted-{pasted}"
        assert "1 picture generated, 0 existed" in run(*given, *options, "--out", str(out)).stderr
        (file,) = out.glob("*.png")
        assert settings_of(file)["paste_original"] is pasted
        assert "0 pictures generated, 1 existed" in run(*given, *options, "--out", str(out)).stderr


def test_pictures_of_another_chat_template_are_not_taken_as_done(run: Run, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a star\n")
    given = ["--prompts", str(tmp_path / "prompts.txt"), "--seed", "1", "--out", str(tmp_path / "out")]
    run(*given)
    assert "1 picture generated, 0 existed" in run(*given, "--sft-format", "deepseek").stderr


def test_lines_of_json_have_settings_of_their_own(run: Run, small_model: JanusFlow, tmp_path: Path) -> None:
    file, out = tmp_path / "prompts.jsonl", tmp_path / "out"
    lines: list[dict[str, Any]] = [
        {"prompt": "a star", "seed": 5, "steps": 2, "guidance": 3, "n": 2},
        {"prompt": "a cat", "num_inference_steps": 1, "size": "32x64", "solver": "heun", "seed": 0},
        {"prompt": "a dog"},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = run("--prompts", file, "--steps", 1, "--seed", 9, "--batch-size", 2, "--out", out)
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
def test_errors_name_the_line_before_anything_is_made(run: Run, tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(f'{{"prompt": "a star"}}\n\n{line}\n')
    said = sentence(run("--prompts", file, "--out", tmp_path / "out"))
    assert said.startswith(f"error: line 3 of {file}: ") and words in said and len(said) < 600
    assert not (tmp_path / "out").exists()


def test_a_file_that_holds_nothing_or_is_not_there(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for name, words in (("empty.txt", "has no prompt"), ("no.txt", "does not exist"), ("binary.txt", "as UTF-8")):
        assert words in sentence(run("--prompts", tmp_path / name, "--out", tmp_path / "out"))


def test_what_is_made_before_a_failure_is_kept(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert "out of memory" in sentence(run("--prompts", file, "--steps", 1, "--batch-size", 1, "--out", out))
    assert len(list(out.glob("*.png"))) == 2 and len(rows(out)) == 3
    result = run("--prompts", file, "--steps", 1, "--batch-size", 1, "--out", out)
    assert "1 picture generated, 2 existed" in result.stderr and calls[-1] == ["c"]


def test_an_interrupted_run_says_how_far_it_is_and_is_continued(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    stopped = run("--prompts", file, "--steps", 1, "--batch-size", 1, "--out", out)
    assert stopped.exit_code == 130
    assert "stopped: 1 of 3 pictures are done; repeat the command to continue" in stopped.stderr
    assert "2 pictures generated, 1 existed" in run("--prompts", file, "--steps", 1, "--out", out).stderr


def test_a_manifest_of_an_earlier_version_keeps_its_random_seeds(run: Run, tmp_path: Path) -> None:
    file, out = tmp_path / "prompts.txt", tmp_path / "out"
    file.write_text("a star\n")
    assert run("--prompts", file, "--steps", 1, "--out", out).exit_code == 0
    (row,) = rows(out)
    assert row.pop("random_seed") is True
    (out / MANIFEST).write_text(json.dumps({**row, "drawn": True}) + "\n")
    assert "0 pictures generated, 1 existed" in run("--prompts", file, "--steps", 1, "--out", out).stderr


def test_a_picture_that_a_callback_changed_is_not_generated_again(
    run: Run, small_model: JanusFlow, tmp_path: Path
) -> None:
    (picture,) = small_model.generate(
        "a star", num_inference_steps=2, callback_on_step_end=lambda *_: {"guidance_scale": 1.0}
    )
    picture.save(tmp_path / "cb.png")
    said = sentence(run("--from", tmp_path / "cb.png", "--out", tmp_path / "new"))
    assert "cb.png' was changed by a callback during generation, so its settings do not recreate it" in said


def test_pictures_are_saved_though_nobody_reads_their_names(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", broken)
    run("a", "b", "c", "--steps", 1, "--batch-size", 1, "--out", tmp_path)
    assert len(list(tmp_path.glob("*.png"))) == 4  # and the sheet
